"""Ctrl-C is never lost.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. In a destructor or a weak reference's
callback (redis-py's parser has a destructor) nobody can catch it: it is printed and forgotten, and the command goes
on waiting. Such an exception is raised once more, a moment later.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

#: Long enough for the destructor to be over, too short to be noticed.
_AGAIN_AFTER_S: Final = 0.02


def never_lose_an_interrupt() -> None:
    """Raise interrupts again that nobody could catch; every other lost exception is printed as ever."""
    sys.unraisablehook = _hook


def _hook(lost: UnraisableHookArgs) -> None:
    interrupt = lost.exc_value
    if not isinstance(interrupt, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return

    def raise_again(_number: int, _frame: FrameType | None) -> None:
        raise interrupt

    signal.signal(signal.SIGALRM, raise_again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_AFTER_S)
