"""On Ctrl-C, SIGTERM or SIGHUP a program cleans up and ends; on a second Ctrl-C it ends at once."""

import contextlib
import signal
import subprocess

import pytest

from tests.processes.programs import TIMEOUT_S, numbers_of, run_python

CLEANS_UP = """
import os, sys, threading
from producer.processes.raised_signals import Stopped, raised_signals
try:
    with raised_signals():
        print("[1]", flush=True)
        threading.Event().wait(60)
except Stopped as stopped:
    print(f"cleaned up after {stopped.signal_number}", flush=True)
"""

SWALLOWS = """
import sys, time
from producer.processes.raised_signals import Stopped, raised_signals
with raised_signals() as signals:
    try:
        print("[1]", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        pass
    try:
        signals.raise_if_stopped()
    except Stopped:
        print("asked again", flush=True)
"""

TAKES_LONG_TO_CLEAN_UP = """
import sys, time
from producer.processes.raised_signals import Stopped, raised_signals
with raised_signals() as signals:
    try:
        print("[1]", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        time.sleep(60)
"""


def output_of(program: "subprocess.Popen[str]") -> str:
    return program.communicate(timeout=TIMEOUT_S)[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_becomes_an_exception_so_that_the_program_cleans_up(number: signal.Signals) -> None:
    program = run_python(CLEANS_UP)
    numbers_of(program)

    program.send_signal(number)

    assert output_of(program) == f"cleaned up after {number.value}\n"
    assert program.returncode == 0


def test_a_stop_exception_that_was_swallowed_can_be_raised_again() -> None:
    program = run_python(SWALLOWS)
    numbers_of(program)

    program.send_signal(signal.SIGINT)

    assert output_of(program) == "asked again\n"


def test_a_second_ctrl_c_ends_a_slow_cleanup() -> None:
    program = run_python(TAKES_LONG_TO_CLEAN_UP)
    numbers_of(program)
    program.send_signal(signal.SIGINT)
    assert program.stdout is not None
    assert program.stdout.readline() == "cleaning\n"

    # One key press may arrive as two signals, so only a later one counts as the second.
    while program.poll() is None:
        program.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(0.1)

    assert program.returncode == 128 + signal.SIGINT
    program.stdout.close()
