"""Python's garbage collector, and what it need not look at."""

from __future__ import annotations

import gc


def freeze_garbage() -> None:
    """Take all that lives now for lasting; once, when everything is loaded.

    A model's libraries are some 400,000 objects, and each full collection would look at them all: 0.2 s with Python's
    lock held, for every job that runs, and again whenever some hundred jobs of a thousand labels had been answered.
    """
    gc.collect()
    gc.freeze()
