"""A folder of videos with captions to cached latents and text embeddings.

    python -m kandinsky.training.encode VIDEOS OUT --weights W

`VIDEOS/captions.jsonl` has an object a line: `{"file": "cat.mp4", "caption": "A cat."}`. Each video is brought to the
model set's frame rate, to the size of the model set whose shape is nearest (scaled and cropped in the middle), and to
whole seconds; what is shorter than one second becomes an image. Started again, it goes on: what is in a shard is not
made twice. Files that cannot be read are noted in `OUT/report.jsonl` and passed over. Legend: see `data`.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from kandinsky.config import FLASH_512, ModelSet
from kandinsky.devices import check_device_map, default_dtype
from kandinsky.model_set_file import read_model_set
from kandinsky.text_encoder import TextEncoder, load_text_encoder
from kandinsky.training.shards import Encoded, write_shards
from kandinsky.vae.autoencoder import VideoAutoencoder, load_vae
from kandinsky.video_shape import VideoShape

CAPTIONS = "captions.jsonl"
PER_SHARD = 64


@dataclass(frozen=True)
class Captioned:
    """A line of the captions: a file's name, and what it shows."""

    file: str
    caption: str


def read_captions(folder: Path) -> list[Captioned]:
    """The videos of a folder.

    Raises:
        ValueError: a line is not what it should be; the message has its number.
        FileNotFoundError: there is no `captions.jsonl`.
    """
    found = []
    for number, line in enumerate((folder / CAPTIONS).read_text().splitlines(), 1):
        try:
            values = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            raise ValueError(f"{folder / CAPTIONS}, line {number}: not JSON: {error}") from None
        if values is None:
            continue
        right = isinstance(values, dict) and {"file", "caption"} <= set(values)
        if not right or not all(isinstance(values[name], str) for name in ("file", "caption")):
            place = f"{folder / CAPTIONS}, line {number}"
            raise ValueError(f"{place}: needs the strings 'file' and 'caption', found {line}")
        found.append(Captioned(values["file"], values["caption"]))
    return found


def nearest_size(width: int, height: int, model_set: ModelSet) -> tuple[int, int]:
    """The (height, width) of the model set whose ratio is nearest."""
    return min(model_set.sizes, key=lambda size: abs(size[1] / size[0] - width / height))


def read_video(path: Path, model_set: ModelSet) -> Tensor:
    """Frames as the model set has them, uint8 `[F, height, width, 3]`.

    Raises:
        OSError: ffmpeg cannot read the file, or it has no frame.
    """
    from imageio_ffmpeg import read_frames

    with closing(read_frames(path)) as frames:
        width, height = next(frames)["source_size"]
    height, width = nearest_size(width, height, model_set)
    fill = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height}"
    options = ["-vf", f"fps={model_set.fps},{fill}", "-frames:v", str(model_set.max_seconds * model_set.fps + 1)]
    with closing(read_frames(path, output_params=options)) as frames:
        next(frames)
        read = [torch.frombuffer(bytearray(frame), dtype=torch.uint8).view(height, width, 3) for frame in frames]
    if not read:
        raise OSError(f"{path} has no frame")
    shape = VideoShape.from_request((len(read) - 1) // model_set.fps, height, width, model_set=model_set)
    return torch.stack(read[: shape.num_frames])


def names_in(out: Path) -> set[str]:
    """What the shards of a folder hold already."""
    names = set()
    for file in out.glob("shard-*.safetensors"):
        with safe_open(file, "pt") as handle:
            names |= {item["id"] for item in json.loads(handle.metadata()["items"])}
    return names


def encoded(
    videos: list[Captioned],
    folder: Path,
    model_set: ModelSet,
    models: tuple[VideoAutoencoder, TextEncoder],
    report: Path,
) -> Iterator[Encoded]:
    """Each video's latents and text; those that fail are noted in `report`."""
    vae, text_encoder = models
    for video in tqdm(videos, desc="videos"):
        try:
            latents = vae.encode(read_video(folder / video.file, model_set))
        except (OSError, RuntimeError, ValueError) as error:
            line = {"file": video.file, "error": f"{type(error).__name__}: {str(error).strip()}"}
            print(f"passed over: {line['file']}: {line['error'].splitlines()[0]}", file=sys.stderr)
            with report.open("a") as file:
                file.write(json.dumps(line) + "\n")
            continue
        yield Encoded(video.file, video.caption, latents, text_encoder(video.caption))


def encode_folder(folder: Path, out: Path, weights: Path, *, device: torch.device) -> int:
    """Encode what is not in `out` yet; returns how many videos that were."""
    videos, done = read_captions(folder), names_in(out)
    left = [video for video in videos if video.file not in done]
    if not left:
        return 0
    out.mkdir(parents=True, exist_ok=True)
    model_set = read_model_set(weights) or FLASH_512
    place = {"device": device, "dtype": default_dtype(device)}
    text_encoder = load_text_encoder(
        weights / "text_encoder", weights / "tokenizer", text_tokens=model_set.text_tokens, **place
    )
    models = (load_vae(weights / "vae", **place), text_encoder)
    return write_shards(encoded(left, folder, model_set, models, out / "report.jsonl"), out, per_shard=PER_SHARD)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="folder with captions.jsonl")
    parser.add_argument("out", type=Path, help="folder for shards")
    parser.add_argument("--weights", type=Path, required=True, help="folder with vae, text_encoder and tokenizer")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    device = check_device_map(given.device)["vae"]
    count = encode_folder(given.videos, given.out, given.weights, device=device)
    print(f"{count} videos encoded, {len(names_in(given.out))} in {given.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
