"""Whatever an image does to its decoder process, the worker and other images are not affected."""

from __future__ import annotations

import os
import resource
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from producer.errors import JobFailed, SettingsError
from tests.decoding.conftest import MAX_BYTES, MAX_PIXELS, MakePool, code_of, scope
from tests.eventually import eventually
from tests.images.corpus import HEIC, JPEG
from tests.images.files import flat_png
from worker.concurrency.cancel_scope import Cancelled
from worker.decoding.decoder import PROGRAM, DecoderOptions
from worker.decoding.pool import DecoderPool

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")

LARGE = flat_png(7_000, 7_000)
#: What an image that has taken over a decoder might try; the code runs when the decoder opens the image.
ATTEMPTS = {
    "a file": "open('/etc/passwd').read()",
    "the worker's environment": "open(f'/proc/{os.getppid()}/environ').read()",
    "a file to write": "open('/tmp/nameshot-decoder', 'w')",
    "a socket": "socket.socket()",
    "a process": "os.fork()",
    "a thread": "threading.Thread(target=print).start()",
    "another program": "os.execv('/bin/true', ['true'])",
    "the worker's end": "os.kill(os.getppid(), 9)",
    "the worker's limits": "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
    "more files": "resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))",
}


#: Makes decoders behave as if the extra ``heic`` were missing; they may start threads only with that extra.
WITHOUT_HEIC = "from worker.decoding import child\nchild.register_heif = lambda: False\n"


def without_heic() -> DecoderOptions:
    """Return options of decoders as if ``pillow-heif`` were not installed."""
    first, second, *rest = PROGRAM.splitlines(keepends=True)
    return DecoderOptions(MAX_PIXELS, MAX_BYTES, None, 30, "".join((first, second, WITHOUT_HEIC, *rest)))


def taken_over(code: str, cpu_s: int = 30, max_pixels: int = MAX_PIXELS) -> DecoderOptions:
    """Return options of decoders that run a line of Python when they open an image of fewer than 64 bytes."""
    hook = (
        f"{WITHOUT_HEIC}"
        "import os, resource, socket, threading, time\n"
        "from worker.decoding import child\n"
        "open_image = child.open_image\n"
        "def hostile(data, max_pixels):\n"
        f"    if len(data) < 64 and max_pixels != 10_000: {code}\n"
        "    return open_image(data, max_pixels=max_pixels)\n"
        "child.open_image = hostile\n"
    )
    first, second, *rest = PROGRAM.splitlines(keepends=True)
    return DecoderOptions(max_pixels, MAX_BYTES, None, cpu_s, "".join((first, second, hook, *rest)))


HOSTILE = b"x"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def zombies() -> list[str]:
    children: list[str] = []
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # the thread has ended
            children += (thread / "children").read_text().split()
    return [pid for pid in children if ") Z " in Path(f"/proc/{pid}/stat").read_text()]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_hostile_image_that_took_over_its_decoder_can_reach_nothing(
    attempt: str, make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pool = make_pool(taken_over(ATTEMPTS[attempt]))
    assert "libseccomp" not in caplog.text, "this machine has no libseccomp, so this test proves nothing"

    assert code_of(pool, HOSTILE) == "undecodable"
    assert "was killed by SIGSYS" in caplog.text
    assert code_of(pool, JPEG) == "ok"


def test_with_heic_a_decoder_may_start_threads_but_no_process(make_pool: MakePool) -> None:
    permissive = [taken_over(ATTEMPTS[attempt]) for attempt in ("a thread", "a process")]
    threads, processes = (
        make_pool(replace(options, program=options.program.replace(WITHOUT_HEIC, ""))) for options in permissive
    )

    assert code_of(threads, HOSTILE) == "unsupported_format"
    assert code_of(threads, HEIC) == "ok"
    assert code_of(processes, HOSTILE) == "undecodable"


def test_a_decoder_has_no_variable_of_the_worker_only_its_own_descriptors_and_limits(make_pool: MakePool) -> None:
    os.environ["NAMESHOT_CANARY"] = "CANARY"
    try:
        (pid,) = make_pool(without_heic()).pids
    finally:
        del os.environ["NAMESHOT_CANARY"]

    process = Path(f"/proc/{pid}")
    assert process.joinpath("environ").read_bytes() == b"OPENBLAS_NUM_THREADS=1\0"
    assert {file.name for file in (process / "fd").iterdir()} == {"0", "1", "2"}
    assert os.getsid(pid) == pid
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
        assert resource.prlimit(pid, kind) == (0, 0)
    assert 18 * MAX_PIXELS < resource.prlimit(pid, resource.RLIMIT_AS)[1] < 18 * MAX_PIXELS + 1_000_000_000


def test_a_decoder_waits_for_images_although_new_sockets_had_a_timeout_when_it_started(
    make_pool: MakePool,
) -> None:
    """Celery sets a timeout for the whole process while it reconnects and while it shuts down."""
    socket.setdefaulttimeout(5.0)
    try:
        pool = make_pool()
    finally:
        socket.setdefaulttimeout(None)

    assert code_of(pool, JPEG) == "ok"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("os.abort()", "undecodable"),
        ("os._exit(0)", "undecodable"),
        ("__import__('ctypes').string_at(0)", "undecodable"),
        ("[0 for _ in iter(int, 1)]", "out_of_memory"),
        ("bytearray(3_000_000_000)", "out_of_memory"),
        ("os.write(0, bytes(200))", "undecodable"),
        ("os.write(0, bytes([255]) * 200)", "undecodable"),
    ],
)
def test_a_decoder_that_dies_or_replies_falsely_fails_only_its_image(
    code: str, expected: str, make_pool: MakePool
) -> None:
    pool = make_pool(taken_over(code))

    assert code_of(pool, HOSTILE) == expected
    assert code_of(pool, JPEG) == "ok"


