"""Finds the file that is at fault after a checkpoint could not be loaded, and says how to mend it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from worker.model.sources import Source

#: The files from which Transformers loads each part of a checkpoint.
FILES: Final[Mapping[str, Sequence[str]]] = {
    "configuration": ("config.json",),
    "weights": ("model*.safetensors*", "pytorch_model*.bin*"),
    "tokenizer": (
        "tokenizer*.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.*",
        "merges.txt",
        "*.model",
    ),
    "image processor": ("preprocessor_config.json", "processor_config.json"),
}
_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def damage_of(source: Source, part: str) -> str | None:
    """Return a sentence about the first damaged file of this part, or None if all can be read."""
    for file in _files(source.folder, FILES.get(part, ())):
        what = _damage(file)
        if what is None:
            continue
        if source.commit is not None and not what.startswith("cannot be read"):
            remedy = f"delete {str(source.folder.parent.parent)!r}, so that it is downloaded again"
        elif what.startswith("cannot be read"):
            remedy = "let the worker's user read it"
        elif "Git LFS" in what:
            remedy = "run `git lfs pull` there"
        else:
            remedy = "copy or save the checkpoint again"
        return f"file {str(file)!r} of model {source.model!r} {what}: {remedy}"
    return None


def _files(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))


def _damage(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            beginning = opened.read(len(_POINTER))
            content = beginning + opened.read() if file.suffix == ".json" else beginning
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not beginning:
        return "is empty"
    if beginning == _POINTER:
        return "is a Git LFS pointer, not the file itself"
    if file.suffix == ".json":
        return _damage_of_json(content)
    if file.suffix == ".safetensors":
        return _damage_of_safetensors(file)
    return None


def _damage_of_json(content: bytes) -> str | None:
    try:
        value = json.loads(content)
    except ValueError as error:  # UnicodeDecodeError is one
        return f"is not JSON ({error})"
    return None if isinstance(value, dict) else "is JSON, but not an object"


def _damage_of_safetensors(file: Path) -> str | None:
    try:
        with safe_open(file, framework="numpy"):
            return None
    except (SafetensorError, OSError) as error:
        return f"is damaged ({error})"
