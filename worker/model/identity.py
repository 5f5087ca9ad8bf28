"""What two workers must have in common for their embeddings of one picture to be the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from worker.model.interface import HostModel, ModelLoadError

#: What turns a file into pixels, and pixels into what the model takes.
_PREPARE: Final = ("pillow", "transformers")


def identity(model: HostModel, checkpoint: str, *, reducing_gap: float | None) -> str:
    """32 hexadecimal digits that stand for the checkpoint's contents and all else that an embedding depends on.

    A folder is read whole (about a second a gigabyte), since its name says nothing of its weights; a Hub checkpoint's
    commit says all. One dtype is computed a little differently by different devices, which scores do not show.

    Args:
        checkpoint: the Hub id or folder that the model was loaded from.
        reducing_gap: how images are shrunk, as in Pillow.

    Raises:
        ModelLoadError: a file of the folder cannot be read.
    """
    try:
        weights = f"{model.name}@{model.revision}" if model.revision else list(_files(Path(checkpoint).expanduser()))
    except OSError as error:
        raise ModelLoadError(
            f"the files of {model.name!r} cannot be read to share its embeddings ({error.strerror}): set "
            "NAMESHOT_SHARED_CACHE_BYTES to 0, or let this user read all of them"
        ) from None
    facts = [weights, model.dtype, reducing_gap, [version(name) for name in _PREPARE]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """The name and digest of each file."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                yield path.name, hashlib.file_digest(file, "sha256").hexdigest()
