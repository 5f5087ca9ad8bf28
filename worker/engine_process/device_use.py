"""Records which images and prompts are on the device, and lets suspects run alone there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from worker.model.interface import Prepared


@dataclass(frozen=True, slots=True)
class ImageInSlot(Prepared):
    """A prepared image in shared memory.

    Attributes:
        is_suspect: whether it was on the device when an engine died.
        mark: records in that memory whether it is on the device now.
    """

    is_suspect: bool
    mark: Callable[[bool], None]


class PromptOfFront(str):
    """A front's prompt, with the same attributes as `ImageInSlot`."""

    is_suspect: bool
    mark: Callable[[bool], None]

    @classmethod
    def made(cls, text: str, is_suspect: bool, mark: Callable[[bool], None]) -> PromptOfFront:
        """Create a prompt with these attributes."""
        prompt = cls(text)
        prompt.is_suspect, prompt.mark = is_suspect, mark
        return prompt


class DeviceUse:
    """Wraps each batch: marks its images or prompts, and runs no other batch while one with a suspect runs.

    When an engine dies, the marks therefore name everything that was on the device, and a suspect's second death is its
    own doing.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._suspects = 0

    @contextmanager
    def around(self, batch: Sequence[object]) -> Iterator[None]:
        """Return the context in which a thread runs a batch on the device."""
        items = [item for item in batch if isinstance(item, ImageInSlot | PromptOfFront)]
        is_suspect = any(item.is_suspect for item in items)
        self._begin(is_suspect)
        try:
            for item in items:
                item.mark(True)
            yield
        finally:
            # Cleared before the answers are sent, since the next batch may crash this process.
            for item in items:
                item.mark(False)
            self._end(is_suspect)

    def _begin(self, is_suspect: bool) -> None:
        with self._changed:
            if is_suspect:
                self._suspects += 1  # from now on no other batch begins
                self._changed.wait_for(lambda: not self._running)
            else:
                self._changed.wait_for(lambda: not self._suspects)
            self._running += 1

    def _end(self, is_suspect: bool) -> None:
        with self._changed:
            self._running -= 1
            self._suspects -= is_suspect
            self._changed.notify_all()
