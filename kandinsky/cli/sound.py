"""`kandinsky sound`: a sound for a video file; and `kandinsky generate --sound`, which makes the video first."""

import argparse
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kandinsky.cli.common import (
    Defaults,
    Outcome,
    add_print_arguments,
    file_argument,
    heed_no_distributed,
    writes_here,
)
from kandinsky.cli.generate import generate
from kandinsky.errors import KandinskyError, VideoError

if TYPE_CHECKING:
    from kandinsky.audio.load import SoundSettings
    from kandinsky.audio.pipeline import Kandinsky4V2APipeline
    from kandinsky.audio.request import SoundRequest
    from kandinsky.audio.result import SoundResult

Load = Callable[["SoundSettings"], "Kandinsky4V2APipeline"]
Generate = Callable[..., Outcome | None]


def add_sound_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    about = "Make a sound for a video (Kandinsky 4.0 V2A) and write it beside the video's unchanged picture."
    sound = commands.add_parser("sound", help="give a video a sound", description=about, formatter_class=Defaults)
    sound.add_argument("file", type=file_argument, help="a video of a second or more; its first 12 s get a sound")
    sound.add_argument("--prompt", help='what the sound should be like; default: "clean. clear. good quality."')
    sound.add_argument("--negative-prompt", help="what it should be unlike; default: the published one")
    sound.add_argument("--save-path", type=file_argument, help="default: the file's name with -sound, as .mp4")
    sound.add_argument("--seed", type=int, default=42, help="same seed, same sound")
    sound.add_argument("--num-inference-steps", type=int, default=50)
    sound.add_argument("--guidance-scale", type=float, default=8.0, help="1 is without guidance")
    sound.add_argument("--embeddings", type=file_argument, help="what the encoder would give, in a .safetensors file")
    sound.add_argument("--replace-audio", action="store_true", help="write a file without the sound that is there")
    sound.add_argument("--no-metadata", action="store_true", help="no record of the sound in the file")
    sound.add_argument("--weights", type=file_argument, default="./weights/", help="folder of the weights")
    sound.add_argument("--device", default="cuda", help="where everything runs: cuda, cuda:1, cpu, mps")
    _add_encoder_arguments(sound)
    sound.add_argument("--no-progress", action="store_true", help="no progress bars")
    add_print_arguments(sound)
    sound.set_defaults(run=give_sound)


def add_generate_sound(parser: argparse.ArgumentParser) -> None:
    """`--sound` and what belongs to it, for `generate`; see `generate_with_sound`."""
    parser.add_argument("--sound", action="store_true", help="give the video a sound (see `kandinsky sound`)")
    parser.add_argument("--sound-prompt", help="as --prompt of `kandinsky sound`")
    parser.add_argument("--sound-negative-prompt", help="as its --negative-prompt")
    _add_encoder_arguments(parser)


def _add_encoder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the code that comes with the encoder of videos and sound prompts, with all rights that you have",
    )
    parser.add_argument(
        "--encoder-revision", help="commit of the encoder that may be downloaded, 40 hexadecimal digits"
    )
    parser.add_argument(
        "--embedding-cache", type=file_argument, help="a folder that keeps what the encoder said of a video and prompts"
    )


def _load(settings: "SoundSettings") -> "Kandinsky4V2APipeline":
    from kandinsky.audio.load import load_sound_parts
    from kandinsky.audio.pipeline import Kandinsky4V2APipeline

    return Kandinsky4V2APipeline(load_sound_parts(settings))


def give_sound(parsed: argparse.Namespace, *, load: Load = _load) -> Outcome:
    """`kandinsky sound`.

    Args:
        load: makes the pipeline, once everything else is known to be right.

    Raises:
        ValueError: an argument is not what it may be; nothing was loaded.
    """
    from kandinsky.audio.encoder import check_trust
    from kandinsky.audio.request import sound_request_of

    path = Path(parsed.file)
    request = sound_request_of(
        path,
        seed=parsed.seed,
        num_inference_steps=parsed.num_inference_steps,
        guidance_scale=parsed.guidance_scale,
        embeddings=parsed.embeddings,
        save_path=parsed.save_path or path.with_name(f"{path.stem}-sound.mp4"),
        replace_audio=parsed.replace_audio,
        metadata=not parsed.no_metadata,
        **_prompts(parsed.prompt, parsed.negative_prompt),
    )
    if request.embeddings is None and parsed.embedding_cache is None:
        check_trust(parsed.trust_remote_code)  # before anything is downloaded
    settings = _settings(parsed)
    if request.known_embeddings(settings.cache) is None:
        settings.encoder.check()
    result = load(settings).run(request)
    return Outcome(_lines(result), _record(result))


