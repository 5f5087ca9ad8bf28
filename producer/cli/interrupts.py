"""Make sure that Ctrl-C is never lost.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. In a destructor or a weak reference's
callback (redis-py's parser has a destructor) no code can catch it: Python prints it, and the command keeps waiting.
This module raises such an interrupt again a moment later.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

#: Long enough for the destructor to finish, too short for a person to notice.
_AGAIN_AFTER_S: Final = 0.02


def never_lose_an_interrupt() -> None:
    """Install a hook that raises lost interrupts again and prints every other unraisable exception as usual."""
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
