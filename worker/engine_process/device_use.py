"""Records which images and prompts are on the device, and runs suspects alone there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.isolation import Isolation
from worker.model.interface import Prepared


@dataclass(frozen=True, slots=True)
class ImageInSlot(Prepared):
    """A prepared image in shared memory.

    Attributes:
        is_suspect: whether the image was on the device when an engine died.
        mark: records in shared memory whether the image is on the device now.
    """

    is_suspect: bool
    mark: Callable[[bool], None]


class PromptOfFront(str):
    """A front's prompt, with the attributes ``is_suspect`` and ``mark`` of an `ImageInSlot`."""

    is_suspect: bool
    mark: Callable[[bool], None]


class DeviceUse:
    """Marks the images or prompts of each batch while the batch runs, and runs a batch with a suspect alone.

    So when an engine dies, the marks name everything that was on the device, and a suspect that was there has caused
    the death.
    """

    def __init__(self) -> None:
        self._isolation = Isolation()

    @contextmanager
    def around(self, batch: Sequence[object]) -> Iterator[None]:
        """Return the context in which a thread runs this batch on the device."""
        items = [item for item in batch if isinstance(item, ImageInSlot | PromptOfFront)]
        has_suspect = any(item.is_suspect for item in items)
        with self._isolation.alone("", CancelScope(math.inf)) if has_suspect else self._isolation.together():
            try:
                for item in items:
                    item.mark(True)
                yield
            finally:
                # The marks are cleared before the replies are sent, because the next batch may crash this process.
                for item in items:
                    item.mark(False)