def generate_with_sound(
    parsed: argparse.Namespace, *, arguments: Sequence[str], load: Load = _load, make: Generate = generate
) -> Outcome | None:
    """`kandinsky generate`, and with `--sound` a sound for its video; None in a process that does not write.

    The video is complete before the sound's models are loaded, and those of the video have left the GPU: nothing more
    is asked of them.

    Args:
        arguments: of the command, for processes that it starts.
        load: makes the pipeline of the sound.
        make: makes the video.

    Raises:
        ValueError: an argument is not what it may be; nothing was loaded.
        VideoError: the video is there, and got no sound.
    """
    if not parsed.sound:
        return make(parsed, arguments=arguments)
    heed_no_distributed(parsed, num_gpus=parsed.num_gpus)
    settings = _checked(parsed) if writes_here() else None
    outcome = make(parsed, arguments=arguments)
    if outcome is None or settings is None:
        return outcome
    path = Path(str(outcome.record["path"]))
    try:
        leave_gpu()
        result = load(settings).run(_request_for(parsed, path))
    except (KandinskyError, OSError, ValueError) as error:
        raise VideoError(f"the video is in {path}, without a sound: {error}") from error
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"the video is in {path}, without a sound")
        raise
    return Outcome([*outcome.lines, *_lines(result)], {**outcome.record, "sound": _record(result)})


def leave_gpu() -> None:
    """Give back what models took that nobody holds any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _checked(parsed: argparse.Namespace) -> "SoundSettings":
    """Settings of the sound, whatever can be told before there is a video.

    Raises:
        ValueError: there will be no video that a sound can be put into, or nobody has vouched for the encoder.
    """
    from kandinsky.audio.encoder import check_trust
    from kandinsky.audio.mux import ENDINGS

    if parsed.prompts is not None:
        raise ValueError("--sound with --prompts: allowed is one video; `kandinsky sound` gives each file its own")
    if parsed.time_length == 0:
        raise ValueError("--sound with --time-length 0: allowed is a video of a second or more, not an image")
    if parsed.save_path is not None and Path(parsed.save_path).suffix.lower() not in ENDINGS:
        raise ValueError(f"--sound with --save-path {parsed.save_path}: must end with one of {', '.join(ENDINGS)}")
    check_trust(parsed.trust_remote_code)
    settings = _settings(parsed)
    settings.encoder.check()
    return settings


def _request_for(parsed: argparse.Namespace, path: Path) -> "SoundRequest":
    from kandinsky.audio.request import sound_request_of

    prompts = _prompts(parsed.sound_prompt, parsed.sound_negative_prompt)
    return sound_request_of(path, seed=parsed.seed, save_path=path, metadata=not parsed.no_metadata, **prompts)


def _settings(parsed: argparse.Namespace) -> "SoundSettings":
    from kandinsky.audio.load import sound_settings_of

    return sound_settings_of(
        parsed.device,
        parsed.weights,
        {},
        trust_remote_code=parsed.trust_remote_code,
        encoder_revision=parsed.encoder_revision,
        embedding_cache=parsed.embedding_cache,
        dtype=None,
        local_files_only=False,
        revision=None,
        progress=not (parsed.no_progress or parsed.quiet),
    )


def _prompts(prompt: str | None, negative_prompt: str | None) -> dict[str, Any]:
    """Those that were given."""
    given = {"prompt": prompt, "negative_prompt": negative_prompt}
    return {name: text for name, text in given.items() if text is not None}


def _lines(result: "SoundResult") -> list[str]:
    seconds = len(result.waveform) / result.sample_rate
    lines = [f"{result.path}: {seconds:.2f} s of sound, seed {result.seed}"]
    for stage, taken in result.timings.items():
        memory = result.peak_memory.get(stage)
        lines.append(f"{stage:>8} {taken:8.3f} s" + (f", peak {memory / 2**30:.2f} GiB" if memory else ""))
    return lines


def _record(result: "SoundResult") -> dict[str, object]:
    return {
        "path": str(result.path),
        "seed": result.seed,
        "samples": len(result.waveform),
        "sample_rate": result.sample_rate,
        "timings": dict(result.timings),
        "peak_memory": dict(result.peak_memory),
    }
