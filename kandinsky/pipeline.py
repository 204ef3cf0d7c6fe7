"""The public class: arguments of a call to a request, and what comes of it in the form that the caller expects.

A call is `request_of(arguments)` and `run(request)`: whoever has a `Request` already (the command, the page, a batch)
hands that in. What a run does stands in `runner`.
"""

# One result or a list of them, by whether `bs` is the literal 1: a type checker cannot keep these two apart, and takes
# the first that fits, which is right.
# pyright: reportOverlappingOverload=false

import os
from collections.abc import Sequence
from typing import Any, Literal, Self, Unpack, overload

import numpy as np
from PIL import Image
from torch import Tensor

from kandinsky.checkpoint.save import save_model_set
from kandinsky.extend.call import Extends
from kandinsky.loading.assemble import load_parts
from kandinsky.loading.devices import DeviceMap, devices_of
from kandinsky.loading.move import check_whole, moved
from kandinsky.loading.settings import settings_of
from kandinsky.loading.sources import pretrained
from kandinsky.model.isolation import isolated
from kandinsky.output.inputs import Inputs
from kandinsky.output.options import OutputOptions
from kandinsky.output.remaining import remaining_of
from kandinsky.output.result import Frames, GenerationResult, Many, returned
from kandinsky.progress import AfterStep, OnStep
from kandinsky.request import DEFAULT_PATH, Extras, Request, Sized, check_targets, request_of
from kandinsky.user_files.paths import user_path

Target = str | os.PathLike[str]


