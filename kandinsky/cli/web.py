"""`kandinsky web`: a page with a prompt, a size, a length, a seed, and the video. Needs the extra `web` (Gradio).

One video is made at a time; others wait in line. Videos are kept until the server ends; latents of one that could not
be finished stay longer. The page has no passwords: it listens on this machine only, unless `--host` says otherwise.
"""

import argparse
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kandinsky.cli.common import Defaults, Outcome, add_no_distributed, file_argument, heed_no_distributed
from kandinsky.config import PRECISIONS

if TYPE_CHECKING:
    from kandinsky.pipeline import Kandinsky4T2VPipeline

MAX_PORT = 65535
NO_FILES: Mapping[str, str | None] = MappingProxyType({})
INSTALL = "pip install 'kandinsky4[web]'"


def add_web_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `kandinsky web`."""
    parser.formatter_class = Defaults
    parser.add_argument("--weights", type=file_argument, default="./weights/", help="folder of the weights")
    parser.add_argument("--device", default="cuda", help="where everything runs: cuda, cuda:1, cpu, mps")
    parser.add_argument("--precision", default="exact", choices=PRECISIONS, help="fast: float8 Linears, lossy")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in")
    parser.add_argument("--port", type=int, default=7860)
    add_no_distributed(parser)


def serve(parsed: argparse.Namespace) -> Outcome:
    """Serve the page until Ctrl-C.

    Raises:
        ValueError: Gradio is not installed, the port is taken, or as `get_T2V_pipeline`.
    """
    heed_no_distributed(parsed)
    with folder_for_videos() as folder:
        # Gradio keeps copies of what it shows; read when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "shown")
        import_gradio()
        check_address(parsed.host, parsed.port)
        reach_ourselves()
        from kandinsky.factory import get_T2V_pipeline

        pipe = get_T2V_pipeline(parsed.device, cache_dir=parsed.weights, precision=parsed.precision)
        page = make_page(pipe, folder)
        try:
            page.launch(server_name=parsed.host, server_port=parsed.port, prevent_thread_lock=True, quiet=True)
        except OSError as error:
            raise ValueError(f"port={parsed.port}, host={parsed.host!r}: {error}") from error
        print(f"open {page.local_url} in a browser; Ctrl-C ends", flush=True)
        page.server.thread.join()
    return Outcome([], {})


def check_address(host: str, port: int) -> None:
    """Refuse an address that nobody can listen on, before weights are loaded for it.

    Raises:
        ValueError: names the address and the system's reason.
    """
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"port={port}: allowed is 0 to {MAX_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise ValueError(f"port={port}, host={host!r}: {error}") from error


def reach_ourselves() -> None:
    """Let requests to this machine pass by a proxy: Gradio asks its own page whether it is there."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1", "0.0.0.0"]))  # noqa: S104


@contextmanager
def folder_for_videos() -> Iterator[Path]:
    """A temporary folder; what is left in it at the end is latents of videos that could not be finished."""
    from kandinsky.atomic import remove
    from kandinsky.output.unfinished import SUFFIX

    folder = Path(tempfile.mkdtemp(prefix="kandinsky-web-"))
    try:
        yield folder
    finally:
        for path in folder.iterdir():
            if not path.name.endswith(SUFFIX):
                remove(path)
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def import_gradio() -> Any:
    """The gradio module.

    Raises:
        ValueError: it is not installed, and the message has the command that does; or it does not import.
    """
    try:
        import gradio  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "gradio":
            raise ValueError(f"the page needs Gradio, which is not installed: {INSTALL}") from error
        raise ValueError(f"the page needs Gradio, which is installed but does not import: {error}") from error
    return gradio


