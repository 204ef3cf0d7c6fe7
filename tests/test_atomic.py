"""Files appear only when they are complete, and nothing else is replaced or left behind."""

import os
import threading
import time

import pytest

from kandinsky import atomic
from kandinsky.atomic import Partial, create_new, remove, remove_partials, replacing, short, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_target_is_replaced_when_the_body_succeeds(tmp_path):
    target = tmp_path / "v.mp4"
    target.write_text("old")
    with replacing(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
        assert path.parent == tmp_path
        assert path.name.startswith(".v-")
        assert path.suffix == ".mp4"
    assert names(tmp_path) == ["v.mp4"]
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_stood_there(tmp_path, error):
    write_text(tmp_path / "v.txt", "old")
    with pytest.raises(error), replacing(tmp_path / "v.txt") as path:
        path.write_text("half")
        raise error
    assert names(tmp_path) == ["v.txt"]
    assert (tmp_path / "v.txt").read_text() == "old"


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path):
    (tmp_path / "frames").mkdir()
    with replacing(tmp_path / "frames") as path:
        path.mkdir()
        (path / "00000.png").write_text("x")
    assert names(tmp_path / "frames") == ["00000.png"]


def test_text_is_utf_8_wherever_it_is_written(tmp_path):
    write_text(tmp_path / "t.txt", "猫\n")
    assert (tmp_path / "t.txt").read_bytes() == "猫\n".encode()


def test_a_partial_is_committed_or_discarded_once(tmp_path):
    partial = Partial(tmp_path / "a")
    partial.path.write_text("new")
    partial.commit()
    partial.discard()
    partial.commit()
    assert (tmp_path / "a").read_text() == "new"


def in_a_folder_without_links(*_paths):
    raise OSError("Operation not supported")


@pytest.mark.parametrize("links", [True, False])
def test_new_files_replace_nothing(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", in_a_folder_without_links)
    made = [create_new(tmp_path / "v.1.l.st", lambda path: path.write_text("x"), ending=".l.st") for _ in range(3)]
    assert [path.name for path in made] == ["v.1.l.st", "v.1-2.l.st", "v.1-3.l.st"]
    assert names(tmp_path) == ["v.1-2.l.st", "v.1-3.l.st", "v.1.l.st"]


def test_two_that_write_the_same_new_name_get_two(tmp_path):
    ready, made = threading.Barrier(4), []

    def write(path):
        path.write_text("x")
        ready.wait(20)

    def run():
        made.append(create_new(tmp_path / "v.st", write, ending=".st").name)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == ["v-2.st", "v-3.st", "v-4.st", "v.st"]


def test_what_killed_processes_left_is_removed(tmp_path):
    old, recent = tmp_path / ".v-01234567.partial.mp4", tmp_path / ".v-89abcdef.partial.mp4"
    for path in (old, recent):
        path.write_text("half")
    os.utime(old, (0, time.time() - atomic.STALE - 1))
    write_text(tmp_path / "v.mp4", "whole")
    assert names(tmp_path) == [recent.name, "v.mp4"]
    remove_partials(tmp_path / "v.mp4")
    assert names(tmp_path) == ["v.mp4"]


def test_a_link_to_a_folder_is_removed_and_not_the_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert names(tmp_path) == ["folder"]


def test_long_names_leave_room():
    assert short("v") == "v"
    assert len(short("猫" * 100).encode()) <= 160
