"""The hub's client, asked through a stand-in for its functions: nothing here uses the network."""

import socket

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from kandinsky.checkpoint.hub import HUGGING_FACE


@pytest.fixture
def asked(monkeypatch):
    """What the client is asked for; a repository has the file "there" alone, and none if it is "offline"."""
    calls = []

    def file(repository, name, **settings):
        calls.append((repository, name, settings))
        if repository == "offline":
            raise LocalEntryNotFoundError("cannot be reached")
        if name != "there":
            raise EntryNotFoundError(name)

    def snapshot(repository, **settings):
        calls.append((repository, settings))
        return "/cache/folder"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", file)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return calls


def test_a_file(asked, tmp_path):
    assert HUGGING_FACE.fetch_file("a/b", "there", tmp_path, "v1")
    assert asked == [("a/b", "there", {"local_dir": tmp_path, "revision": "v1"})]


def test_a_file_that_a_repository_has_not(asked, tmp_path):
    assert not HUGGING_FACE.fetch_file("a/b", "other", tmp_path, None)
    with pytest.raises(LocalEntryNotFoundError):
        HUGGING_FACE.fetch_file("offline", "other", tmp_path, None)
    assert len(asked) == 2


def test_files(asked, tmp_path):
    HUGGING_FACE.fetch_files("a/b", ("vae/*",), tmp_path, None)
    assert asked == [("a/b", {"allow_patterns": ["vae/*"], "local_dir": tmp_path, "revision": None})]


def test_the_hubs_own_folder(asked):
    assert HUGGING_FACE.fetch_cached("a/b", ["x"], "v", local_files_only=True).as_posix() == "/cache/folder"
    assert asked == [("a/b", {"allow_patterns": ["x"], "revision": "v", "local_files_only": True})]


def test_without_network(monkeypatch):
    def no_network(*_arguments):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with pytest.raises(OSError, match="Name or service not known"):
        HUGGING_FACE.check_reachable()
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    HUGGING_FACE.check_reachable()
