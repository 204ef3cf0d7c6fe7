"""Where weights are looked for, what is fetched, and what is said when they are not there."""

import dataclasses
import shutil
import threading

import pytest
from checkpoint_helpers import NAME, POINTER, cut, shard, tiny_copy
from helpers import LONG, TINY

from kandinsky.checkpoint.hub import Hub
from kandinsky.checkpoint.locate import COMPONENTS, fetch, locate
from kandinsky.checkpoint.model_set import read_model_set, write_model_set
from kandinsky.checkpoint.pending import SAVED
from kandinsky.config import FLASH_512
from kandinsky.errors import CheckpointError

OWN = dataclasses.replace(FLASH_512, text_tokens=24)
DIT_AT, REST_AT = FLASH_512.dit_repository, FLASH_512.components_repository
MODEL_SET_ASKED = (DIT_AT, "model_set.json", None)


class FakeHub:
    """Delivers a folder's weights and notes what it is asked for."""

    def __init__(self, source=TINY):
        self.source, self.asked = source, []
        self.value = Hub(lambda: None, self.file, self.files, self.cached)

    def file(self, repository, name, folder, revision):
        self.asked.append((repository, name, revision))
        if not (self.source / name).exists():
            return False
        shutil.copy(self.source / name, folder / name)
        return True

    def files(self, repository, patterns, folder, revision):
        self.asked.append((repository, tuple(patterns), revision))
        for pattern in patterns:
            name = pattern.split("/")[0]
            shutil.copytree(self.source / name, folder / name, dirs_exist_ok=True)

    def cached(self, repository, patterns, revision, *, local_files_only):
        self.asked.append((repository, tuple(patterns), revision, local_files_only))
        return self.source


@pytest.fixture
def hub():
    return FakeHub()


@pytest.fixture
def weights(tmp_path):
    return tiny_copy(tmp_path / "w")


def located(folder, hub=None, **changes):
    settings = {"model_set": FLASH_512, "given": {}, "local_files_only": hub is None, "revision": {}}
    return locate(folder, **{**settings, **changes}, **({} if hub is None else {"hub": hub.value}))


def offline():
    def raises():
        raise OSError("Name or service not known")

    hub = FakeHub()
    hub.value = dataclasses.replace(hub.value, check_reachable=raises)
    return hub


def test_standing_files_need_no_hub(hub):
    paths = located(TINY, hub)
    assert paths.dit == TINY / f"{NAME}.pt"
    assert paths.scheduler == TINY / "scheduler"
    assert hub.asked == []


def test_everything_is_downloaded(hub, tmp_path):
    paths = located(tmp_path / "new" / "w", hub)
    assert all(getattr(paths, name).exists() for name in COMPONENTS)
    assert hub.asked[:2] == [MODEL_SET_ASKED, (DIT_AT, f"{NAME}.pt", None)]


def test_only_what_is_missing_is_downloaded(hub, weights):
    shutil.rmtree(weights / "vae")
    located(weights, hub, revision={REST_AT: "v1"})
    assert hub.asked == [(REST_AT, ("vae/*",), "v1")]
    assert (weights / "vae" / "config.json").is_file()


def test_given_paths_are_not_downloaded(hub, tmp_path):
    given = {"vae": TINY / "vae", "dit": TINY / f"{NAME}.pt"}
    paths = located(tmp_path, hub, given=given)
    assert paths.vae == TINY / "vae"
    assert [names for _, names, _ in hub.asked] == [("text_encoder/*", "tokenizer/*", "scheduler/*")]


def test_a_missing_shard_is_fetched(tmp_path, weights):
    shards = shard(weights / "text_encoder")
    source = FakeHub(shutil.copytree(weights, tmp_path / "source"))
    shards[1].unlink()
    located(weights, source)
    assert source.asked == [(REST_AT, ("text_encoder/*",), None)]
    assert shards[1].is_file()


@pytest.mark.parametrize("kept", [1000, -1])
def test_half_downloaded_files_are_fetched_again(hub, weights, kept):
    cut(weights / f"{NAME}.pt", kept)
    cut(weights / "vae" / "diffusion_pytorch_model.safetensors", kept)
    (weights / "tokenizer" / "spiece.model").write_text(POINTER)
    located(weights, hub)
    assert hub.asked[1:] == [(DIT_AT, f"{NAME}.pt", None), (REST_AT, ("tokenizer/*", "vae/*"), None)]
    assert (weights / f"{NAME}.pt").read_bytes() == (TINY / f"{NAME}.pt").read_bytes()


