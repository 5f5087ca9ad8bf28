"""Runs a step in a process of its own, for so long and no longer."""

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

#: Characters of a failed step's output that are kept: a traceback's end.
KEPT: Final = 2_000
#: For processes of a step that ended, to leave the device: the next step wants it for itself.
LEAVING_S: Final = 5.0


def run_step(command: Sequence[str], folder: Path, limit_s: float) -> dict[str, Any]:
    """How it ended, and what it had found out by then.

    Args:
        command: gets the path for its notes as its last argument.
        folder: for notes and output; the step's own.
        limit_s: then it is killed, and all that it started in its group.
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
    """End the step and whatever it has left; its session's number is its own."""
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
