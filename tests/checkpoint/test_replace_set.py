"""One set in the place of another: whatever is interrupted, the folder holds the old one or the new one."""

import fcntl
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kandinsky import atomic
from kandinsky.checkpoint.dit_file import dit_in
from kandinsky.checkpoint.model_set import NAME, read_model_set, write_model_set
from kandinsky.checkpoint.pending import SAVED, place_of
from kandinsky.checkpoint.replace_set import replacing_set
from kandinsky.config import FLASH_512

OLD, NEW = (replace(FLASH_512, text_tokens=number) for number in (1, 2))
DIT = Path(FLASH_512.dit_file)


class Killed(BaseException):
    """Stands for `kill -9`: nothing after it is done."""


def write(folder, model_set, dit_name):
    """A set whose every part says which one it is."""
    mark = str(model_set.text_tokens)
    (folder / dit_name).write_text(mark)
    for part, file in (("text_encoder", f"model-{mark}.safetensors"), ("vae", "config.json")):
        (folder / part).mkdir()
        (folder / part / file).write_text(mark)
    write_model_set(folder, model_set)


def old_set(folder):
    folder.mkdir()
    write(folder, OLD, DIT.name)
    (folder / f"{DIT.stem}_fast.safetensors").write_text("1")
    (folder / "text_encoder" / "LICENSE").write_text("kept")
    (folder / "video.mp4").write_text("kept")
    return folder


def replace_by(folder, model_set=NEW):
    with replacing_set(folder) as new:
        write(new, model_set, f"{DIT.stem}.safetensors")


def marks(folder):
    """What a loader would read of each part."""
    files = [dit_in(folder, FLASH_512), *place_of(folder, "text_encoder").glob("*.safetensors")]
    files.append(place_of(folder, "vae") / "config.json")
    declared = read_model_set(folder)
    return [int(file.read_text()) for file in files] + [declared.text_tokens if declared else 224]


def contents(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_new_set_alone_is_there(tmp_path):
    folder = old_set(tmp_path / "w")
    assert marks(folder) == [1, 1, 1, 1]
    replace_by(folder)
    assert marks(folder) == [2, 2, 2, 2]
    assert contents(folder) == {
        f"{DIT.stem}.safetensors",
        "text_encoder/model-2.safetensors",
        "text_encoder/LICENSE",
        "vae/config.json",
        NAME,
        "video.mp4",
    }


def test_a_published_set_declares_nothing(tmp_path):
    folder = old_set(tmp_path / "w")
    replace_by(folder, FLASH_512)
    assert NAME not in contents(folder)
    assert read_model_set(folder) is None


def test_a_new_folder(tmp_path):
    replace_by(tmp_path / "a" / "b")
    assert marks(tmp_path / "a" / "b") == [2, 2, 2, 2]


def test_a_failure_leaves_the_old_set(tmp_path):
    folder = old_set(tmp_path / "w")
    before = contents(folder)
    with pytest.raises(OSError, match="disk full"), replacing_set(folder) as new:
        write(new, NEW, DIT.name)
        raise OSError("disk full")
    assert (contents(folder), marks(folder)) == (before, [1, 1, 1, 1])


@pytest.mark.parametrize("model_set", [NEW, FLASH_512], ids=["own", "published"])
def test_killed_at_any_moment(tmp_path, monkeypatch, model_set):
    """Every change to a directory is a moment; none leaves parts of both sets."""
    seen, moment = [], 0
    after = [model_set.text_tokens] * 4
    while True:
        folder = old_set(tmp_path / str(moment))
        with monkeypatch.context() as patch:
            left = _kill_after(patch, moment)
            try:
                replace_by(folder, model_set)
            except Killed:
                seen.append(marks(folder))
            else:
                break
            assert left() < 0
        assert seen[-1] in ([1, 1, 1, 1], after)
        replace_by(folder, OLD)  # the next set finds its way through what was left
        assert marks(folder) == [1, 1, 1, 1]
        assert not (folder / SAVED).exists()
        assert (folder / "video.mp4").exists()
        assert (folder / "text_encoder" / "LICENSE").exists()
        moment += 1
    assert len(seen) > 12
    assert seen == sorted(seen)  # once the new one counts, it stays
    assert after in seen


def _kill_after(patch, moment):
    """Let so many changes pass, and stop at the next; returns how many are left."""
    left = [moment]

    def counted(change):
        def changed(*arguments, **settings):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return change(*arguments, **settings)

        return changed

    for owner, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (Path, "unlink"), (Path, "rmdir")):
        patch.setattr(owner, name, counted(getattr(owner, name)))
    patch.setattr(atomic.Partial, "discard", lambda _self: None)  # a killed process does not tidy up
    return lambda: left[0]


def test_others_wait_meanwhile(tmp_path):
    folder = old_set(tmp_path / "w")
    place = os.open(folder, os.O_RDONLY)
    try:
        with replacing_set(folder) as new:
            write(new, NEW, DIT.name)
            with pytest.raises(BlockingIOError):
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(place)


def test_a_part_that_is_a_link_is_replaced_not_followed(tmp_path):
    elsewhere = old_set(tmp_path / "elsewhere")
    folder = tmp_path / "w"
    folder.mkdir()
    for path in elsewhere.iterdir():
        (folder / path.name).symlink_to(path)
    before = contents(elsewhere)
    replace_by(folder)
    assert marks(folder) == [2, 2, 2, 2]
    assert (contents(elsewhere), marks(elsewhere)) == (before, [1, 1, 1, 1])
    shutil.rmtree(elsewhere)
    assert marks(folder) == [2, 2, 2, 2]
