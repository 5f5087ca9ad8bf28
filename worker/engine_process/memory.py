"""Shared memory of one front and its engine for the pixels in flight, in slots of one image each.

The engine creates it and seals its size, so that no front can shrink it and crash the engine at its next read; both map
it. A slot belongs to the front until it sends an image in it, and again once that image is answered. Before the slots
there is a byte, or mark, for each of them, which the engine sets while the image is in a running batch: if the engine
dies then, the front can tell images that were on the device from those that only waited.
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

#: Prompts have no slots; their marks are indexed by the request's number modulo this. A front has no more requests in
#: flight (`front_connection.MAX_UNANSWERED`), and sharing a mark could only make a prompt a false suspect.
PROMPT_MARKS: Final = 65_536
#: Arrays start on a cache line, which suits every dtype.
_ALIGNMENT: Final = 64
_MAX_AXES: Final = 8
#: This many layouts are cached; most models have one.
_LAYOUTS: Final = 1024
_MAX_ARRAYS: Final = 16
#: Only booleans, integers and floats are accepted: an array of Python objects would hold pointers.
_KINDS: Final = "buif"


@dataclass(frozen=True, slots=True)
class ArrayPlace:
    """The position of an array within a slot."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The positions of one image's arrays within a slot."""

    places: tuple[ArrayPlace, ...]
    size_bytes: int

    @property
    def kinds(self) -> tuple[tuple[str, str, int], ...]:
        """Name, dtype and number of axes of each array; they are the same for all images of a model."""
        return tuple((place.name, place.dtype.str, len(place.shape)) for place in self.places)


def described(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Describe arrays by name, dtype and shape, as JSON for `layout`."""
    return json.dumps([[name, array.dtype.str, array.shape] for name, array in arrays.items()]).encode()


@lru_cache(_LAYOUTS)
def layout(description: bytes) -> Layout:
    """Compute where arrays of this description lie; raises `ProtocolError`."""
    places, offset = [], 0
    for name, dtype, shape in _checked(from_json(description)):
        places.append(ArrayPlace(name, dtype, shape, offset))
        offset += -(-dtype.itemsize * math.prod(shape) // _ALIGNMENT) * _ALIGNMENT
    return Layout(tuple(places), offset)


def _checked(value: Any) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    try:
        rows = [(str(name), np.dtype(str(dtype)), tuple(shape)) for name, dtype, shape in value]
    except (TypeError, ValueError, SyntaxError):  # NumPy parses some dtypes with Python's own parser
        raise ProtocolError("a malformed description of arrays") from None
    if not 0 < len(rows) <= _MAX_ARRAYS or len({name for name, _, _ in rows}) < len(rows):
        raise ProtocolError("no arrays, too many, or two with the same name")
    for _, dtype, shape in rows:
        if dtype.kind not in _KINDS or dtype.shape or len(shape) > _MAX_AXES:
            raise ProtocolError("an array of an impossible kind")
        if not all(type(length) is int and 0 < length < 2**31 for length in shape):
            raise ProtocolError("an array of an impossible shape")
    return rows


class SlotMemory:
    """A mapping of the shared memory; it is unmapped when the last array in it is gone.

    Args:
        descriptor: the memory's; the caller may close it afterwards.
    """

    def __init__(self, descriptor: int, slots: int, slot_bytes: int) -> None:
        self.slots, self.slot_bytes = slots, slot_bytes
        self._mapping = mmap.mmap(descriptor, _size_bytes(slots, slot_bytes))

    def write(self, slot: int, places: Layout, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Clear a slot's mark and copy arrays into the slot."""
        self._mapping[slot] = 0
        for place in places.places:
            self._view(slot, place)[...] = arrays[place.name]

    def read(self, slot: int, places: Layout) -> dict[str, NDArray[Any]]:
        """Return a slot's arrays as read-only views."""
        arrays = {place.name: self._view(slot, place) for place in places.places}
        for array in arrays.values():
            array.setflags(write=False)
        return arrays

    def mark(self, place: int, runs: bool) -> None:
        """Record whether the image in this slot, or the prompt with this `prompt_mark`, is in a running batch."""
        self._mapping[place] = runs

    def is_marked(self, place: int) -> bool:
        """Whether that image or prompt is in a running batch, or was when the engine died."""
        return bool(self._mapping[place])

    def prompt_mark(self, number: int) -> int:
        """Return the place of the mark of the prompt with this number."""
        return self.slots + number % PROMPT_MARKS

    def _view(self, slot: int, place: ArrayPlace) -> NDArray[Any]:
        start = _marks_bytes(self.slots) + slot * _paged(self.slot_bytes)
        return np.ndarray(place.shape, place.dtype, self._mapping, start + place.offset)


def new_memory(slots: int, slot_bytes: int) -> int:
    """Create zeroed memory of a sealed size and return its descriptor; untouched pages take no memory."""
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
