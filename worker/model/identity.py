"""A digest of what a picture's embedding depends on besides the picture: checkpoint, dtype, preparation of pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from worker.model.interface import HostModel, ModelLoadError

#: Embeddings depend on the versions of these packages, which decode files and prepare pixels.
_PREPARE: Final = ("pillow", "transformers")


def identity(model: HostModel, checkpoint: str, *, reducing_gap: float | None) -> str:
    """Return 32 hexadecimal digits that identify the checkpoint's contents, its dtype and the preparation of pixels.

    All files of a folder are read (about a second per gigabyte), because the folder's name does not identify its
    weights; a Hub checkpoint's commit does. The device is left out: with the same dtype, embeddings differ slightly
    between devices, but scores do not differ noticeably.

    Args:
        checkpoint: the Hub id or folder from which the model was loaded.
        reducing_gap: see `worker.model.geometry.Geometry`.

    Raises:
        ModelLoadError: a file of the folder cannot be read.
    """
    try:
        weights = f"{model.name}@{model.revision}" if model.revision else list(_files(Path(checkpoint).expanduser()))
    except OSError as error:
        raise ModelLoadError(
            f"a file of {model.name!r} cannot be read, but a shared cache needs its digest ({error.strerror}): set "
            "NAMESHOT_SHARED_CACHE_BYTES to 0, or let this user read all files of the folder"
        ) from None
    facts = [weights, model.dtype, reducing_gap, [version(name) for name in _PREPARE]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and digest of each file in a folder."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                yield path.name, hashlib.file_digest(file, "sha256").hexdigest()
