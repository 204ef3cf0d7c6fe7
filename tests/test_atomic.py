"""Files and folders that appear only when they are complete."""

import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import LONG

from kandinsky import atomic
from kandinsky.atomic import Partial, create_new, remove, remove_at_once, remove_partials, replacing, short, write_text

NAMES = ["v.mp4", "v", "a[b]*?.mp4", "🐦" * 40 + ".latents.safetensors", ".hidden"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_appears_as_a_whole(tmp_path, name):
    target = tmp_path / name
    target.write_text("old")
    with replacing(target) as path:
        assert path.parent == tmp_path
        assert path.name.startswith(".")
        assert path.name.endswith(f".partial{target.suffix}")  # by which whoever writes knows the kind of file
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    (tmp_path / "v.mp4").write_text("old")
    with pytest.raises(error), replacing(tmp_path / "v.mp4") as path:
        path.write_text("half")
        raise error
    assert names_in(tmp_path) == ["v.mp4"]
    assert (tmp_path / "v.mp4").read_text() == "old"


def test_a_folder_takes_the_place_of_an_empty_one_only(tmp_path):
    target = tmp_path / "frames"
    for _ in range(2):
        with replacing(target) as path:
            path.mkdir()
            (path / "0.png").touch()
        assert names_in(target) == ["0.png"]
        remove(target)
        target.mkdir()
    (target / "mine").touch()
    with pytest.raises(OSError, match="not empty"), replacing(target) as path:
        path.mkdir()
        (path / "0.png").touch()
    assert names_in(tmp_path) == ["frames"]
    assert names_in(target) == ["mine"]


@contextmanager
def folder_with(target, name):
    """A folder that holds one file, on its way over what stands at `target`."""
    with replacing(target, over_folder=True) as path:
        path.mkdir()
        (path / name).touch()
        yield


def test_a_folder_that_may_replace_one_with_files(tmp_path):
    target = tmp_path / "checkpoint"
    for name in ("first", "second"):
        with folder_with(target, name):
            assert not target.exists() or names_in(target) == ["first"]
        assert names_in(target) == [name]
    with pytest.raises(OSError, match="disk full"), folder_with(target, "third"):
        raise OSError("disk full")
    assert names_in(target) == ["second"]
    assert names_in(tmp_path) == ["checkpoint"]


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path, monkeypatch):
    target, replace = tmp_path / "checkpoint", os.replace
    with folder_with(target, "first"):
        pass

    def refuse(old, new):
        if (old / "second").exists() and new == target:
            raise PermissionError("in use")
        replace(old, new)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError), folder_with(target, "second"):
        pass
    assert names_in(target) == ["first"]
    assert names_in(tmp_path) == ["checkpoint"]


def test_a_folder_is_removed_at_once(tmp_path, monkeypatch):
    """Whoever looks meanwhile sees the whole of it or nothing."""
    folder, rmtree, seen = tmp_path / "checkpoint", shutil.rmtree, []

    def watched(path):
        seen.append(folder.exists())
        rmtree(path)

    with folder_with(folder, "file"):
        pass
    monkeypatch.setattr(shutil, "rmtree", watched)
    remove_at_once(folder)
    assert seen == [False]
    assert names_in(tmp_path) == []


def test_what_is_done_is_done_once(tmp_path):
    partial = Partial(tmp_path / "v.mp4")
    partial.path.write_text("new")
    partial.commit()
    partial.path.write_text("of somebody else by now")
    partial.discard()
    partial.commit()
    assert (tmp_path / "v.mp4").read_text() == "new"
    assert partial.path.exists()
    other = Partial(tmp_path / "w.mp4")
    other.path.touch()
    other.discard()
    other.commit()
    assert not other.path.exists()
    assert not (tmp_path / "w.mp4").exists()


def test_two_at_a_time_do_not_meet(tmp_path):
    first, second = Partial(tmp_path / "v.mp4"), Partial(tmp_path / "v.mp4")
    for partial, text in ((first, "first"), (second, "second")):
        partial.path.write_text(text)
    second.commit()
    first.commit()
    assert (tmp_path / "v.mp4").read_text() == "first"
    assert names_in(tmp_path) == ["v.mp4"]


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "t.json", "Ödipus 🐦\n")
    assert (tmp_path / "t.json").read_bytes() == "Ödipus 🐦\n".encode()


@pytest.fixture(params=[True, False], ids=["hard links", "no hard links"])
def links(request, monkeypatch):
    """With and without a file system that has hard links."""

    def refuse(*_):
        raise PermissionError("Operation not permitted")

    if not request.param:
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("links")
def test_a_new_file_replaces_nothing(tmp_path):
    target = tmp_path / "v.tar.gz"
    made = [create_new(target, lambda path: path.write_text("x"), ending=".tar.gz") for _ in range(3)]
    assert [path.name for path in made] == ["v.tar.gz", "v-2.tar.gz", "v-3.tar.gz"]
    assert names_in(tmp_path) == sorted(path.name for path in made)


@pytest.mark.usefixtures("links")
def test_each_of_many_writers_gets_a_file_of_its_own(tmp_path):
    ready, made = threading.Barrier(8), []

    def write(number):
        def body(path):
            path.write_text(number)
            ready.wait(LONG)  # all are complete before the first one looks for a free name

        made.append((create_new(tmp_path / "v.txt", body, ending=".txt"), number))

    threads = [threading.Thread(target=write, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path for path, _ in made}) == len(names_in(tmp_path)) == 8
    assert all(path.read_text() == number for path, number in made)


def test_a_new_file_that_cannot_be_written_leaves_nothing(tmp_path):
    def full(path):
        path.touch()
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        create_new(tmp_path / "v.txt", full, ending=".txt")
    assert names_in(tmp_path) == []


def test_a_new_file_that_cannot_take_its_place_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        create_new(tmp_path / "v.txt", Path.touch, ending=".txt")
    assert names_in(tmp_path) == []


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path):
    old, recent, foreign = (
        tmp_path / name
        for name in (".v-01234567.partial.mp4", ".v-89abcdef.partial.mp4", ".other-01234567.partial.mp4")
    )
    for path in (old, recent, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (0, time.time() - atomic.STALE - 1))
    write_text(tmp_path / "v.mp4", "new")
    assert names_in(tmp_path) == sorted([recent.name, foreign.name, "v.mp4"])
    remove_partials(tmp_path / "v.mp4")  # for whoever knows that nobody writes
    assert names_in(tmp_path) == sorted([foreign.name, "v.mp4"])


def test_a_long_name_leaves_room_for_more():
    assert short("v") == "v"
    assert short("x" * 300) == "x" * 160
    assert short("x" + "🐦" * 60) == "x" + "🐦" * 39  # of four bytes, of which none is cut
    assert short("[v]") == "[v]"


def test_what_is_removed(tmp_path):
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    folder.mkdir()
    (folder / "kept").touch()
    link.symlink_to(folder)
    file.touch()
    remove(link)
    assert names_in(folder) == ["kept"]  # the link goes, not what it leads to
    for path in (folder, file, tmp_path / "nothing"):
        remove(path)
    assert names_in(tmp_path) == []