class Kandinsky4T2VPipeline(Extends):
    """Text to video: the published call, and diffusers' names for what this library does.

    Args:
        parts: everything that runs, from `loading.assemble.load_parts` or put together by hand. `to` alone puts others
            in their place.
    """

    @overload
    def __call__(
        self, text: str | Sequence[str], *, bs: int = 1, time_length: Literal[0], width: int | None = None,
        height: int | None = None, seed: int | None = None, return_frames: bool = False,
        output_type: Literal["pil"] | None = None, **extras: Unpack[Extras],
    ) -> list[Image.Image]: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str, save_path: Target = ..., bs: Literal[1] = 1, *, return_frames: Literal[True],
        output_type: Literal["pil"] | None = None, **sized: Unpack[Sized],
    ) -> list[Image.Image]: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str | Sequence[str], save_path: Target = ..., bs: int = 1, *, return_frames: Literal[True],
        output_type: Literal["pil"] | None = None, **sized: Unpack[Sized],
    ) -> list[list[Image.Image]]: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str, save_path: Target = ..., bs: Literal[1] = 1, *, output_type: Literal["pil"],
        **sized: Unpack[Sized],
    ) -> list[Image.Image]: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str | Sequence[str], save_path: Target = ..., bs: int = 1, *, output_type: Literal["pil"],
        **sized: Unpack[Sized],
    ) -> list[list[Image.Image]]: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str, save_path: Target = ..., bs: Literal[1] = 1, *, output_type: Literal["np"],
        **sized: Unpack[Sized],
    ) -> np.ndarray: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str | Sequence[str], save_path: Target = ..., bs: int = 1, *, output_type: Literal["np"],
        **sized: Unpack[Sized],
    ) -> list[np.ndarray]: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str, save_path: Target = ..., bs: Literal[1] = 1, *, output_type: Literal["pt", "latent"],
        **sized: Unpack[Sized],
    ) -> Tensor: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str | Sequence[str], save_path: Target = ..., bs: int = 1, *,
        output_type: Literal["pt", "latent"], **sized: Unpack[Sized],
    ) -> list[Tensor]: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str, save_path: Target = ..., bs: Literal[1] = 1, time_length: int | None = None,
        width: int | None = None, height: int | None = None, seed: int | None = None,
        return_frames: Literal[False] = False, *, output_type: Literal["file"] | None = None, **extras: Unpack[Extras],
    ) -> GenerationResult: ...  # fmt: skip
    @overload
    def __call__(
        self, text: str | Sequence[str], save_path: Target = ..., bs: int = 1, time_length: int | None = None,
        width: int | None = None, height: int | None = None, seed: int | None = None,
        return_frames: Literal[False] = False, *, output_type: Literal["file"] | None = None, **extras: Unpack[Extras],
    ) -> list[GenerationResult]: ...  # fmt: skip

    def __call__(
        self,
        text: str | Sequence[str],
        save_path: Target = DEFAULT_PATH,
        bs: int = 1,
        time_length: int | None = None,
        width: int | None = None,
        height: int | None = None,
        seed: int | None = None,
        return_frames: bool = False,
        *,
        output_type: str | None = None,
        fps: int | None = None,
        crf: int | None = None,
        codec: str | None = None,
        metadata: bool = True,
        interpolate: int | None = None,
        interpolate_with: str | None = None,
        on_step: OnStep | None = None,
        callback_on_step_end: AfterStep | None = None,
        image: object = None,
        last_image: object = None,
        video: object = None,
        strength: float | None = None,
        mask: object = None,
        fit: str | None = None,
    ) -> GenerationResult | Frames | Many | None:
        """Make videos or images.

        Args:
            text: a prompt, or a list of prompts.
            save_path: file to write: a video (.mp4, .mov, .mkv, .webm), an animation (.gif, .webp) or, ending in a
                slash, a new folder of png frames; an image .png, .jpg or .webp. With several videos `-0`, `-1`, ...
                come before its ending. Not used where frames are returned.
            bs: videos for each prompt.
            time_length: whole seconds, 0 for an image; by default 12, or the most that the model set allows.
            width, height: pixels, one of the sizes of the model set; by default its first, 512x512 of the published.
            seed: 0 to 2^63 - 1, of the first video; the next ones count up. Drawn if None. It is reported in the
                result, in the progress bar and in each PIL image's `info["seed"]`.
            return_frames: the published way to say `output_type="pil"`.
            output_type: "file" writes `save_path`, "pil", "np" and "pt" return the frames, "latent" the latents before
                decoding. None is "file" for videos, and for images with a `save_path`; else "pil".
            fps: 1 to 120, frames per second that the file plays at (default: the model's 8, times `interpolate`); the
                frames stay the same.
            crf: quality of a video file, up to 51 (63 for vp9); default 5 for h264, 10 for hevc, 15 for vp9. The best
                that plays everywhere is 1 for h264, whose 0 is lossless and warned of, and 0 for the others.
            codec: "h264" (default), "hevc" or "vp9" (default of .webm).
            metadata: write the record of the generation into the file; see `kandinsky show`.
            interpolate: 2, 3 or 4 times as many frames a second, for a smooth video of the same length: n frames become
                (n - 1) times as many and one, and those that were there stay as they are.
            interpolate_with: "ffmpeg" (None is the same) makes frames in between with ffmpeg's motion-compensated
                filter, on all cores of the CPU; "network" with the library's own network where the VAE is, which a GPU
                does sooner, and which was trained on few videos: docs/interpolation compares their pictures.
            on_step: called after each step with the number of steps done (1 to `total`), `total`, and the latents
                `[T, H, W, C]` on the DiT's device; returning False stops the run. Of several ranks that make a video
                together, the first one's is asked.
            callback_on_step_end: diffusers' form of it: called with the pipeline, the index of the step (from 0), its
                timestep and `{"latents": latents}`; returns such a mapping, whose latents are gone on with.
                Setting `pipe.interrupt = True`, there or from another thread, stops the run after the step; of several
                ranks that make a video together, on the first one.
            image: the first frame: a path, a PIL image, an array or a tensor `[height, width, 3]`, of any size. It is
                turned as its Exif data say, and laid over black where it is transparent.
            last_image: what the last four frames, the last latent frame, show; with `image` the video goes from one to
                the other.
            video: what is changed, with `strength`, `mask` or both: a path, a list of PIL images, or an array or tensor
                `[frames, height, width, 3]` at the model's 8 frames a second. Its whole seconds are the length, unless
                `time_length` says a shorter one.
            strength: how much of `video` changes: 1 all of it, as if there were none, 0.75, 0.5 or 0.25 hardly.
            mask: what is made anew (white) of `video` or of `image`; the rest stays. One picture, or a clip as long as
                `video`. With `time_length=0` a picture is filled in.
            fit: how pictures get to the size: "cover" it and be cropped (default), "contain" it with black bars, or
                "stretch". Without `width` and `height` the size is the one whose proportions are nearest to the
                picture's; another one needs a `fit`.

        Returns:
            A `GenerationResult` for a file; a list of PIL images; uint8 `[frames, height, width, 3]` as an array or a
            CPU tensor; latents `[T, H, W, C]`. A list of prompts, and `bs` above 1, give a list of these; PIL images of
            several `time_length=0` are one flat list. None on ranks that do not write. Ranks that share out the jobs
            each return what they made.

        Raises:
            ValueError: an argument is not what it may be; no model has run.
            DecodeError: sampled, but not decoded or written; the latents are saved, and the message says where.
            StoppedError: a callback or `interrupt` stopped the run; videos of this call that were finished before stay.
        """
        watch = self._watch(on_step, callback_on_step_end)
        inputs = Inputs(image=image, last_image=last_image, video=video, strength=strength, mask=mask, fit=fit)

        def asked() -> Request:
            between = {"interpolate": interpolate, "interpolate_with": interpolate_with}
            options = OutputOptions(type=output_type, fps=fps, crf=crf, codec=codec, metadata=metadata, **between)
            size = (time_length, width, height)
            request = request_of(
                text,
                save_path,
                bs,
                *size,
                seed,
                return_frames,
                model_set=self.model_set,
                options=options,
                inputs=inputs,
            )
            check_targets(request)
            return request

        request = self._shared_request(asked)
        results = self._run(request, watch)
        if not results:
            return None
        one = len(request.jobs) == 1 and isinstance(text, str)
        return returned(results, one=one, flat=request.shape.is_image and request.output.kind == "pil")

    def decode_to(
        self,
        latents: Tensor | Target,
        save_path: Target | None = None,
        *,
        fps: int | None = None,
        crf: int | None = None,
        codec: str | None = None,
        metadata: bool | None = None,
    ) -> GenerationResult:
        """Finish an interrupted generation.

        Args:
            latents: `[T, H, W, C]` as sampled, or a `.latents.safetensors` file; it is left where it is.
            save_path: as in a call; None is the target that the file names.
            fps, crf, codec, metadata: as in a call; None is what the file says.

        Raises:
            ValueError: an argument is not what it may be, or this pipeline's processes decode together.
            FileNotFoundError, RecordError: there is no such file, or it is damaged.
            DecodeError: it failed again.
        """
        if self.team.size > 1:
            raise ValueError("decode_to works in one process; this pipeline's processes decode together")
        options = {"fps": fps, "crf": crf, "codec": codec, "metadata": metadata}
        remaining = remaining_of(latents, save_path, model_set=self.model_set, **options)
        with self._alone():
            return self.finisher.finish(remaining)

    @classmethod
    def from_pretrained(cls, folder_or_repo: Target, *, device_map: DeviceMap = "cuda", **options: Any) -> Self:
        """Load a pipeline.

        Args:
            folder_or_repo: a folder in the published layout (nothing is downloaded), or `owner/name` on the hub: that
                of the published DiT, which gets the other parts from where they are published, or one that holds a
                folder of `save_pretrained`.
            device_map: as for `get_T2V_pipeline`.
            options: its other arguments; `revision` is one for every repository, or a mapping by their names, and
                `cache_dir`, where files are downloaded to, is for the published repository alone.

        Raises:
            ValueError: neither a folder nor the name of a repository; or as `get_T2V_pipeline`. Nothing was downloaded.
            FileNotFoundError, CheckpointError: as `get_T2V_pipeline`.
        """
        place, options = pretrained(str(user_path(folder_or_repo, "folder_or_repo")), options)
        return cls(load_parts(settings_of(device_map, repository=place, **options)))

    def save_pretrained(self, folder: Target) -> None:
        """Write the weights as they are into `folder`, made if it is not there, in the published layout (safetensors).

        Raises:
            ValueError: the weights are quantised or shared out over processes: load exact ones in one process.
        """
        check_whole(self._parts, "save_pretrained")
        assert self.text_encoder is not None
        assert self.vae is not None
        save_model_set(
            user_path(folder, "folder"),
            dit=self.dit,
            t5=self.text_encoder.model,
            tokenizer=self.text_encoder.tokenizer,
            autoencoder=self.vae.autoencoder,
            schedule=self.parts.schedule,
            model_set=self.model_set,
        )

    def to(self, device: DeviceMap) -> Self:
        """Move the models, keeping their dtype, and choose attention and kernels anew as "auto" does.

        Args:
            device: as `device_map` of `get_T2V_pipeline`.

        Raises:
            ValueError: no such device, or the weights are quantised, shared out over processes, or not all resident.
        """
        devices = devices_of(device)
        with self._lock, isolated():
            self._parts = moved(self._parts, devices)
        return self
