"""Find out how the terminal shows pictures.

This module knows some terminals by their names in the environment. The others receive the VT100's query for their
attributes, which every terminal understands. If standard output is not a terminal, the module writes nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import sys
import termios
import time
from typing import Final, Literal

Graphics = Literal["kitty", "iterm", "sixel"]

#: Long enough for a terminal at the other end of a slow connection.
_ANSWER_S: Final = 0.5
#: The usual width and height of a cell in pixels, for a terminal that does not report its own.
_CELL: Final = (10, 20)
_PRIMARY_ATTRIBUTES: Final = b"\x1b[c"
_SIXEL: Final = b"4"


def moves_its_cursor() -> bool:
    """Return whether standard output is a terminal for people, on which a picture can be drawn at all."""
    return sys.stdout.isatty() and "CI" not in os.environ and os.environ.get("TERM", "") not in ("", "dumb")


def graphics() -> Graphics | None:
    """Return the protocol with which standard output shows pictures; None unless it is a terminal with a protocol."""
    environment = os.environ
    term = environment.get("TERM", "")
    if not moves_its_cursor() or term == "linux":
        return None
    # A multiplexer shows only pictures in the protocols that it supports itself, whatever terminal it runs in.
    if "TMUX" not in environment and not term.startswith(("screen", "tmux")):
        if term in ("xterm-kitty", "xterm-ghostty"):
            return "kitty"
        if environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm"
    return "sixel" if _SIXEL in _attributes(sys.stdout.fileno()) else None


def cell_size() -> tuple[int, int]:
    """Return the width and height of a character cell in pixels."""
    try:
        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return _CELL
    rows, columns, width, height = struct.unpack("HHHH", size)
    return (width // columns, height // rows) if columns and rows and width >= columns and height >= rows else _CELL


def _attributes(terminal: int) -> list[bytes]:
    """Return the terminal's primary device attributes; an empty list if it does not reply or cannot be queried."""
    try:
        # The kernel stops a background process that queries its terminal. No reply can be read from a terminal that is
        # open only for writing.
        if os.tcgetpgrp(terminal) != os.getpgrp() or fcntl.fcntl(terminal, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            return []
        before = termios.tcgetattr(terminal)
        silent = [*before]
        silent[3] = before[3] & ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(terminal, termios.TCSANOW, silent)
        try:
            return _ask(terminal)
        finally:
            termios.tcsetattr(terminal, termios.TCSANOW, before)
    except (OSError, termios.error):
        return []


def _ask(terminal: int) -> list[bytes]:
    if select.select([terminal], [], [], 0)[0]:
        return []  # the user has typed ahead, for another program
    os.write(terminal, _PRIMARY_ATTRIBUTES)
    deadline = time.monotonic() + _ANSWER_S
    reply = b""
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (part := os.read(terminal, 1024)):
            break
        reply += part
        if answer := re.search(rb"\x1b\[\?([\d;]*)c", reply):
            return answer[1].split(b";")
    return []
