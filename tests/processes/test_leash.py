"""A child process never outlives its parent, however the parent ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from producer.processes import leash
from producer.processes.child import ChildProcess
from tests.eventually import eventually
from tests.processes.programs import TIMEOUT_S, is_running, kill, numbers_of, run_python, wait_until_gone

STARTS_A_SLEEPER = """
import json, os, sys, time
from pathlib import Path
from producer.processes.child import ChildProcess
folder = Path(sys.argv[1])
child = ChildProcess(["/bin/sleep", "600"], folder=folder, log=folder / "log", environment=dict(os.environ))
print(json.dumps([child.pid]), flush=True)
time.sleep(600)
"""

CHILD_THAT_TIDIES_UP = """
import signal, sys, time
from pathlib import Path
from producer.processes.leash import continue_when_parent_ends
def tidy_up(*_):
    Path("tidy").touch()
    sys.exit()
signal.signal(signal.SIGTERM, tidy_up)
continue_when_parent_ends()
Path("started").touch()
time.sleep(600)
"""

STARTS_A_CHILD_THAT_TIDIES_UP = """
import json, os, signal, sys, time
from pathlib import Path
from producer.processes.child import ChildProcess
folder, environment = Path(sys.argv[1]), {**os.environ, "PYTHONPATH": os.getcwd()}
command, log = [sys.executable, "-c", sys.argv[2]], folder / "log"
child = ChildProcess(command, folder=folder, log=log, environment=environment, death_signal=signal.SIGTERM)
print(json.dumps([child.pid]), flush=True)
time.sleep(600)
"""

STARTS_A_WATCHED_FAMILY = """
import json, subprocess, sys, time
command = ["/bin/sh", "-c", "sleep 600 & echo $! ; echo $$ ; wait"]
child = subprocess.Popen(
    [sys.executable, sys.argv[1], "0", "9", "/", "--watch", "--", *command],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
)
print(json.dumps([int(child.stdout.readline()), int(child.stdout.readline()), child.pid]), flush=True)
time.sleep(600)
"""


def sleeper(folder: Path, *command: str) -> ChildProcess:
    return ChildProcess(
        command or ("/bin/sleep", "600"),
        folder=folder,
        log=folder / "log",
        environment={"PATH": os.defpath},
    )


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    starter = run_python(STARTS_A_SLEEPER, tmp_path)
    (child,) = numbers_of(starter)
    assert is_running(child)

    kill(starter)

    wait_until_gone(child)


def test_a_child_stopped_by_sigstop_is_continued_to_receive_its_death_signal_when_its_parent_is_killed(
    tmp_path: Path,
) -> None:
    starter = run_python(STARTS_A_CHILD_THAT_TIDIES_UP, tmp_path, CHILD_THAT_TIDIES_UP)
    (child,) = numbers_of(starter)
    eventually((tmp_path / "started").exists)
    os.kill(child, signal.SIGSTOP)

    kill(starter)

    wait_until_gone(child)
    assert (tmp_path / "tidy").exists()


def test_on_a_kernel_without_death_signals_a_watcher_ends_the_child_and_its_children() -> None:
    """On systems other than Linux, the watcher learns from the end of a pipe that the parent is gone."""
    starter = run_python(STARTS_A_WATCHED_FAMILY, leash.__file__)
    family = numbers_of(starter)
    assert all(is_running(pid) for pid in family)

    kill(starter)

    wait_until_gone(*family)


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_a_watcher_ends_with_the_status_or_signal_of_its_command(script: str, status: int) -> None:
    command = [sys.executable, leash.__file__, "0", "9", "/", "--watch", "--", "/bin/sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        assert watcher.wait(TIMEOUT_S) == status


def test_a_child_whose_parent_is_already_gone_does_not_start(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    no_process = 2**22 + 1  # above Linux's largest process id
    command = [sys.executable, leash.__file__, str(no_process), "9", "/", "--", "/bin/touch", str(witness)]

    assert subprocess.run(command, check=False, timeout=TIMEOUT_S).returncode == leash.CANNOT_RUN

    assert not witness.exists()


def test_the_log_says_why_a_command_cannot_be_run(tmp_path: Path) -> None:
    child = sleeper(tmp_path, "/nowhere/valkey-server")

    assert child.wait(TIMEOUT_S)

    assert child.describe_exit() == "ended with status 127"
    assert child.last_log_line() == "/nowhere/valkey-server cannot be run: No such file or directory."


def test_stopping_kills_a_child_that_is_still_running_after_its_grace_period(tmp_path: Path) -> None:
    child = sleeper(tmp_path, "/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    while child.last_log_line() != "deaf":
        assert child.is_running()

    child.stop(grace_s=0.2)

    assert child.describe_exit() == "was killed by SIGKILL"


def test_stopping_a_child_ends_its_children_too(tmp_path: Path) -> None:
    child = sleeper(tmp_path, "/bin/sh", "-c", "sleep 600 & echo $!; wait")
    while not (grandchild := child.last_log_line()):
        assert child.is_running()

    child.stop(grace_s=0)

    wait_until_gone(int(grandchild))


def test_ctrl_c_in_the_terminal_does_not_reach_a_child(tmp_path: Path) -> None:
    """The signal goes to the terminal's foreground group; children have their own groups and are stopped in order."""
    child = sleeper(tmp_path)

    assert os.getpgid(child.pid) != os.getpgid(0)

    child.stop(0)


def test_a_child_s_log_can_only_be_read_by_its_owner(tmp_path: Path) -> None:
    sleeper(tmp_path).stop(0)

    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
