"""What runs on the device beside what, and who is to blame should this process die meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from worker.model.interface import Prepared


@dataclass(frozen=True, slots=True)
class ImageInSlot(Prepared):
    """One that lies in shared memory.

    Attributes:
        is_suspect: it was on the device when an engine died.
        mark: says in that memory whether it is on the device now.
    """

    is_suspect: bool
    mark: Callable[[bool], None]


class PromptOfFront(str):
    """A prompt, and as `ImageInSlot` has it."""

    is_suspect: bool
    mark: Callable[[bool], None]

    @classmethod
    def made(cls, text: str, is_suspect: bool, mark: Callable[[bool], None]) -> PromptOfFront:
        """One of a front's."""
        prompt = cls(text)
        prompt.is_suspect, prompt.mark = is_suspect, mark
        return prompt


class DeviceUse:
    """Around each batch of the device's threads: marks its images or prompts, and lets no other run beside a suspect.

    So of what was on the device when an engine died nothing is left out, and the second death of a suspect is its own.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._suspects = 0

    @contextmanager
    def around(self, batch: Sequence[object]) -> Iterator[None]:
        """While it lasts, the batch is on the device; enter it in the thread that runs it."""
        riders = [rider for rider in batch if isinstance(rider, ImageInSlot | PromptOfFront)]
        is_suspect = any(rider.is_suspect for rider in riders)
        self._begin(is_suspect)
        try:
            for rider in riders:
                rider.mark(True)
            yield
        finally:
            # Before their answers are sent: the next batch may be what ends this process.
            for rider in riders:
                rider.mark(False)
            self._end(is_suspect)

    def _begin(self, is_suspect: bool) -> None:
        with self._changed:
            if is_suspect:
                self._suspects += 1  # from now on no other begins
                self._changed.wait_for(lambda: not self._running)
            else:
                self._changed.wait_for(lambda: not self._suspects)
            self._running += 1

    def _end(self, is_suspect: bool) -> None:
        with self._changed:
            self._running -= 1
            self._suspects -= is_suspect
            self._changed.notify_all()
