"""Latents in a file while what they are for is unfinished. What goes wrong in a whole run: `test_faults.py`."""

import json
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from fakes import RECORD, SMALL_LATENTS
from safetensors.torch import load_file, save_file

from kandinsky.errors import DecodeError, RecordError
from kandinsky.output.unfinished import (
    SUFFIX,
    Unfinished,
    VaeSource,
    check_latents,
    kept,
    load_unfinished,
    save_unfinished,
)

VAE = VaeSource("/weights/vae", "cuda:1", "bfloat16", memory_saving=True)


def unfinished(path, **changes):
    facts = {"latents": SMALL_LATENTS, "record": RECORD, "save_path": path, "metadata": True, "vae": VAE}
    return Unfinished(**{**facts, **changes})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_saved_comes_back(tmp_path, dtype):
    before = unfinished(tmp_path / "v.mp4", latents=SMALL_LATENTS.to(dtype), metadata=False)
    file = save_unfinished(before)
    after, target = load_unfinished(file)
    assert file == tmp_path / f"v{SUFFIX}"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert after.latents.dtype == dtype
    assert torch.equal(after.latents, before.latents)
    assert (after.record, after.vae, after.metadata) == (RECORD, VAE, False)
    assert (after.save_path, target) == (tmp_path / "v.mp4", str(tmp_path / "v.mp4"))


def test_where_it_goes(tmp_path, monkeypatch):
    """Beside the target, whose name it has; in the working folder where there is no target."""
    monkeypatch.chdir(tmp_path)
    names = ["frames", "v.mp4", "🐦" * 60 + ".mp4"]
    files = [save_unfinished(unfinished(Path(name))) for name in names] + [save_unfinished(unfinished(None))]
    assert {file.parent for file in files} == {tmp_path}
    assert [file.name for file in files] == [f"{stem}{SUFFIX}" for stem in ("frames", "v", "🐦" * 40, "kandinsky-3")]
    assert load_unfinished(files[0])[1] == f"{tmp_path}/frames/"  # with the slash that says it is a folder
    assert load_unfinished(files[3])[1] is None


def test_an_older_file_is_not_replaced(tmp_path):
    (tmp_path / f"v{SUFFIX}").write_bytes(b"of another run")
    assert save_unfinished(unfinished(tmp_path / "v.mp4")).name == f"v-2{SUFFIX}"
    assert save_unfinished(unfinished(tmp_path / "v.mp4")).name == f"v-3{SUFFIX}"
    assert (tmp_path / f"v{SUFFIX}").read_bytes() == b"of another run"


