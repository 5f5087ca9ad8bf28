"""What an error keeps alive: each frame it came through, and all that the frame's variables and closures name."""

from __future__ import annotations

from traceback import clear_frames

from worker.runtime.logs import place_of


def release_memory(error: BaseException) -> None:
    """Take the traceback of an error, of its causes and of what was being handled meanwhile; `place_of` still knows.

    The outputs of a network's layers are variables of such frames: until its error is forgotten, a batch that failed
    for want of memory has it all.
    """
    seen = set[int]()
    errors: list[BaseException | None] = [error]
    while errors:
        if (one := errors.pop()) is None or id(one) in seen:
            continue
        seen.add(id(one))
        if one.__traceback__ is not None:
            one.add_note(place_of(one))
            clear_frames(one.__traceback__)  # where frames and errors refer to each other, only a collector would
            one.__traceback__ = None
        errors += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            errors += one.exceptions
