"""How a record's pipeline is loaded again."""

import dataclasses

import torch
from fakes import RECORD

from kandinsky.cli.loading import devices_as, loading_as
from kandinsky.output.record import Origin

ORIGIN = Origin(
    devices={"dit": "cpu", "vae": "cpu", "text_embedder": "cpu"},
    dtype="float32",
    precision="exact",
    attention="torch",
    kernels="torch",
    parallelism="tensor",
    processes=1,
    vae_memory_saving=True,
    weights={},
)


def made_by(**changes):
    return dataclasses.replace(RECORD, origin=dataclasses.replace(ORIGIN, **changes))


def test_devices():
    assert devices_as(made_by()) == "cpu"
    apart = {"dit": "cuda", "vae": "cpu", "text_embedder": "cpu"}
    assert devices_as(made_by(devices=apart)) == apart
    assert devices_as(dataclasses.replace(RECORD, origin=None)) == "cuda"


def test_what_decides_about_bits():
    found = loading_as(made_by(text_encoder_int8=True))
    assert found == {
        "dtype": torch.float32,
        "precision": "exact",
        "attention": "torch",
        "kernels": "torch",
        "vae_memory_saving": True,
        "text_encoder_int8": True,
    }
    assert loading_as(made_by(dtype=None))["dtype"] is None
    assert loading_as(dataclasses.replace(RECORD, origin=None)) == {}
