"""Frees the memory to which the frames of an error's traceback refer."""

from __future__ import annotations

from traceback import clear_frames

from worker.runtime.logs import place_of


def release_memory(error: BaseException) -> None:
    """Remove the tracebacks of an error, its causes and its contexts; a note keeps the file and line for `place_of`.

    The frames of a failed forward pass refer to the layers' outputs, so the device memory stays taken as long as the
    error exists.
    """
    seen = set[int]()
    errors: list[BaseException | None] = [error]
    while errors:
        if (one := errors.pop()) is None or id(one) in seen:
            continue
        seen.add(id(one))
        if one.__traceback__ is not None:
            one.add_note(place_of(one))
            clear_frames(one.__traceback__)  # without this, cycles of frames and errors might keep the memory
            one.__traceback__ = None
        errors += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            errors += one.exceptions
