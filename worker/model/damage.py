"""Finds the file that is at fault if a checkpoint cannot be loaded, and says how to mend it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from worker.model.interface import ModelLoadError
from worker.model.sources import CONFIG, Source

PROCESSOR: Final = "preprocessor_config.json"
#: The files from which Transformers loads each part of a checkpoint.
FILES: Final[Mapping[str, Sequence[str]]] = {
    "configuration": (CONFIG,),
    "weights": ("model*.safetensors*", "pytorch_model*.bin*"),
    "tokenizer": (
        "tokenizer*.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.*",
        "merges.txt",
        "*.model",
    ),
    "image processor": (PROCESSOR, "processor_config.json"),
}
_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_IS_POINTER: Final = "is a Git LFS pointer, not the file itself"


def files_of(source: Source, part: str) -> Iterator[Path]:
    """Yield the files of one part of a checkpoint, broken links included."""
    for pattern in FILES.get(part, ()):
        yield from sorted(file for file in source.folder.iterdir() if fnmatch(file.name, pattern))


def refuse_unreadable_files(source: Source) -> None:
    """Refuse a checkpoint with a file that cannot be read, because Transformers ignores some such files.

    Weights are left out, since a checkpoint may have them in several formats, of which Transformers reads one.

    Raises:
        ModelLoadError: a file is missing or cannot be read, or is a Git LFS pointer.
    """
    for part in FILES:
        for file in files_of(source, part) if part != "weights" else ():
            what = _unreadable(file)
            if what is not None:
                raise ModelLoadError(_sentence(source, file, what))


def damage_of(source: Source, part: str) -> str | None:
    """Return a sentence about the first damaged file of this part, or None if all can be read."""
    for file in files_of(source, part):
        what = _unreadable(file) or _damage(file)
        if what is not None:
            return _sentence(source, file, what)
    return None


def _sentence(source: Source, file: Path, what: str) -> str:
    if what == _IS_POINTER and source.commit is None:
        remedy = "run `git lfs pull` in its folder"
    elif "Permission denied" in what:
        remedy = "let the worker's user read it"
    elif source.commit is not None:
        remedy = f"delete {str(source.folder.parent.parent)!r}, so that it is downloaded again"
    else:
        remedy = "copy or save the checkpoint again"
    return f"file {str(file)!r} of model {source.model!r} {what}: {remedy}"


def _unreadable(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            beginning = opened.read(len(_POINTER))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return _IS_POINTER if beginning == _POINTER else None


def _damage(file: Path) -> str | None:
    if not file.stat().st_size:
        return "is empty"
    if file.suffix == ".json":
        return _damage_of_json(file)
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="numpy"):
                return None
        except (SafetensorError, OSError) as error:
            return f"is damaged ({error})"
    return None


def _damage_of_json(file: Path) -> str | None:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        return f"is not JSON ({error})"
    if not isinstance(value, dict):
        return "is JSON, but not an object"
    if file.name == CONFIG and not isinstance(value.get("model_type"), str):
        return "names no model_type"
    return None
