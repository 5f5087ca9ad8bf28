"""A pseudoterminal that answers queries as a real terminal does, and records what it is sent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence

from tests.cli.command import Home

#: The query for a terminal's primary attributes.
QUESTION = b"\x1b[c"
#: Runs a command whose controlling terminal is the standard input, as a login does.
LOGIN = (
    "import fcntl, os, sys, termios; "
    "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
#: Variables that may come from the tests' own terminal or CI, and that the command must not inherit.
OF_THE_TESTS = ("CI", "TMUX", "TERM_PROGRAM", "LC_TERMINAL", "NO_COLOR", "FORCE_COLOR", "COLUMNS")
#: A colour's number and definition, a repetition, six pixels, or a move to the left edge or to the next band.
SIXEL_ITEM = re.compile(r"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)([?-~])|([?-~])|([$-])")
TIMEOUT_S = 60.0


def on_a_terminal(
    home: Home,
    command: Sequence[object],
    environment: Mapping[str, str],
    *,
    attributes: bytes | None = None,
    typed: bytes = b"",
) -> tuple[int, bytes]:
    """Run a command on a terminal of 100 × 30 cells, each of 10 × 20 pixels.

    Args:
        environment: Further variables, such as those that the terminal sets.
        attributes: The terminal's answer to the `QUESTION`; with None it never answers.
        typed: What the user types before the command runs.
    """
    inherited = {name: value for name, value in home.environment.items() if name not in OF_THE_TESTS}
    with _pty() as (person, terminal):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 1000, 600))
        os.write(person, typed)
        process = subprocess.Popen(
            [sys.executable, "-c", LOGIN, *map(str, command)],
            env={**inherited, **environment},
            cwd=home.folder,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        shown, deadline = b"", time.monotonic() + TIMEOUT_S
        while True:
            ended = process.poll() is not None
            while select.select([person], [], [], 0.02)[0]:
                shown += os.read(person, 65536)
                if attributes is not None and QUESTION in shown:
                    os.write(person, attributes)
                    attributes = None
            if ended:
                return process.returncode, shown
            assert time.monotonic() < deadline, shown


@contextlib.contextmanager
def _pty() -> Iterator[tuple[int, int]]:
    person, terminal = pty.openpty()
    try:
        yield person, terminal
    finally:
        os.close(person)
        os.close(terminal)


def sixel_pixels(drawing: str) -> Mapping[tuple[int, int], tuple[int, ...]]:
    """Decode a sixel image as a VT340 would; return the percentages of red, green and blue of each pixel by x and y."""
    header = re.match(r'\x1bP0;1q"1;1;(\d+);(\d+)', drawing)
    assert header
    assert drawing.endswith("\x1b\\")
    colours: dict[int, tuple[int, ...]] = {}
    pixels: dict[tuple[int, int], tuple[int, ...]] = {}
    x = top = colour = 0
    for found in SIXEL_ITEM.finditer(drawing[header.end() : -2]):
        number, *shares, repeated, bits, single, move = found.groups()
        if number is not None:
            colour = int(number)
            if shares[0] is not None:
                colours[colour] = tuple(map(int, shares))
        elif move is not None:
            x, top = 0, top + 6 * (move == "-")
        else:
            width = int(repeated or 1)
            for bit in range(6):
                if (ord(bits or single) - 63) >> bit & 1:
                    pixels.update({(column, top + bit): colours[colour] for column in range(x, x + width)})
            x += width
    assert {x for x, _ in pixels} == set(range(int(header[1])))
    assert {y for _, y in pixels} == set(range(int(header[2])))
    return pixels