def make_page(pipe: "Kandinsky4T2VPipeline", folder: Path) -> Any:
    """The page, a `gradio.Blocks`, whose videos go into `folder`."""
    gr = import_gradio()
    sizes = [f"{width}x{height}" for width, height in pipe.model_set.sizes]

    def generate(
        text: str,
        size: str,
        seconds: int,
        seed: str,
        image: str | None,
        last_image: str | None,
        video: str | None,
        strength: float,
        mask: str | None,
        progress: Any = gr.Progress(),  # noqa: B008  # how Gradio hands it over
    ) -> tuple[str, str]:
        files = {"image": image, "last_image": last_image, "video": video, "mask": mask}
        try:
            return make_video(pipe, folder, (text, size, seconds, seed), progress, files, strength)
        except (ValueError, RuntimeError) as error:
            raise gr.Error(str(error), print_exception=False) from error

    with gr.Blocks(title="Kandinsky 4.0 T2V Flash", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# Kandinsky 4.0 T2V Flash\nA prompt to a video, in four steps.")
        with gr.Row():
            with gr.Column():
                text = gr.Textbox(label="Prompt", lines=4, placeholder="A lighthouse in a storm.")
                size = gr.Dropdown(sizes, value=sizes[0], label="Size")
                seconds = gr.Slider(
                    1,
                    pipe.model_set.max_seconds,
                    value=min(5, pipe.model_set.max_seconds),
                    step=1,
                    label="Length in seconds",
                )
                # Not a number field: a browser's numbers end at 2^53.
                seed = gr.Textbox(label="Seed", placeholder="empty: a new one each time", max_lines=1)
                with gr.Accordion("Begin from a picture, change a video", open=False):
                    image = gr.Image(label="First frame", type="filepath")
                    last_image = gr.Image(label="Last frame", type="filepath")
                    source = gr.Video(label="Video to change; its length and proportions are kept")
                    strength = gr.Dropdown([1.0, 0.75, 0.5, 0.25], value=0.5, label="How much of it changes")
                    mask = gr.Image(label="Mask: white is made anew of the video or the first frame", type="filepath")
                button = gr.Button("Make the video", variant="primary")
            with gr.Column():
                video = gr.Video(label="Video", autoplay=True, loop=True)
                said = gr.Markdown()
        gr.on(
            [button.click, seed.submit], generate,
            [text, size, seconds, seed, image, last_image, source, strength, mask], [video, said], concurrency_limit=1,
            api_name="generate",
        )  # fmt: skip
    return page


def make_video(
    pipe: "Kandinsky4T2VPipeline",
    folder: Path,
    asked: tuple[str, str, int, str],
    progress: Callable[..., object],
    files: Mapping[str, str | None] = NO_FILES,
    strength: float = 1.0,
) -> tuple[str, str]:
    """Path of the video and a line about it, for what the page's fields hold: prompt, size, seconds, seed.

    Args:
        files: `image`, `last_image`, `video` and `mask`; what is None was left empty.
        strength: of `video`; with `mask` too, whose white parts it is for.

    Raises:
        ValueError: a field is not what it may be.
    """
    from kandinsky.output.inputs import Inputs
    from kandinsky.output.result import GenerationResult
    from kandinsky.request import check_targets, request_of

    text, size, seconds, seed = asked
    if not text.strip():
        raise ValueError("The prompt is empty: write what the video should show.")
    if seed.strip() and not seed.strip().isdecimal():
        raise ValueError(f"seed={seed!r}: must be a whole number, or empty")
    width, height = map(int, size.split("x"))
    given = {name: file for name, file in files.items() if file is not None}
    changed = {"strength": strength} if "video" in given else {}
    request = request_of(
        text,
        folder / f"{uuid4().hex}.mp4",
        time_length=None if changed else int(seconds),
        width=width,
        height=height,
        seed=int(seed) if seed.strip() else None,
        model_set=pipe.model_set,
        inputs=Inputs(**given, **changed, fit="cover" if given.keys() - {"mask"} else None),
    )
    check_targets(request)

    def on_step(step: int, total: int, _latents: object) -> None:
        progress(step / (total + 1), desc=f"step {step} of {total}" if step < total else "decoding")

    progress(0, desc="reading the prompt")
    (result,) = pipe.run(request, on_step=on_step)
    assert isinstance(result, GenerationResult)
    frames = f"{result.num_frames} frames of {size} at {result.fps} fps"
    return str(result.path), f"{frames}, seed {result.seed}, made in {result.timings['total']:.1f} s"
