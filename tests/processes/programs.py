"""Functions that run small programs as processes of their own, for the tests of this folder."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

TIMEOUT_S = 30.0
REPOSITORY = Path(__file__).resolve().parents[2]


def run_python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Start a Python program that can import the repository's packages, with its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )


def numbers_of(program: "subprocess.Popen[str]") -> list[int]:
    """Return the numbers of the JSON list that a program prints first."""
    assert program.stdout is not None
    numbers: list[int] = json.loads(program.stdout.readline())
    return numbers


def kill(program: "subprocess.Popen[str]") -> None:
    """Kill a program, and close this end of its output."""
    program.send_signal(signal.SIGKILL)
    program.wait(TIMEOUT_S)
    assert program.stdout is not None
    program.stdout.close()


def is_running(pid: int) -> bool:
    """Return whether this process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until_gone(*pids: int) -> None:
    """Return once none of these processes runs; fail if one still runs after `TIMEOUT_S`."""
    deadline = time.monotonic() + TIMEOUT_S
    while running := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.02)
