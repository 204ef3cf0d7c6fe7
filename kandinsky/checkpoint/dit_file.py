"""Which file in a folder of weights is the DiT: the published one, or a copy that `kandinsky convert` made of it.

A copy says of which file it is one, by that file's mark (see `fingerprint`), and is taken only for that.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

from kandinsky.checkpoint.fingerprint import file_mark
from kandinsky.checkpoint.pending import SAVED
from kandinsky.checkpoint.safetensors_file import read_header
from kandinsky.config import ModelSet
from kandinsky.errors import CheckpointError
from kandinsky.model.precision import EXACT, PRECISIONS, Precision


def converted_file(folder: Path, model_set: ModelSet, precision: Precision) -> Path:
    """Where `kandinsky convert` puts its copy of the DiT."""
    published = folder / model_set.dit_file
    return published.with_name(f"{published.stem}{precision.file_suffix}.safetensors")


def copy_metadata(source: Path) -> dict[str, str]:
    """What a copy of the file `source` says of it."""
    return {"source": source.name, "source_mark": file_mark(source)}


def forms_of(name: str) -> list[str]:
    """Names of the files that hold the same DiT in other forms; empty for other files.

    Args:
        name: of the published file, or of its exact copy.
    """
    stem, ending = Path(name).stem, Path(name).suffix
    if ending not in (".pt", ".safetensors"):
        return []
    forms = [f"{stem}.pt", *(f"{stem}{one.file_suffix}.safetensors" for one in PRECISIONS.values())]
    return [form for form in forms if form != name]


def dit_in(cache_dir: Path, model_set: ModelSet, precision: Precision = EXACT) -> Path:
    """The file to load: a copy for `precision`, an exact copy, or the published file, which need not be there.

    A copy that is damaged, or of other weights than those that stand beside it, is passed over with a warning. The last
    of these files that is there is loaded in any case.
    """
    folder = _folder(cache_dir, model_set)
    published = folder / model_set.dit_file
    wanted = [converted_file(folder, model_set, one) for one in dict.fromkeys((precision, EXACT))]
    copies = [file for file in wanted if file.is_file()]
    if not copies:
        return published
    if published.is_file():
        mark, last = file_mark(published), published
    else:
        *copies, last = copies
        mark = (_said(last) or {}).get("source_mark") if copies else None
    for file in copies:
        said = _said(file)
        if mark is not None and said is not None and said.get("source_mark") == mark:
            return file
        why = "is damaged" if said is None else f"is not a copy of {last.name} as it is now"
        warnings.warn(f"{file} {why} and is not used; `kandinsky convert` makes a new one", UserWarning, stacklevel=3)
    return last


def _folder(cache_dir: Path, model_set: ModelSet) -> Path:
    """Where the DiT is; a set that was just saved is not in its place yet."""
    saved = cache_dir / SAVED
    forms = (model_set.dit_file, *forms_of(model_set.dit_file))
    return saved if any((saved / form).is_file() for form in forms) else cache_dir


def _said(file: Path) -> Mapping[str, str] | None:
    """The metadata of a safetensors file; None if it is damaged."""
    try:
        header = read_header(file)
    except CheckpointError:
        return None
    return header.metadata if header.size == file.stat().st_size else None
