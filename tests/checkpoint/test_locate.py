"""Where weights are looked for, and what is said when they are not there."""

import shutil
import socket
import threading
import time

import pytest
from helpers import TINY

from kandinsky.checkpoint import locate as hub
from kandinsky.config import FLASH_512


def locate(folder, **changes):
    settings = {"model_set": FLASH_512, "given": {}, "local_files_only": False, "revision": {}}
    return hub.locate(folder, **{**settings, **changes})


@pytest.fixture
def fake_hub(monkeypatch):
    """A hub that delivers the tiny weights and counts what it is asked for."""
    import huggingface_hub

    asked = []

    def file(repository, name, *, local_dir, revision):
        asked.append((repository, name, revision))
        time.sleep(0.1)
        shutil.copy(TINY / name, local_dir / name)

    def snapshot(repository, *, allow_patterns, local_dir, revision):
        asked.append((repository, tuple(allow_patterns), revision))
        for pattern in allow_patterns:
            shutil.copytree(TINY / pattern.split("/")[0], local_dir / pattern.split("/")[0])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", file)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(hub, "_check_reachable", lambda _endpoint: None)
    return asked


def test_standing_files_need_no_hub(fake_hub):
    paths = locate(TINY)
    assert paths.dit == TINY / "kandinsky4_distil_512.pt"
    assert paths.scheduler == TINY / "scheduler"
    assert fake_hub == []


def test_only_what_is_missing_is_downloaded(fake_hub, tmp_path):
    shutil.copytree(TINY, tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "vae")
    locate(tmp_path / "w", revision={"THUDM/CogVideoX-5b": "v1"})
    assert fake_hub == [("THUDM/CogVideoX-5b", ("vae/*",), "v1")]
    assert (tmp_path / "w" / "vae" / "config.json").is_file()


def test_given_paths_are_not_downloaded(fake_hub, tmp_path):
    given = {"vae": TINY / "vae", "dit": TINY / "kandinsky4_distil_512.pt"}
    paths = locate(tmp_path, given=given)
    assert paths.vae == TINY / "vae"
    assert [names for _, names, _ in fake_hub] == [("text_encoder/*", "tokenizer/*", "scheduler/*")]


def test_one_process_downloads_while_the_others_wait(fake_hub, tmp_path):
    threads = [threading.Thread(target=locate, args=(tmp_path / "w",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fake_hub) == 2  # one for the DiT, one for the rest, by one of the three


def test_converted_dit_is_found(tmp_path):
    shutil.copytree(TINY, tmp_path / "w")
    (tmp_path / "w" / "kandinsky4_distil_512.pt").rename(tmp_path / "w" / "kandinsky4_distil_512.safetensors")
    assert locate(tmp_path / "w", local_files_only=True).dit.suffix == ".safetensors"


def test_given_path_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vae not found at .*nowhere"):
        locate(TINY, given={"vae": tmp_path / "nowhere"})


def test_without_network(monkeypatch, tmp_path):
    def no_network(*_args, **_kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(hub, "getproxies", dict)
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as caught:
        locate(tmp_path / "w")
    assert time.perf_counter() - start < 1
    message = str(caught.value)
    assert "Name or service not known" in message
    assert "kandinsky4_distil_512.pt  from ai-forever/kandinsky-4-t2v-flash" in message
    assert "text_encoder/  (config.json, *.safetensors)  from THUDM/CogVideoX-5b" in message
    assert "--weights weights/tiny" in message


def test_local_files_only_does_not_ask(tmp_path):
    with pytest.raises(FileNotFoundError, match="local_files_only=True forbids downloading"):
        locate(tmp_path, local_files_only=True)
