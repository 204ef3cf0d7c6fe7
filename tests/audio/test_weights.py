"""Where the files of V2A are, and what is said when they are not."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from audio_helpers import save_small

from kandinsky.audio.weights import FOLDER, REPOSITORY, fetch_encoder, locate_encoder, locate_sound
from kandinsky.checkpoint.hub import Hub
from kandinsky.errors import CheckpointError

HERE = {"local_files_only": True, "revision": None}


@dataclass
class FakeHub:
    """A hub whose files come out of a folder; `asked` has what was asked for."""

    folder: Path | None
    asked: list[tuple[str, list[str], str | None]] = field(default_factory=list)

    def fetch_files(self, repository, patterns, folder, revision):
        self.asked.append((repository, list(patterns), revision))
        if self.folder is None:
            raise OSError("no way there\nand more")
        for pattern in patterns:
            for file in self.folder.glob(pattern):
                (folder / file.relative_to(self.folder)).parent.mkdir(exist_ok=True, parents=True)
                (folder / file.relative_to(self.folder)).write_bytes(file.read_bytes())

    @property
    def hub(self) -> Hub:
        return Hub(check_reachable=lambda: None, fetch_files=self.fetch_files)


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("standing"))


def test_files_that_stand(standing):
    paths = locate_sound(standing, {}, **HERE)
    assert paths.unet == standing / FOLDER / "unet"
    assert paths.scheduler.is_dir()


def test_missing_files_say_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        locate_sound(tmp_path, {}, **HERE)
    said = str(error.value)
    assert f"{tmp_path / FOLDER / 'unet'}/  (config.json, *.safetensors)  from {REPOSITORY}" in said
    assert f"{tmp_path / FOLDER / 'scheduler'}/  (scheduler_config.json)" in said
    assert "local_files_only=True forbids downloading" in said


def test_a_download(standing, tmp_path):
    hub = FakeHub(standing / FOLDER)
    paths = locate_sound(tmp_path, {}, local_files_only=False, revision="v1", hub=hub.hub)
    assert hub.asked == [(REPOSITORY, ["unet/*", "vae/*", "scheduler/*"], "v1")]
    assert (paths.vae / "config.json").is_file()
    locate_sound(tmp_path, {}, local_files_only=False, revision=None, hub=hub.hub)
    assert len(hub.asked) == 1


def test_only_what_is_missing_is_downloaded(standing, tmp_path):
    hub = FakeHub(standing / FOLDER)
    given = {"unet": standing / FOLDER / "unet", "scheduler": standing / FOLDER / "scheduler"}
    paths = locate_sound(tmp_path, given, local_files_only=False, revision=None, hub=hub.hub)
    assert hub.asked == [(REPOSITORY, ["vae/*"], None)]
    assert paths.unet == given["unet"]


def test_a_download_that_fails(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\(download failed: OSError: no way there\)"):
        locate_sound(tmp_path, {}, local_files_only=False, revision=None, hub=FakeHub(None).hub)


def test_given_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vae not found at .*, the path that was given for it"):
        locate_sound(tmp_path, {"vae": tmp_path / "none"}, **HERE)
    (tmp_path / "vae").mkdir()
    with pytest.raises(FileNotFoundError, match="these are the paths"):
        locate_sound(tmp_path, dict.fromkeys(("unet", "vae", "scheduler"), tmp_path / "vae"), **HERE)


def test_damaged_files(tmp_path):
    save_small(tmp_path)
    file = tmp_path / FOLDER / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="weights of the sound model are damaged") as error:
        locate_sound(tmp_path, {}, **HERE)
    assert "is truncated" in str(error.value)
    assert "unet/  (" not in str(error.value)


def test_the_encoder(tmp_path):
    assert locate_encoder(tmp_path, None) == tmp_path / "cogvlm2-video-llama3-chat"
    assert locate_encoder(tmp_path, tmp_path / "own") == tmp_path / "own"
    with pytest.raises(FileNotFoundError, match=r"the encoder is missing \(local_files_only=True"):
        fetch_encoder(tmp_path / "e", "0" * 40, local_files_only=True)
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    hub = FakeHub(source)
    fetch_encoder(tmp_path / "e", "0" * 40, local_files_only=False, hub=hub.hub)
    assert (tmp_path / "e" / "config.json").is_file()
    assert hub.asked[0][2] == "0" * 40
