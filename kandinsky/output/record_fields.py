"""Fields of what is read from a file's record: anybody may have written it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_origin, get_type_hints

from kandinsky.errors import shown


def known_fields(kind: type, found: Mapping[str, Any]) -> dict[str, Any]:
    """What a dataclass has fields for, without the keys of later versions."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in found.items() if name in names}


def check_types(made: Any) -> None:
    """Look whether a dataclass that was read has the types that it should have.

    Raises:
        TypeError: names the field.
    """
    for name, kind in get_type_hints(type(made)).items():
        value = getattr(made, name)
        if get_origin(kind) is Mapping:
            right = isinstance(value, dict) and all(isinstance(part, str) for part in value.values())
        else:
            kinds = int | float if kind is float else kind
            right = isinstance(value, kinds) and (kind is bool or not isinstance(value, bool))
        if not right:
            raise TypeError(f"{name} is {shown(value)}")
