"""Ctrl-C ends a command even if it arrives where Python cannot raise an exception."""

import subprocess
import sys

import pytest

from tests.cli.command import TIMEOUT_S

INTERRUPTED_IN_A_DESTRUCTOR = """
import signal, sys, threading
from producer.cli.interrupts import never_lose_an_interrupt

class Parser:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

if sys.argv[1] == "with":
    never_lose_an_interrupt()
try:
    parser = Parser()
    del parser
    threading.Event().wait(float(sys.argv[2]))
    print("waited in vain")
except KeyboardInterrupt:
    print("interrupted")
"""

LOSES_ANOTHER_EXCEPTION = """
from producer.cli.interrupts import never_lose_an_interrupt
class Parser:
    def __del__(self):
        raise ValueError("a mistake of ours")
never_lose_an_interrupt()
parser = Parser()
del parser
"""

INTERRUPTED_WHILE_LOADING = """
import signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from producer.cli import main
main(["--help"])
"""


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )


@pytest.mark.parametrize(
    ("hook", "seconds", "end"), [("without", "0.1", "waited in vain"), ("with", "60", "interrupted")]
)
def test_an_interrupt_that_python_lost_in_a_destructor_is_raised_again(hook: str, seconds: str, end: str) -> None:
    assert run(INTERRUPTED_IN_A_DESTRUCTOR, hook, seconds).stdout == f"{end}\n"


def test_other_exceptions_lost_in_destructors_are_printed_as_usual() -> None:
    assert "ValueError: a mistake of ours" in run(LOSES_ANOTHER_EXCEPTION).stderr


@pytest.mark.parametrize(
    "module",
    [
        "producer.cli.interrupts",
        "typing",
        "contextlib",
        "producer.errors",
        "producer.contract",
        "typer",
        "producer.cli.app",
    ],
)
def test_ctrl_c_ends_a_command_quietly_while_it_is_still_loading(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_LOADING, module], capture_output=True, text=True, timeout=TIMEOUT_S
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
