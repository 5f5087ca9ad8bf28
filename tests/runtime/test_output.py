"""If a log's reader stalls, lines are lost, but no part of the process that logs waits long."""

import os
import pty
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.eventually import eventually
from worker.runtime.output import PATIENCE_S

#: Far longer than the program takes; if it waited for a stalled reader, it would not end in this time.
TIMEOUT_S = 30
LOGS = """
import faulthandler, logging, os, pathlib, sys, time
from worker.runtime import logs
logs.configure("INFO", "human")
began_s = time.monotonic()
for number in range({lines}):
    logging.info("line %05d of many %s", number, "x" * 60)
print("a print", flush=True)
faulthandler.dump_traceback()
pathlib.Path({took!r}).write_text(str(time.monotonic() - began_s))
{rest}
logging.info("the last line")
logging.shutdown()
os._exit(7)
"""


@contextmanager
def logging_to(write: int, took: Path, lines: int = 3_000, rest: str = "") -> "Iterator[subprocess.Popen[bytes]]":
    program = LOGS.format(lines=lines, took=str(took), rest=rest)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=write, stderr=write
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def all_of(read: int) -> str:
    parts = []
    while part := os.read(read, 1 << 16):
        parts.append(part)
    return b"".join(parts).decode()


def test_a_pipe_that_no_process_reads_delays_a_process_only_briefly(tmp_path: Path) -> None:
    read, write = os.pipe()
    took = tmp_path / "took"

    with logging_to(write, took, rest="sys.stdin.readline()") as process:
        eventually(lambda: took.exists() and took.read_text())
        assert float(took.read_text()) < PATIENCE_S + 3
        assert os.get_blocking(write), "the process made the pipe non-blocking for its other writers"
        os.close(write)
        begun = os.read(read, 1 << 16).decode()
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(TIMEOUT_S) == 7
    log = begun + all_of(read)
    os.close(read)

    first, *_, lost, last = log.splitlines()
    assert "line 00000 of many" in first
    assert lost.endswith("lines of this log are lost: standard error could not be written")
    assert last.endswith("the last line")


def test_a_reader_that_keeps_up_gets_every_line_in_order_up_to_the_exit(tmp_path: Path) -> None:
    read, write = os.pipe()
    with logging_to(write, tmp_path / "took", lines=20_000) as process:
        os.close(write)
        log = all_of(read).splitlines()
        assert process.wait(TIMEOUT_S) == 7
    os.close(read)

    assert [line.split()[4] for line in log if "of many" in line] == [f"{number:05}" for number in range(20_000)]
    assert "a print" in log
    assert log[-1].endswith("the last line")


def test_a_suspended_terminal_delays_a_process_only_briefly(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    termios.tcflow(terminal, termios.TCOOFF)
    with logging_to(terminal, tmp_path / "took") as process:
        assert process.wait(TIMEOUT_S) == 7
    os.close(terminal)
    os.close(main)


def test_a_socket_that_no_process_reads_delays_a_process_only_briefly(tmp_path: Path) -> None:
    read, write = socket.socketpair()
    with read, write, logging_to(write.fileno(), tmp_path / "took", lines=10_000) as process:
        assert process.wait(TIMEOUT_S) == 7
        assert b"line 00000 of many" in read.recv(1 << 16)


@pytest.mark.parametrize("path", ["/dev/full", "/dev/null"])
def test_a_process_goes_on_if_its_log_is_full_or_discarded(path: str, tmp_path: Path) -> None:
    with Path(path).open("wb") as full, logging_to(full.fileno(), tmp_path / "took") as process:
        assert process.wait(TIMEOUT_S) == 7