def test_endless_decoding_ends_at_the_limit_of_cpu_time(make_pool: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    pool = make_pool(taken_over("exec('while True: pass')", cpu_s=1))

    assert code_of(pool, HOSTILE) == "undecodable"
    assert "SIGXCPU" in caplog.text
    assert code_of(pool, JPEG) == "ok"


def test_the_limit_of_cpu_time_applies_to_each_image_and_not_to_the_process(make_pool: MakePool) -> None:
    pool = make_pool(taken_over("exec('ends = time.process_time() + 0.7\\nwhile time.process_time() < ends: pass')", 1))
    before = pool.pids

    for _ in range(4):
        assert code_of(pool, HOSTILE) == "unsupported_format"
    assert pool.pids == before


def in_hand(pool: DecoderPool) -> int:
    """Return the id of the process that is decoding an image."""
    found: list[int] = []

    def works() -> bool:
        found[:] = [pid for pid in pool.pids if Path(f"/proc/{pid}/stat").read_text().split()[2] == "R"]
        return bool(found)

    eventually(works)
    return found[0]


ENDLESS = "exec('while True: pass')"


def test_at_an_image_s_deadline_its_decoder_is_killed_and_replaced(make_pool: MakePool) -> None:
    pool = make_pool(taken_over(ENDLESS))
    before = pool.pids

    assert code_of(pool, HOSTILE, scope(0.3)) == "deadline_exceeded"
    assert code_of(pool, JPEG) == "ok"
    assert not set(before) & set(pool.pids)


def test_when_an_image_is_cancelled_its_decoder_is_killed_at_once(make_pool: MakePool) -> None:
    pool, within = make_pool(taken_over(ENDLESS)), scope()

    with ThreadPoolExecutor(1) as thread:
        decoding = thread.submit(pool.decode, HOSTILE, within)
        killed = in_hand(pool)
        within.cancel()
        with pytest.raises(Cancelled):
            decoding.result(10)
    assert killed not in pool.pids
    assert code_of(pool, JPEG) == "ok"


def test_cancelling_an_image_that_was_already_decoded_kills_no_process(make_pool: MakePool) -> None:
    pool, within = make_pool(), scope()
    assert code_of(pool, JPEG, within) == "ok"
    before = pool.pids

    within.cancel()

    assert code_of(pool, JPEG) == "ok"
    assert pool.pids == before


def test_an_image_whose_decoder_gets_sigkill_from_outside_fails_with_a_retryable_code(make_pool: MakePool) -> None:
    pool = make_pool(taken_over(ENDLESS))

    with ThreadPoolExecutor(1) as thread:
        decoding = thread.submit(pool.decode, HOSTILE, scope())
        os.kill(in_hand(pool), signal.SIGKILL)
        with pytest.raises(JobFailed) as failure:
            decoding.result(10)
    assert failure.value.code == "out_of_memory"
    assert failure.value.retryable
    assert code_of(pool, JPEG) == "ok"


def test_an_image_whose_decoder_is_frozen_is_decoded_by_another(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool()
    frozen = pool.pids
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)

    assert code_of(pool, flat_png(2_000, 2_000)) == "ok"

    assert "a decoder process was frozen while it had an image: replacing the process" in caplog.text
    assert not set(frozen) & set(pool.pids)


def test_a_file_that_a_frozen_decoder_does_not_finish_reading_is_decoded_by_another(make_pool: MakePool) -> None:
    pool = make_pool()
    os.kill(pool.pids[0], signal.SIGSTOP)

    assert code_of(pool, JPEG + bytes(4_000_000)) == "ok"


def test_signals_that_a_supervisor_sends_to_all_processes_end_no_decoder(make_pool: MakePool) -> None:
    pool = make_pool()
    (pid,) = pool.pids
    crashes = {signal.Signals[f"SIG{name}"] for name in ("SEGV", "BUS", "ILL", "FPE", "ABRT", "TRAP", "SYS", "XCPU")}
    for number in signal.valid_signals() - crashes - {signal.SIGKILL, signal.SIGSTOP}:
        os.kill(pid, number)

    assert code_of(pool, JPEG) == "ok"
    assert pool.pids == [pid]


def test_an_image_whose_decoder_ends_by_another_signal_is_decoded_by_another_decoder(
    make_pool: MakePool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A decoder that has just started does not ignore signals yet, so the image is not to blame for its end."""
    first = tmp_path / "first"
    first.touch()
    options = taken_over(
        f"os.path.exists({str(first)!r}) and (os.unlink({str(first)!r}), "
        "signal.signal(signal.SIGUSR1, signal.SIG_DFL), os.kill(os.getpid(), signal.SIGUSR1))"
    )
    head, body = options.program.split("from worker.decoding import child", 1)
    unconfined = (
        "import signal\nfrom worker.decoding import confinement\nconfinement.confine = lambda _memory, threads: False\n"
    )
    program = f"{head}{unconfined}from worker.decoding import child{body}"
    pool = make_pool(replace(options, program=program))

    assert code_of(pool, HOSTILE) == "unsupported_format"
    assert "was killed by SIGUSR1 from outside while it had an image: replacing the process" in caplog.text


def test_an_image_waits_for_a_decoder_until_the_deadline_of_the_image_ahead(make_pool: MakePool) -> None:
    pool = make_pool(taken_over(ENDLESS))

    with ThreadPoolExecutor(1) as thread:
        endless = thread.submit(code_of, pool, HOSTILE, scope(6))
        in_hand(pool)
        assert code_of(pool, JPEG, scope(4)) == "ok"
        assert endless.result() == "deadline_exceeded"


def test_decoders_are_started_when_needed_and_reused(make_pool: MakePool) -> None:
    pool = make_pool(processes=2)
    assert len(pool.pids) == 1

    with ThreadPoolExecutor(6) as threads:
        pictures = list(threads.map(lambda _: pool.decode(LARGE, scope()), range(6)))
    assert {(picture.width, picture.height) for picture in pictures} == {(7_000, 7_000)}
    assert len(pool.pids) == 2


def test_two_hundred_images_and_twenty_kills_leave_neither_zombies_nor_descriptors(make_pool: MakePool) -> None:
    pool = make_pool(taken_over("os._exit(1)"), processes=2)
    before = descriptors()

    with ThreadPoolExecutor(4) as threads:
        files = ([JPEG] * 10 + [HOSTILE]) * 20
        codes = list(threads.map(lambda data: code_of(pool, data), files))
    assert codes == ["undecodable" if data == HOSTILE else "ok" for data in files]
    assert len(pool.pids) <= 2
    assert descriptors() <= before + 2
    assert not zombies()
    pids = pool.pids
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert descriptors() < before


def test_a_worker_that_can_start_no_decoder_says_so_in_one_sentence(make_pool: MakePool) -> None:
    pool = make_pool(DecoderOptions(MAX_PIXELS, MAX_BYTES, None, 30, "raise SystemExit(3)"), start=False)

    with pytest.raises(SettingsError, match=r"ended with status 3.*NAMESHOT_DECODER=thread"):
        pool.start()
    assert pool.pids == []
