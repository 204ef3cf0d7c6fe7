"""What is left to do of an interrupted generation: arguments of `resume` and `decode_to` to a checked value.

Nothing but the file of latents is read: no weights are needed to find out whether it can be finished.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kandinsky.config import ModelSet
from kandinsky.errors import shown
from kandinsky.output.as_recorded import as_recorded
from kandinsky.output.options import Output, OutputOptions, output_of
from kandinsky.output.paths import check_target
from kandinsky.output.record import Record
from kandinsky.output.unfinished import VaeSource, check_latents, load_unfinished
from kandinsky.output.video import check_encoder
from kandinsky.user_files.paths import user_path


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """Latents and where their result goes.

    Args:
        latents: `[T, H, W, C]` as sampled.
        path, output: of the file to write.
        record: of the generation, as it will stand in the file; None for latents that nothing is known about.
        file: of the latents; None if they came as a tensor.
        vae: that the sampling process would have used; None if that is not known.
    """

    latents: Tensor
    path: Path
    output: Output
    record: Record | None
    file: Path | None
    vae: VaeSource | None


def remaining_of(
    latents: Tensor | str | os.PathLike[str],
    save_path: str | os.PathLike[str] | None = None,
    *,
    model_set: ModelSet,
    fps: int | None = None,
    crf: int | None = None,
    codec: str | None = None,
    metadata: bool | None = None,
) -> Remaining:
    """What is to be finished.

    Args:
        latents: `[T, H, W, C]` as sampled, or a `.latents.safetensors` file.
        save_path: as in a call of the pipeline; None is the target that the file names, if it is in the file's folder.
        model_set: what the VAE was trained for.
        fps, crf, codec, metadata: as in a call of the pipeline; None is what the file says, see `as_recorded`.

    Raises:
        ValueError: an argument is not what it may be.
        FileNotFoundError: there is no such file.
        RecordError: the file is damaged.
    """
    file = record = vae = target = None
    in_file = True
    if not isinstance(latents, Tensor):
        file = user_path(latents, "latents")
        unfinished, target = load_unfinished(file)
        latents, record, vae, in_file = unfinished.latents, unfinished.record, unfinished.vae, unfinished.metadata
    check_latents(latents)
    is_image = len(latents) == 1
    if save_path is None and file is not None and target is not None:
        _check_own_folder(file, target)
    save_path = target if save_path is None else save_path
    if save_path is None:
        raise ValueError("save_path=None: these latents do not say where their result goes; name a file (--save-path)")
    given = OutputOptions(
        type="file", fps=fps, crf=crf, codec=codec, metadata=in_file if metadata is None else metadata
    )
    options = given if record is None or is_image else as_recorded(given, record, save_path)
    output, path = output_of(save_path, options, is_image=is_image, model_fps=model_set.fps)
    assert path is not None
    check_target(save_path, is_image=is_image)
    if output.codec is not None:
        check_encoder(output.codec)
    if record is not None:
        record = dataclasses.replace(record, fps=output.fps, crf=output.crf, codec=output.codec)
    return Remaining(latents=latents, path=path, output=output, record=record, file=file, vae=vae)


def _check_own_folder(file: Path, target: str) -> None:
    """Refuse a target elsewhere: whoever wrote the file would choose what is replaced.

    Raises:
        ValueError: names the target, which the user may want to name.
    """
    if Path(target).absolute().parent.resolve() != file.absolute().parent.resolve():
        raise ValueError(
            f"{file} names a target in another folder, {shown(target)}: if that is where it should go, say so with "
            "save_path (--save-path)"
        )
