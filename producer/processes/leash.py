"""Run a command that ends when its parent ends, however the parent ends.

Run this file as a script, with the standard library only: ``python -I -S leash.py PARENT SIGNAL FOLDER -- COMMAND…``.

On Linux the kernel ends the command: this script sets ``PR_SET_PDEATHSIG``, which survives exec, and replaces itself
with the command. The parent does not set it in a ``preexec_fn``, which may deadlock in a program with threads. The
kernel sends the signal when the *thread* that started this process ends, so start it from the main thread. A stopped
process acts on SIGKILL at once, but on any other death signal only if it called `continue_when_parent_ends`.

Elsewhere this script runs the command as its child and watches its standard input, a pipe that only the parent holds
open: end of file means that the parent has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2  # from <linux/prctl.h>
#: The exit status with which shells report a command that cannot be run.
CANNOT_RUN = 127


def main(arguments: list[str]) -> int:
    """Replace this process with the command; or, without the kernel's help, run it and return its exit status."""
    parent, death_signal, folder = int(arguments[0]), int(arguments[1]), arguments[2]
    command = arguments[arguments.index("--") + 1 :]
    # On SIGUSR1, workers print their threads' stacks. The signal may arrive before a worker has installed its handler,
    # so this script makes the command ignore it until then; the parent has blocked the signal up to here.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    try:
        os.chdir(folder)
        if sys.platform == "linux" and "--watch" not in arguments[: arguments.index("--")]:
            die_with(parent, death_signal)
            os.execv(command[0], command)  # noqa: S606 - the parent chose the command
        return _watch(command)
    except OSError as error:
        print(f"{command[0]} cannot be run: {error.strerror}.", file=sys.stderr)
        return CANNOT_RUN


def die_with(parent: int, death_signal: int) -> None:
    """Have the Linux kernel send this process the signal when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:  # the parent ended before prctl
        raise SystemExit(CANNOT_RUN)


def continue_when_parent_ends() -> None:
    """If this thread has a death signal, have the kernel also send SIGCONT when the parent ends.

    Otherwise a stopped process would not act on its death signal. Each thread has only one death signal, so a second
    thread, which lives as long as this process, gets SIGCONT as its own.
    """
    import ctypes

    if sys.platform != "linux":
        return
    death_signal = ctypes.c_int(0)
    _prctl(_PR_GET_PDEATHSIG, ctypes.byref(death_signal))
    if death_signal.value:
        has_signal = threading.Event()
        threading.Thread(target=_wait_with_sigcont, args=(has_signal,), name="leash", daemon=True).start()
        has_signal.wait()


def _wait_with_sigcont(has_signal: threading.Event) -> None:
    try:
        # Python runs handlers in the main thread, which a signal that this thread receives would not wake.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
    finally:
        has_signal.set()
    threading.Event().wait()


def _prctl(option: int, argument: object) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _watch(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the parent chose the command

    def kill_when_parent_is_gone() -> None:
        while os.read(0, 4096):
            pass
        # This kills the whole group, including this process and the command's own children.
        os.killpg(0, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    threading.Thread(target=kill_when_parent_is_gone, daemon=True).start()
    status = child.wait()
    if status < 0:  # end this process by the same signal, so that the parent sees the cause
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
