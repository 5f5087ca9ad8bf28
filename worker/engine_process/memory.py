"""The pixels in flight: shared memory of one front and its engine, in slots of one image each.

The engine makes it and seals its size, so that no front can cut it short and end the engine by its next read; both map
it. A slot is the front's until it sends an image in it, and again once that image is answered. Before the slots stands
a byte for each of them, which the engine sets when the image is in a batch that runs: should the engine die then, the
front can tell what was on the device from what only waited.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.engine_process.frames import ProtocolError, from_json

#: Prompts have no slots: of those so many numbers apart, two share a mark. A front has no more in hand
#: (`worker.engine_process.guest.MAX_UNANSWERED`), and who shares one could only be suspected wrongly, never cleared.
PROMPT_MARKS: Final = 65_536
#: Of arrays in a slot: a cache line, which is enough for any number.
_ALIGNMENT: Final = 64
_MAX_AXES: Final = 8
#: That are remembered: most models have one.
_LAYOUTS: Final = 1024
_MAX_ARRAYS: Final = 16
#: Numbers and truth values: a NumPy array of objects would be pointers.
_KINDS: Final = "buif"


@dataclass(frozen=True, slots=True)
class ArrayPlace:
    """Where an array lies in a slot."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How one image's arrays lie in a slot."""

    places: tuple[ArrayPlace, ...]
    size_bytes: int

    @property
    def kinds(self) -> tuple[tuple[str, str, int], ...]:
        """Name, dtype and number of axes of each array: what images of one model have in common."""
        return tuple((place.name, place.dtype.str, len(place.shape)) for place in self.places)


def described(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays' names, dtypes and shapes, as `layout` reads them."""
    return json.dumps([[name, array.dtype.str, array.shape] for name, array in arrays.items()]).encode()


@lru_cache(_LAYOUTS)
def layout(description: bytes) -> Layout:
    """Where arrays of this description lie; raises `ProtocolError`."""
    places, offset = [], 0
    for name, dtype, shape in _checked(from_json(description)):
        places.append(ArrayPlace(name, dtype, shape, offset))
        offset += -(-dtype.itemsize * math.prod(shape) // _ALIGNMENT) * _ALIGNMENT
    return Layout(tuple(places), offset)


def _checked(said: Any) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    try:
        rows = [(str(name), np.dtype(str(dtype)), tuple(shape)) for name, dtype, shape in said]
    except (TypeError, ValueError, SyntaxError):  # NumPy reads some of them with Python's own parser
        raise ProtocolError("arrays that are described as nothing known") from None
    if not 0 < len(rows) <= _MAX_ARRAYS or len({name for name, _, _ in rows}) < len(rows):
        raise ProtocolError("no arrays, too many or of the same name")
    for _, dtype, shape in rows:
        if dtype.kind not in _KINDS or dtype.shape or len(shape) > _MAX_AXES:
            raise ProtocolError("an array of an impossible kind")
        if not all(type(length) is int and 0 < length < 2**31 for length in shape):
            raise ProtocolError("an array of an impossible shape")
    return rows


class SlotMemory:
    """A mapping of the shared memory; it is given back when the last array that lies in it is gone.

    Args:
        descriptor: of the memory; not kept.
    """

    def __init__(self, descriptor: int, slots: int, slot_bytes: int) -> None:
        self.slots, self.slot_bytes = slots, slot_bytes
        self._mapping = mmap.mmap(descriptor, _size_bytes(slots, slot_bytes))

    def write(self, slot: int, places: Layout, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Copy arrays into a slot, whose mark is taken away."""
        self._mapping[slot] = 0
        for place in places.places:
            self._view(slot, place)[...] = arrays[place.name]

    def read(self, slot: int, places: Layout) -> dict[str, NDArray[Any]]:
        """The arrays of a slot where they lie, read-only."""
        arrays = {place.name: self._view(slot, place) for place in places.places}
        for array in arrays.values():
            array.setflags(write=False)
        return arrays

    def mark(self, slot: int, runs: bool) -> None:
        """Say whether its image is in a batch that runs."""
        self._mapping[slot] = runs

    def is_marked(self, slot: int) -> bool:
        """Whether its image is in a batch, or was when the engine died."""
        return bool(self._mapping[slot])

    def mark_prompt(self, number: int, runs: bool) -> None:
        """The same of the prompt with this number."""
        self._mapping[self.slots + number % PROMPT_MARKS] = runs

    def is_prompt_marked(self, number: int) -> bool:
        """The same."""
        return bool(self._mapping[self.slots + number % PROMPT_MARKS])

    def _view(self, slot: int, place: ArrayPlace) -> NDArray[Any]:
        start = _marks_bytes(self.slots) + slot * _paged(self.slot_bytes)
        return np.ndarray(place.shape, place.dtype, self._mapping, start + place.offset)


def new_memory(slots: int, slot_bytes: int) -> int:
    """The descriptor of zeros that nobody can resize; pages that are never written to take no memory."""
    descriptor = os.memfd_create("nameshot-images", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _size_bytes(slots, slot_bytes))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def _size_bytes(slots: int, slot_bytes: int) -> int:
    return _marks_bytes(slots) + slots * _paged(slot_bytes)


def _marks_bytes(slots: int) -> int:
    return _paged(slots + PROMPT_MARKS)


def _paged(size_bytes: int) -> int:
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
