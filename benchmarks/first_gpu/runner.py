"""Runs a step in its own process, with a time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.first_gpu.notes import read_notes

#: This many last characters of a failed step's output are kept, which include the end of a traceback.
KEPT: Final = 2_000
#: The processes of a step have this long to end after they are killed: the next step needs the device to itself.
LEAVING_S: Final = 5.0


def run_step(command: Sequence[str], folder: Path, limit_s: float) -> dict[str, Any]:
    """Run a step; return how it ended, and its findings so far.

    Args:
        command: the step's command, which gets the path for its findings as its last argument.
        folder: the step's own folder for findings and output.
        limit_s: after this time, the step and all processes of its group are killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notes, output = folder / "notes.json", folder / "output.txt"
    notes.unlink(missing_ok=True)
    started_s = time.monotonic()
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*command, str(notes)], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            status = process.wait(limit_s)
            ended = "done" if status == 0 else f"failed with status {status}"
        except subprocess.TimeoutExpired:
            ended = f"cut off after {limit_s:.0f} s"
        finally:
            _end_group(process)
    result: dict[str, Any] = {"ended": ended, "seconds": round(time.monotonic() - started_s, 1), **read_notes(notes)}
    if ended != "done":
        result["output"] = output.read_text(errors="replace")[-KEPT:]
    return result


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the step and all processes of its group, and wait for them; the group's id is the step's process id."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline_s = time.monotonic() + LEAVING_S
    while time.monotonic() < deadline_s:
        try:
            os.killpg(process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.05)
