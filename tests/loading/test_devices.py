"""Where each module runs, and in which dtype and precision."""

import types
from argparse import ArgumentParser
from dataclasses import replace

import pytest
import torch

from kandinsky.config import MODULES
from kandinsky.loading.devices import (
    available,
    check_dtype,
    check_precision,
    default_dtype,
    device_argument,
    device_of,
    devices_of,
)
from kandinsky.model.precision import EXACT, FAST

CPU = torch.device("cpu")
DEVICES = dict.fromkeys(MODULES, "cpu")


@pytest.mark.parametrize(
    "given", ["cpu", "cpu:0", CPU, DEVICES, {**DEVICES, "vae": CPU}, types.MappingProxyType(DEVICES)], ids=str
)
def test_a_device_for_each_module(given):
    assert devices_of(given) == dict.fromkeys(MODULES, CPU)


WRONG = {
    "empty": ({}, r"device_map=\{\}: missing key 'dit', missing key 'vae', missing key 'text_embedder'; the keys are"),
    "unknown key": ({**DEVICES, "unet": "cpu"}, r"unknown key 'unet'; the keys are dit, vae, text_embedder"),
    "missing key": ({"dit": "cpu", "vae": "cpu"}, r"missing key 'text_embedder'"),
    "not a device": ("gpu", r"device_map='gpu' is not a device; allowed here: cpu"),
    "empty string": ("", r"device_map='' is not a device"),
    "nothing": (None, r"device_map=None: allowed is a device, or a mapping"),
    "a list": (["cpu"], r"device_map=\['cpu'\]: allowed is a device, or a mapping"),
    "no such GPU": ("cuda:99", r"device_map='cuda:99' does not exist on this machine; allowed here: cpu"),
    "no such GPU for one": ({**DEVICES, "vae": "cuda:99"}, r"device_map\['vae'\]='cuda:99' does not exist"),
    "not a device for one": ({**DEVICES, "dit": 3.5}, r"device_map\['dit'\]=3.5 is not a device"),
    "meta": ("meta", r"device_map='meta' is not a device"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_device_map(case):
    given, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        devices_of(given)


def test_a_device_is_called_by_its_argument():
    with pytest.raises(ValueError, match="device='gpu' is not a device"):
        device_of("gpu", "device")


def test_a_device_on_a_command_line(capsys):
    parser = ArgumentParser()
    parser.add_argument("--device", type=device_argument)
    assert parser.parse_args(["--device", "cpu:0"]).device == CPU
    for wrong, message in (("gpu", "is not a device"), ("cuda:99", "does not exist on this machine")):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(["--device", wrong])
        assert end.value.code == 2
        assert f"argument --device: device='{wrong}' {message}; allowed here: cpu" in capsys.readouterr().err


def test_the_process_with_a_number_has_that_gpu(monkeypatch):
    """Of a launcher's processes, unless it is ignored."""
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(ValueError, match=r"device='cuda' \(number 99, for this process's local rank\) does not exist"):
        device_of("cuda", "device")
    if torch.cuda.is_available():
        assert device_of("cuda", "device", distributed=False) == torch.device("cuda", 0)
    else:
        with pytest.raises(ValueError, match="device='cuda' does not exist on this machine"):
            device_of("cuda", "device", distributed=False)


def test_what_is_here():
    assert available().split(", ")[0] == "cpu"
    assert len(available().split(", ")) == 1 + torch.cuda.device_count() + torch.backends.mps.is_available()


def test_dtypes():
    for dtype in (None, torch.float32, torch.bfloat16):
        check_dtype(dtype)
    for wrong in (torch.float16, torch.int8, "bfloat16"):
        with pytest.raises(ValueError, match=r"allowed are None, torch\.float32, torch\.bfloat16"):
            check_dtype(wrong)
    assert default_dtype(CPU) == torch.float32
    assert default_dtype(torch.device("cuda", 0)) == torch.bfloat16


def test_precisions():
    check_precision(EXACT, CPU, torch.float32)
    with pytest.raises(ValueError, match=r"'fast' needs a CUDA device of compute capability 8\.9 or newer; cpu is not"):
        check_precision(FAST, CPU, None)
    other = replace(FAST, name="other", capability=(99, 0))
    with pytest.raises(ValueError, match=r"precision='other' needs a CUDA device of compute capability 99\.0"):
        check_precision(other, CPU, torch.bfloat16)


@pytest.mark.gpu
def test_precisions_on_a_gpu():
    cuda = torch.device("cuda", 0)
    check_precision(FAST, cuda, None)
    check_precision(FAST, cuda, torch.bfloat16)
    with pytest.raises(ValueError, match=r"needs dtype=torch\.bfloat16 \(or None\), got torch\.float32"):
        check_precision(FAST, cuda, torch.float32)
    with pytest.raises(ValueError, match="cuda:0 has "):
        check_precision(replace(FAST, capability=(99, 0)), cuda, None)
