"""While no decoder process can be started, images fail soon instead of holding the worker's places."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.decoding.conftest import MAX_BYTES, MAX_PIXELS, MakePool, code_of, scope
from tests.images.corpus import JPEG
from worker.decoding.decoder import PROGRAM, DecoderOptions


def test_images_that_wait_for_a_decoder_fail_together_once_none_could_be_started_for_long(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clocks of images that wait for others are paused, so they would otherwise fail one after the other."""
    monkeypatch.setattr("worker.decoding.pool.WITHOUT_PROCESS_S", 1.0)
    pool = make_pool(DecoderOptions(MAX_PIXELS, MAX_BYTES, None, 30, "raise SystemExit(3)"), start=False)
    images = 12

    with ThreadPoolExecutor(images) as threads:
        codes = list(threads.map(lambda _: code_of(pool, JPEG, scope(10)), range(images)))

    assert codes == ["deadline_exceeded"] * images
    started_s = time.monotonic()
    assert code_of(pool, JPEG, scope(60)) == "deadline_exceeded"
    assert time.monotonic() - started_s < 30


def test_starting_a_decoder_is_retried_until_the_job_s_deadline(make_pool: MakePool, tmp_path: Path) -> None:
    flag = tmp_path / "fails"
    flag.touch()
    program = f"import os\nif os.path.exists({str(flag)!r}): raise SystemExit(3)\n{PROGRAM}"
    pool = make_pool(DecoderOptions(MAX_PIXELS, MAX_BYTES, None, 30, program), start=False)

    assert code_of(pool, JPEG, scope(0.5)) == "deadline_exceeded"
    threading.Timer(0.3, flag.unlink).start()
    assert code_of(pool, JPEG) == "ok"