def test_without_network_the_error_names_the_files(weights):
    first, second = shard(weights / "text_encoder")
    second.unlink()
    cut(weights / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(FileNotFoundError) as caught:
        located(weights, offline())
    message = str(caught.value)
    assert "download failed: OSError: Name or service not known" in message
    assert second.name in message
    assert "diffusion_pytorch_model.safetensors is truncated" in message
    assert first.name not in message
    assert "dit" not in message.replace("diffusion", "")


def test_damage_alone_is_a_checkpoint_error(weights):
    cut(weights / f"{NAME}.pt")
    with pytest.raises(
        CheckpointError, match=rf"weights are damaged in .*local_files_only(.|\n)*{NAME}\.pt is truncated"
    ):
        located(weights)


def test_the_published_files_do_not_mend_other_weights(hub, weights):
    """A set of its own, and a DiT that was saved here: what would come is another model."""
    write_model_set(weights, OWN)
    cut(weights / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="the published ones are others: nothing was downloaded"):
        located(weights, hub)
    (weights / "model_set.json").unlink()
    located(weights, hub)
    (weights / f"{NAME}.pt").unlink()
    (weights / f"{NAME}.safetensors").write_bytes(b"cut")
    hub.asked.clear()
    with pytest.raises(CheckpointError, match=rf"{NAME}\.safetensors is not a safetensors file"):
        located(weights, hub)
    assert hub.asked == []


def test_what_the_hub_does_not_bring_is_named(tmp_path, weights):
    source = FakeHub(shutil.copytree(weights, tmp_path / "source"))
    (source.source / "vae" / "config.json").unlink()
    (weights / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"the download did not bring it(.|\n)*vae/config\.json is not there"):
        located(weights, source)


def test_what_a_set_was_trained_for_comes_with_it(tmp_path, weights):
    source = FakeHub(shutil.copytree(weights, tmp_path / "source"))
    write_model_set(source.source, OWN)
    located(tmp_path / "new", source)
    assert read_model_set(tmp_path / "new") == OWN
    write_model_set(weights, dataclasses.replace(OWN, fps=3))
    (weights / f"{NAME}.pt").unlink()
    located(weights, source)
    assert read_model_set(weights).fps == 3  # what is declared here stays


def test_a_model_set_that_could_not_be_asked_for_is_asked_for_again(tmp_path):
    class Broken(FakeHub):
        def file(self, repository, name, folder, revision):
            if name == "model_set.json" and not self.asked:
                self.asked.append(name)
                raise OSError("connection lost")
            return super().file(repository, name, folder, revision)

    source = Broken(tiny_copy(tmp_path / "source"))
    write_model_set(source.source, OWN)
    with pytest.raises(FileNotFoundError, match="connection lost"):
        located(tmp_path / "new", source)
    assert not (tmp_path / "new" / f"{NAME}.pt").exists()
    located(tmp_path / "new", source)
    assert read_model_set(tmp_path / "new") == OWN


def test_one_process_downloads_while_the_others_wait(tmp_path):
    hub, together = FakeHub(), threading.Barrier(3)  # all have found nothing before one begins
    hub.value = dataclasses.replace(hub.value, check_reachable=lambda: together.wait(LONG) and None)
    threads = [threading.Thread(target=located, args=(tmp_path / "w", hub)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hub.asked) == 3  # the model set's file, the DiT and the rest, each by one of the three


def test_a_set_that_was_just_saved_goes_before(weights):
    tiny_copy(weights / SAVED)
    paths = located(weights)
    assert {getattr(paths, name).parent for name in COMPONENTS} == {weights / SAVED}


def test_given_path_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vae not found at .*nowhere"):
        located(TINY, given={"vae": tmp_path / "nowhere"})


def test_nothing_is_there(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        located(tmp_path)
    message = str(caught.value)
    assert "local_files_only=True forbids downloading" in message
    assert "kandinsky4_distil_512.pt  from ai-forever/kandinsky-4-t2v-flash" in message
    assert "text_encoder/  (config.json, *.safetensors)  from THUDM/CogVideoX-5b" in message
    assert "--weights weights/tiny" in message


def test_a_repository_in_the_published_layout(hub):
    assert fetch("some/one", "v2", FLASH_512, local_files_only=False, hub=hub.value) == TINY
    ((repository, patterns, revision, local),) = hub.asked
    assert (repository, revision, local) == ("some/one", "v2", False)
    assert {"model_set.json", f"{NAME}.pt", f"{NAME}.safetensors", "vae/*", "text_encoder/*"} <= set(patterns)


def test_a_repository_that_is_not_there():
    with pytest.raises(
        FileNotFoundError, match=r"'none/here' is not a folder here, nor found on the hub \(OSError: Name"
    ):
        fetch("none/here", None, FLASH_512, local_files_only=False, hub=offline().value)
    assert fetch("some/one", None, FLASH_512, local_files_only=True, hub=offline().value) == TINY  # nobody is asked
