"""Facts about other processes, which tell nobody when they become true."""

import time
from collections.abc import Callable

#: Longer than anything here takes, on a busy machine too.
TIMEOUT_S = 60.0


def eventually(fact: Callable[[], object], said: Callable[[], str] = str) -> None:
    """Return once the fact holds.

    Args:
        fact: looked at a hundred times a second.
        said: for the failure, a log for example.
    """
    deadline_s = time.monotonic() + TIMEOUT_S
    while not fact():
        assert time.monotonic() < deadline_s, said() or "it never came true"
        time.sleep(0.01)
