"""Where weights come from: what arguments say of files, and which files these are."""

import dataclasses
import re

import huggingface_hub
import pytest
from checkpoint_helpers import hub_of
from helpers import SMALL, TINY, own_weights

from kandinsky.checkpoint.conf import ConfFile
from kandinsky.config import FLASH_512
from kandinsky.loading.sources import pretrained, revisions_of, sources_of, weights_of
from kandinsky.model.precision import EXACT

DEFAULT = {
    "cache_dir": TINY, "conf_path": None, "resolution": 512, "repository": None, "local_files_only": True,
    "revision": None,
}  # fmt: skip
REPOSITORIES = (FLASH_512.dit_repository, FLASH_512.components_repository)


def sources(explicit=None, **changes):
    return sources_of(explicit or {}, **{**DEFAULT, **changes})


def test_arguments_alone_are_looked_at(tmp_path):
    found = sources({"vae": TINY / "vae", "dit": None}, cache_dir=tmp_path / "none", revision="v1")
    assert (found.folder, dict(found.given), found.conf) == (tmp_path / "none", {"vae": TINY / "vae"}, ConfFile())
    assert (found.revision, found.repository) == (dict.fromkeys(REPOSITORIES, "v1"), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("explicit", "changes", "message"),
    [
        ({}, {"resolution": 256}, "resolution=256: allowed is 512"),
        ({}, {"cache_dir": 3}, "cache_dir=3: allowed is a path of text"),
        ({"vae": b"x"}, {}, "vae_path=b'x': allowed is a path of text"),
        ({}, {"revision": {"a/b": "v"}}, "revision names 'a/b'; the repositories are ai-forever"),
        ({}, {"revision": {"a/b": "v"}, "repository": "some/body"}, "the repositories are some/body"),
    ],
)
def test_wrong_arguments(explicit, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sources(explicit, **changes)


def test_a_place_that_is_not_there_is_told_before_anything_is_downloaded(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(FileNotFoundError, match="vae not found at /nowhere, the path that was given for it"):
        sources({"vae": "/nowhere"}, repository="some/body")


def test_the_files_of_a_folder():
    found = weights_of(sources(), EXACT)
    assert (found.model_set, found.paths.vae) == (FLASH_512, TINY / "vae")
    assert found.checkpoint.path == found.paths.dit == TINY / FLASH_512.dit_file


def test_the_folder_of_the_dit_says_what_it_was_trained_for(small_weights, tmp_path):
    elsewhere = own_weights(tmp_path / "w", dataclasses.replace(SMALL, max_seconds=2))
    given = sources({"dit": elsewhere / SMALL.dit_file}, cache_dir=small_weights)
    assert weights_of(given, EXACT).model_set.max_seconds == 2
    assert weights_of(sources(cache_dir=small_weights), EXACT).model_set == SMALL


@pytest.mark.parametrize(("revision", "wanted"), [("v2", "v2"), ({"some/body": "v2"}, "v2"), (None, None)])
def test_the_files_of_a_repository(small_weights, monkeypatch, revision, wanted):
    asked = hub_of(small_weights, monkeypatch)
    found = weights_of(sources(repository="some/body", revision=revision), EXACT)
    assert asked == [("some/body", wanted, True)]
    assert (found.model_set, found.paths.vae) == (SMALL, small_weights / "vae")


def test_one_revision_is_that_of_every_repository():
    assert revisions_of("main", REPOSITORIES) == dict.fromkeys(REPOSITORIES, "main")
    assert revisions_of({REPOSITORIES[1]: "v2"}, REPOSITORIES) == {REPOSITORIES[1]: "v2"}
    assert revisions_of(None, REPOSITORIES) == revisions_of({}, REPOSITORIES) == {}


def test_what_is_at_one_place(tmp_path):
    options = {"progress": False}
    folder = {"cache_dir": str(tmp_path), "local_files_only": True}
    assert pretrained(str(tmp_path), options) == (None, options | folder)
    assert pretrained("some/body", options) == ("some/body", options)
    published = {"cache_dir": tmp_path}
    assert pretrained(FLASH_512.dit_repository, published) == (None, published)
    assert options == {"progress": False}


def test_a_folder_for_downloads_that_would_not_be_used():
    for place in (str(TINY), "some/body"):
        with pytest.raises(ValueError, match=rf"cache_dir='there': all weights come from '{place}'; it is allowed"):
            pretrained(place, {"cache_dir": "there"})
    with pytest.raises(ValueError, match="folder_or_repo='no folder': allowed is a folder that exists, or owner/name"):
        pretrained("no folder", {})
