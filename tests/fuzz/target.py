"""What is fuzzed: bytes are turned into a case, and what must hold for every case is asserted."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """One thing to fuzz; each module of `tests.fuzz.targets` has one, called ``TARGET``.

    Attributes:
        run: judges one case; raises whatever it likes when the case is a finding, returns False when the bytes are no
            case at all.
        seeds: the bytes to begin with.
        max_bytes: the longest input worth trying.
    """

    run: Callable[[bytes], bool]
    seeds: Callable[[], list[bytes]]
    max_bytes: int = 4_096


def of_hypothesis(test: Any, max_bytes: int = 4_096) -> Target:
    """A ``@given`` test as a target: Hypothesis makes its arguments from the bytes."""
    fuzz_one_input = test.hypothesis.fuzz_one_input
    return Target(lambda data: fuzz_one_input(data) is not None, lambda: random_bytes(max_bytes), max_bytes)


def random_bytes(max_bytes: int) -> list[bytes]:
    """Seeds for a target whose bytes are choices and no format: many, as mutation keeps most of the first choices."""
    source = random.Random(1)
    return [source.randbytes(max_bytes >> source.randrange(6)) for _ in range(500)]
