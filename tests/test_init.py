"""What `import kandinsky` offers."""

import pydoc

import pytest

import kandinsky
from kandinsky import errors
from kandinsky.audio.factory import get_V2A_pipeline
from kandinsky.audio.pipeline import Kandinsky4V2APipeline
from kandinsky.audio.result import SoundResult
from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.result import GenerationResult
from kandinsky.pipeline import Kandinsky4T2VPipeline

ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type)}


def test_names_are_listed():
    assert {"get_T2V_pipeline", "Kandinsky4T2VPipeline", "GenerationResult", "__version__", *ERRORS} <= set(
        dir(kandinsky)
    )
    assert dir(kandinsky) == sorted(kandinsky.__all__)


def test_names_are_the_things_themselves():
    assert kandinsky.get_T2V_pipeline is get_T2V_pipeline
    assert kandinsky.Kandinsky4T2VPipeline is Kandinsky4T2VPipeline
    assert kandinsky.get_V2A_pipeline is get_V2A_pipeline
    assert kandinsky.Kandinsky4V2APipeline is Kandinsky4V2APipeline
    assert kandinsky.SoundResult is SoundResult
    assert kandinsky.GenerationResult is GenerationResult
    for name in ERRORS:
        assert getattr(kandinsky, name) is getattr(errors, name)


def test_every_listed_name_is_there():
    for name in dir(kandinsky):
        assert getattr(kandinsky, name) is not None
    with pytest.raises(AttributeError, match="module 'kandinsky' has no attribute 'nothing'"):
        kandinsky.nothing  # noqa: B018


def test_help_shows_them():
    shown = pydoc.render_doc(kandinsky, renderer=pydoc.plaintext)
    for name in ("get_T2V_pipeline(device_map", "class Kandinsky4T2VPipeline(", "class GenerationResult(", *ERRORS):
        assert name in shown