def test_where_it_goes_if_it_cannot_go_there(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert save_unfinished(unfinished(tmp_path / "gone" / "v.mp4")) == tmp_path / f"v{SUFFIX}"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert save_unfinished(unfinished(tmp_path / "gone" / "v.mp4")) == tmp_path / "home" / f"v{SUFFIX}"
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    with pytest.raises(OSError, match=r"beside its target: .*; in the folder for temporary files: .*; at home: "):
        save_unfinished(unfinished(tmp_path / "gone" / "v.mp4"))


def damage(file, **changes):
    """The file with other metadata."""
    facts = {"record": RECORD.to_json(), "job": '{"save_path": "v.mp4", "metadata": true}', "vae": "null", **changes}
    save_file(load_file(file), file, metadata={name: value for name, value in facts.items() if value is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"record": None}, {"record": "{}"}, {"job": "{}"}, {"job": "[]"}, {"job": "no JSON"}, {"vae": None},
        {"vae": '{"path": "x"}'}, {"vae": "3"}, {"job": '{"save_path": 3, "metadata": true}'},
        {"job": '{"save_path": "v.mp4", "metadata": "yes"}'},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_file(tmp_path, changes):
    file = save_unfinished(unfinished(tmp_path / "v.mp4"))
    damage(file)
    assert load_unfinished(file)[1] == "v.mp4"
    damage(file, **changes)
    with pytest.raises(RecordError, match=rf"v\{SUFFIX}.*(damaged or was not saved by this library|not a record)"):
        load_unfinished(file)


def test_a_file_from_before_kernels_were_told(tmp_path):
    file = save_unfinished(unfinished(tmp_path / "v.mp4", vae=replace(VAE, kernels="torch")))
    assert load_unfinished(file)[0].vae.kernels == "torch"
    damage(file, vae=json.dumps({**asdict(VAE), "kernels": "abacus"}))
    with pytest.raises(RecordError, match="kernels is 'abacus'"):
        load_unfinished(file)
    damage(file, vae=json.dumps({name: value for name, value in asdict(VAE).items() if name != "kernels"}))
    assert load_unfinished(file)[0].vae == VAE


def test_a_file_from_before_precision_was_told(tmp_path):
    """Its VAE was exact."""
    file = save_unfinished(unfinished(tmp_path / "v.mp4", vae=replace(VAE, precision="fast")))
    assert load_unfinished(file)[0].vae.precision == "fast"
    damage(file, vae=json.dumps({**asdict(VAE), "precision": "rough"}))
    with pytest.raises(RecordError, match="precision is 'rough'"):
        load_unfinished(file)
    damage(file, vae=json.dumps({name: value for name, value in asdict(VAE).items() if name != "precision"}))
    assert load_unfinished(file)[0].vae == VAE


def test_a_file_that_was_cut(tmp_path):
    file = save_unfinished(unfinished(tmp_path / "v.mp4"))
    for content in (file.read_bytes()[:-1], b"", b"damaged"):
        file.write_bytes(content)
        with pytest.raises(RecordError, match="is damaged or was not saved by this library"):
            load_unfinished(file)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_unfinished(tmp_path / "none")
    save_file({"other": torch.zeros(1)}, file)
    with pytest.raises(RecordError, match="is damaged"):
        load_unfinished(file)


@pytest.mark.parametrize("latents", [SMALL_LATENTS[0], SMALL_LATENTS[:0], SMALL_LATENTS.int()])
def test_latents_that_no_sampler_gives(tmp_path, latents):
    """Of a tensor that is a wrong argument; of a file it is a damaged one."""
    message = r"latents are torch\..*; allowed: floating-point \[T, H, W, C\], not empty"
    with pytest.raises(ValueError, match=message):
        check_latents(latents)
    file = save_unfinished(unfinished(tmp_path / "v.mp4", latents=latents))
    with pytest.raises(RecordError, match=message):
        load_unfinished(file)


def test_latents_are_kept_until_the_end(tmp_path):
    seen = []
    with kept(unfinished(tmp_path / "v.mp4"), rescue=rescue(seen)):
        seen[0]()  # as the watchdog calls it; it waits for the file
        assert [path.name for path in tmp_path.iterdir()] == [f"v{SUFFIX}"]
        assert torch.equal(load_unfinished(tmp_path / f"v{SUFFIX}")[0].latents, SMALL_LATENTS)
    assert list(tmp_path.iterdir()) == []


def rescue(seen):
    @contextmanager
    def registered(save):
        seen.append(save)
        yield
        seen.append("left")

    return registered


def test_whoever_ends_the_process_has_them_saved(tmp_path, monkeypatch, capsys):
    """Also where there is no target, and nothing was written until then."""
    monkeypatch.chdir(tmp_path)
    seen = []
    with pytest.raises(SystemExit), kept(unfinished(None), rescue=rescue(seen)):
        assert list(tmp_path.iterdir()) == []
        seen[0]()
        raise SystemExit
    said = f"sampled, but not finished: its latents are saved in {tmp_path}/kandinsky-3{SUFFIX}; to finish it: "
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [f"kandinsky-3{SUFFIX}"]


def test_a_failure_tells_where_they_are(tmp_path):
    with pytest.raises(DecodeError) as caught, kept(unfinished(tmp_path / "a cat.mp4")):
        raise ArithmeticError("first line\nsecond line")
    assert str(caught.value) == (
        f"sampled, but not finished (first line); its latents are saved in {tmp_path}/a cat{SUFFIX}; "
        f"to finish it: kandinsky resume '{tmp_path}/a cat{SUFFIX}'"
    )
    assert isinstance(caught.value.__cause__, ArithmeticError)
    assert load_unfinished(tmp_path / f"a cat{SUFFIX}")[1] == str(tmp_path / "a cat.mp4")


def test_a_failure_without_a_message_is_called_by_its_name(tmp_path):
    with pytest.raises(DecodeError, match=r"not finished \(MemoryError\)"), kept(unfinished(tmp_path / "v.mp4")):
        raise MemoryError


def test_an_interrupt_is_passed_on_with_a_note(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught, kept(unfinished(tmp_path / "v.mp4")):
        raise KeyboardInterrupt
    (note,) = caught.value.__notes__
    assert note.startswith(f"sampled, but not finished: its latents are saved in {tmp_path}/v{SUFFIX}")


def test_a_file_that_is_removed_meanwhile_is_written_again(tmp_path):
    seen = []
    with pytest.raises(DecodeError), kept(unfinished(tmp_path / "v.mp4"), rescue=rescue(seen)):
        seen[0]()
        (tmp_path / f"v{SUFFIX}").unlink()
        raise OSError("folder removed")
    assert load_unfinished(tmp_path / f"v{SUFFIX}")[0].record == RECORD


@pytest.mark.usefixtures("full_disks")
def test_nowhere_to_save(tmp_path):
    """What was asked for may still succeed."""
    with kept(unfinished(tmp_path / "v.mp4")):
        pass
    with pytest.raises(DecodeError, match=r"\(bad\); its latents could not be saved either: .*No space left"):  # noqa: SIM117
        with kept(unfinished(tmp_path / "v.mp4")):
            raise OSError("bad")
    assert list(tmp_path.iterdir()) == []
