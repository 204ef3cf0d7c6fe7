"""Kandinsky 4.0 T2V Flash: text to video in four steps.

Importing this package loads neither torch's optional companions nor any model library: the two public names
are resolved at first use (PEP 562).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kandinsky.factory import get_T2V_pipeline
    from kandinsky.pipeline import Kandinsky4T2VPipeline

__version__ = "0.1.0"
__all__ = ["Kandinsky4T2VPipeline", "__version__", "get_T2V_pipeline"]

_HOME = {"get_T2V_pipeline": "kandinsky.factory", "Kandinsky4T2VPipeline": "kandinsky.pipeline"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'kandinsky' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
