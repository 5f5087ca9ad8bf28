"""Frees the memory that an error keeps alive: its frames, and all that their variables and closures refer to."""

from __future__ import annotations

from traceback import clear_frames

from worker.runtime.logs import place_of


def release_memory(error: BaseException) -> None:
    """Remove the tracebacks of an error, its causes and its contexts; `place_of` still returns the place.

    The outputs of a network's layers are variables of such frames, so a batch that ran out of memory would hold all of
    it as long as its error lives.
    """
    seen = set[int]()
    errors: list[BaseException | None] = [error]
    while errors:
        if (one := errors.pop()) is None or id(one) in seen:
            continue
        seen.add(id(one))
        if one.__traceback__ is not None:
            one.add_note(place_of(one))
            clear_frames(one.__traceback__)  # frames and errors may form cycles, which reference counts never free
            one.__traceback__ = None
        errors += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            errors += one.exceptions
