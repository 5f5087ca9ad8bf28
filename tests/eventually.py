"""A function that waits until a condition holds, such as one about another process."""

import time
from collections.abc import Callable

#: Longer than any condition takes to hold, even on a busy machine.
TIMEOUT_S = 60.0


def eventually(fact: Callable[[], object], said: Callable[[], str] = str) -> None:
    """Return once the condition holds; fail after `TIMEOUT_S`.

    Args:
        fact: returns whether the condition holds; called about a hundred times a second.
        said: returns the message of the failure, for example a log.
    """
    deadline_s = time.monotonic() + TIMEOUT_S
    while not fact():
        assert time.monotonic() < deadline_s, said() or "it never came true"
        time.sleep(0.01)
