"""If the machine runs short of memory, threads or files, neither the job nor its image nor its host is blamed."""

import errno
import subprocess
import sys

import pytest

from worker.fetch.failures import classify
from worker.runtime.shortages import is_shortage

ALLOW = """
import resource, sys
from worker.runtime.shortages import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_open_files({images}, {images})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (OSError(errno.ENFILE, "Too many open files in system"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("another"), False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (BlockingIOError(errno.EAGAIN, "not yet"), False),
        (ValueError("no memory"), False),
    ],
    ids=repr,
)
def test_a_shortage_is_distinguished_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_shortage(error) is expected


def test_a_download_without_a_free_file_descriptor_is_retryable_and_not_blamed_on_its_host() -> None:
    failure = classify(OSError(errno.EMFILE, "Too many open files"), "connecting")

    assert (failure.code, failure.retryable, failure.of_host) == ("out_of_memory", True, False)


def run(**values: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", ALLOW.format(**values)], capture_output=True, text=True, check=False)


def test_the_limit_of_open_files_is_raised_to_the_system_s_maximum() -> None:
    done = run(soft=64, hard=1_024, images=100)

    assert (done.returncode, done.stdout) == (0, "1024\n"), done.stderr


def test_a_concurrency_that_needs_more_open_files_than_the_system_permits_is_refused_in_one_sentence() -> None:
    done = run(soft=64, hard=256, images=300)

    assert done.returncode == 1
    assert "300 images in flight (NAMESHOT_CONCURRENCY) need up to 2,200 open files" in done.stderr
    assert "this system permits 256" in done.stderr
