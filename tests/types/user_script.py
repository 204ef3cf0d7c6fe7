"""What a user writes, one line for each kind of result; a type checker, not Python, looks at it (test_types.py)."""

from pathlib import Path
from typing import assert_type

import numpy as np
from PIL.Image import Image
from torch import Tensor

from kandinsky import GenerationResult, Kandinsky4T2VPipeline, KandinskyError, Result, get_T2V_pipeline
from kandinsky.batch import BatchResult, make_items, run_batch
from kandinsky.request import request_of

pipe = get_T2V_pipeline({"dit": "cuda:0", "vae": "cuda:1", "text_embedder": "cpu"}, 512, "weights/")
assert_type(pipe, Kandinsky4T2VPipeline)
assert_type(Kandinsky4T2VPipeline.from_pretrained("owner/name", device_map="cuda").to("cuda:1"), Kandinsky4T2VPipeline)

result = pipe("a cat", "cat.mp4", time_length=12, width=672, height=384, seed=42)
assert_type(result, GenerationResult)
assert_type(result.path, Path)
assert_type(result.timings["total"], float)
assert_type(pipe("a cat", Path("cat.mp4"), 1, 12, 672, 384, 42), GenerationResult)
assert_type(pipe("a cat", "cat.mp4", 4), list[GenerationResult])
assert_type(pipe(["a cat"], "cat.mp4", fps=12, crf=20, codec="hevc"), list[GenerationResult])
assert_type(pipe(["a cat", "a dog"], "v.mp4", output_type="file"), list[GenerationResult])

assert_type(pipe("a cat", return_frames=True), list[Image])
assert_type(pipe("a cat", output_type="pil"), list[Image])
assert_type(pipe(["a cat"], output_type="pil"), list[list[Image]])
assert_type(pipe("a cat", output_type="np", seed=3), np.ndarray)
assert_type(pipe(["a cat"], output_type="np"), list[np.ndarray])
assert_type(pipe("a cat", output_type="pt"), Tensor)
assert_type(pipe("a cat", output_type="latent", on_step=lambda step, total, _latents: step < total), Tensor)
assert_type(pipe("a cat", bs=2, output_type="latent"), list[Tensor])

assert_type(pipe("a cat", time_length=0), list[Image])
assert_type(pipe(["a cat", "a dog"], time_length=0, seed=3), list[Image])
assert_type(pipe("a cat", "cat.png", time_length=0), GenerationResult)
assert_type(pipe(["a cat"], "cat.png", time_length=0), list[GenerationResult])

assert_type(pipe.run(request_of("a cat", "cat.mp4", model_set=pipe.model_set)), list[Result])
assert_type(pipe.decode_to("cat.latents.safetensors", fps=24), GenerationResult)
items = make_items(["a cat", {"text": "a dog", "time_length": 0}], {"seed": 3}, model_set=pipe.model_set)
assert_type(run_batch(pipe, items, "videos"), BatchResult | None)


def at_the_end(given: Kandinsky4T2VPipeline, step: int, _timestep: int, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """A callback as diffusers' users write it."""
    given.interrupt = step == 2
    return values


try:
    pipe("a cat", callback_on_step_end=at_the_end)
except KandinskyError as error:
    assert_type(error, KandinskyError)
