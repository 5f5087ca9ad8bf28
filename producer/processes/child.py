"""Start and stop a child process that ends when this process ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Required, TypedDict, Unpack

_LEASH = Path(__file__).with_name("leash.py")
#: Only this much of a log's end is searched for its last line; the whole log may have gigabytes.
_LOG_TAIL_BYTES = 8192


class LeashedProcess:
    """A command that cannot outlive this process.

    Start it from the main thread: on Linux the kernel sends the death signal when the thread that started it ends.

    Args:
        command: the program, as an absolute path, and its arguments.
        folder: the command's working directory.
        environment: the command's whole environment.
        death_signal: the signal that the command receives if this process ends first (Linux; SIGKILL elsewhere).
        inherit: file descriptors that the command keeps open.
        output: a file descriptor for the command's standard output and error; None for this process's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        death_signal: signal.Signals = signal.SIGKILL,
        inherit: Sequence[int] = (),
        output: int | None = None,
    ) -> None:
        leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(int(death_signal)), str(folder)]
        # The child inherits the mask, so that SIGUSR1 cannot end it before the leash ignores the signal.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                [*leash, "--", *command],
                # Without PR_SET_PDEATHSIG, the child detects that this process has ended when this pipe closes.
                stdin=subprocess.DEVNULL if sys.platform == "linux" else subprocess.PIPE,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                env=dict(environment),
                # Ctrl-C does not reach a child in another session, so that this process stops its children in order.
                start_new_session=True,
                pass_fds=tuple(inherit),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Return whether the command is still running."""
        return self._process.poll() is None

    def status(self) -> int | None:
        """Return the exit status, or minus the number of the signal that ended the command; None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command, unless it has ended."""
        self._process.send_signal(number)

    def describe_exit(self) -> str:
        """Return how the command ended, as a predicate from `how_it_ended`."""
        status = self._process.poll()
        return "is running" if status is None else how_it_ended(status)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the command has ended; return False if the time runs out first."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace_s: float) -> None:
        """Send SIGTERM, wait up to ``grace_s``, and kill the whole process group; with a grace of 0, only kill it."""
        try:
            if grace_s > 0 and self.is_running():
                self._process.terminate()
                self.wait(grace_s)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()


class Surroundings(TypedDict, total=False):
    """Arguments of `LeashedProcess` that `ChildProcess` passes on."""

    folder: Required[Path]
    environment: Required[Mapping[str, str]]
    death_signal: signal.Signals
    inherit: Sequence[int]


class ChildProcess(LeashedProcess):
    """A `LeashedProcess` that writes to its own log.

    Args:
        log: the file for the command's standard output and error; earlier content is dropped.

    The other arguments are those of `LeashedProcess`.
    """

    def __init__(self, command: Sequence[str], *, log: Path, **surroundings: Unpack[Surroundings]) -> None:
        self.log = log
        log.touch(mode=0o600)
        os.truncate(log, 0)
        # The child appends, so that this process can truncate the file while the child writes to it.
        with log.open("ab") as output:
            super().__init__(command, output=output.fileno(), **surroundings)

    def last_log_line(self) -> str:
        """Return the last non-blank line of the log, or an empty string."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def how_it_ended(status: int) -> str:
    """Return a predicate for a status as `subprocess` returns it, such as ``was killed by SIGKILL``."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
