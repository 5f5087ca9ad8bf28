"""A fuzzing target turns bytes into a case and asserts what must hold for every case."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """Code to fuzz; each module of `tests.fuzz.targets` has one target, called ``TARGET``.

    Attributes:
        run: runs one input; raises any exception if the case fails, and returns False if the bytes are no case.
        seeds: returns the first inputs.
        max_bytes: the length of the longest useful input.
    """

    run: Callable[[bytes], bool]
    seeds: Callable[[], list[bytes]]
    max_bytes: int = 4_096


def of_hypothesis(test: Any, max_bytes: int = 4_096) -> Target:
    """Return a ``@given`` test as a target: Hypothesis generates its arguments from the bytes."""
    fuzz_one_input = test.hypothesis.fuzz_one_input
    return Target(lambda data: fuzz_one_input(data) is not None, lambda: random_bytes(max_bytes), max_bytes)


def random_bytes(max_bytes: int) -> list[bytes]:
    """Return seeds for a target whose bytes encode choices: many, because mutation keeps most of the first choices."""
    source = random.Random(1)
    return [source.randbytes(max_bytes >> source.randrange(6)) for _ in range(500)]
