"""Jobs of every kind, with files of clients and sets of LoRAs, for tests that make them in one place and in another."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from helpers import SMALL, own_weights
from lora_helpers import plain_file
from PIL import Image
from serving_kit import ASKED, until
from video_helpers import write_video

from kandinsky.factory import get_T2V_pipeline
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.serving.arrivals import Arrival
from kandinsky.serving.job import Asked, new_id
from kandinsky.serving.maker import Maker
from kandinsky.serving.messages import Failed, Make
from kandinsky.serving.store import Store

GIVEN = {"image": "given_image.png", "mask": "given_mask.png", "video": "given_video.mp4"}
STILL = replace(ASKED, time_length=0, ending=".png")
VIDEO = replace(ASKED, crf=0)  # without loss: an encoder would add to small differences
JOBS: Mapping[str, Asked] = {
    "usual": STILL,
    "without": replace(STILL, loras={}),
    "other": replace(STILL, loras={"two": 1.0}),
    "usual again": STILL,
    "video": VIDEO,
    "first frame": replace(VIDEO, inputs={"image": GIVEN["image"]}),
    "edit": replace(VIDEO, inputs={"video": GIVEN["video"]}, strength=0.5),
    "masked": replace(VIDEO, inputs={name: GIVEN[name] for name in ("video", "mask")}),
    "extension": replace(
        VIDEO, inputs={"video": GIVEN["video"]}, time_length=2, overlap=1, stitched=3, loras={"two": 1.0}
    ),
    "smooth": replace(VIDEO, interpolate=2, interpolate_with="network"),
}
"""One after the other each has another set of LoRAs, or none of its own."""


def place_in(folder: Path) -> dict[str, Any]:
    """Of a `Place`: random weights that make 2 s at most, so that an extension has two pieces, and two LoRAs."""
    weights = own_weights(folder / "weights", replace(SMALL, max_seconds=2))
    files = [plain_file(folder / f"{name}.safetensors", seed) for seed, name in enumerate(("one", "two"))]
    return {"weights": str(weights), "loras": dict(zip(map(str, files), (0.5, 0.0), strict=True))}


def pipeline_at(place: Mapping[str, Any]) -> Kandinsky4T2VPipeline:
    """One process with these weights."""
    return get_T2V_pipeline("cpu", cache_dir=place["weights"], loras=place["loras"], progress=False)


def give(folder: Path) -> None:
    """The files that jobs are given."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / GIVEN["image"])
    Image.fromarray(pixels[..., 0] // 128 * 255).save(folder / GIVEN["mask"])
    write_video(folder / GIVEN["video"], frames=9)


def arrive(store: Store, asked: Asked) -> str:
    """The id of a new job, which has its files."""
    folder = store.files / new_id("upload")
    folder.mkdir()
    give(folder)
    return store.create_soon(Arrival(asked=(asked,), owner="me", folder=folder)).result()[0].id


def file_of(store: Store, job_id: str) -> Path:
    """The file of a job, when it has ended."""
    until(lambda: not store.get(job_id).is_open)
    job = store.get(job_id)
    assert job.status == "completed", job.reason
    return store.file_of(job)


def made_alone(pipe: Kandinsky4T2VPipeline, folder: Path) -> dict[str, Path]:
    """The files of `JOBS`, made by one process."""
    said = []
    maker = Maker(pipe, said.append)
    for name, asked in JOBS.items():
        (folder / name).mkdir()
        give(folder / name)
        maker.make(Make(name, asked, str(folder / name)))
    maker.close()
    assert [one for one in said if isinstance(one, Failed)] == []
    return {name: folder / name / asked.file_name for name, asked in JOBS.items()}
