"""Starts Python programs as forks of one process that has already imported what workers need.

Most of a worker's start is imports: a second with a null model, four with PyTorch. Workers of tests that are not about
the start itself are therefore forks, which are otherwise the same: their own environment, arguments and files.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

#: Nothing happens when these are imported, so a fork is as good as a new process.
PRELOADED = ("torch", "transformers.models.clip", "celery.bin.celery", "celery.apps.worker", "worker.lifecycle")


class Process(Protocol):
    """What `Fork` and `subprocess.Popen` have in common."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Fork:
    """``python -m …`` in a fork, with the methods of `subprocess.Popen`.

    Args:
        command: the interpreter, which is not used, ``-m``, the module and its arguments.
        log: the file that standard output and standard error are appended to.
    """

    def __init__(self, command: tuple[str, ...], *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
        log.touch()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        self._process = context.Process(target=_run, args=(command[2:], str(cwd), dict(env), str(log)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once there is one."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked worker", timeout or 0)
        return self.returncode

    def send_signal(self, sig: int, /) -> None:
        """Send a signal unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _run(arguments: tuple[str, ...], cwd: str, env: dict[str, str], log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [*arguments]
    sys.path[:1] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends a fork without them
