"""Keeps Python's garbage collector from scanning objects that live forever."""

from __future__ import annotations

import gc


def freeze_garbage() -> None:
    """Exclude all objects that exist now from collection; call it once, when everything is loaded.

    A model's libraries are some 400,000 objects, which each full collection would scan: 0.2 s with the GIL held, which
    stalls every running job, each time that about a hundred jobs of a thousand labels have been answered.
    """
    gc.collect()
    gc.freeze()
