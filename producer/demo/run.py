"""Start a whole system, classify the bundled pictures, and stop the system."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from producer.contract.result import Result
from producer.demo.gallery import Picture, files_by_name, pictures
from producer.embedded.pictures import PictureServer
from producer.embedded.system import embedded_system
from producer.embedded.valkey import RunningValkey
from producer.embedded.worker import WorkerProcess
from producer.errors import EmbeddedError, ResultTimeout

if TYPE_CHECKING:
    from producer.client.jobs import Job

#: The eight pictures take a second on two cores; if they take longer than this, something is broken.
_ANSWER_TIMEOUT_S: Final = 120.0
#: While the demo waits for an answer, it checks at this interval whether Valkey and the worker still run.
_CHECK_EVERY_S: Final = 0.25
#: At the end of the demo the worker needs no time to finish jobs: its queue is deleted with the folder.
_STOP_GRACE_S: Final = 0.0

_SETTINGS: Final = {
    # The bundled checkpoint is part of the package, so the worker needs no hub.
    "HF_HUB_OFFLINE": "1",
    "NAMESHOT_METRICS_PORT": "0",
    # The toy model needs no GPU, so a broken GPU must not matter.
    "NAMESHOT_DEVICE": "cpu",
}


def run_demo(
    announce: Callable[[str], None],
    show: Callable[[Picture, Result], None],
    check: Callable[[], None],
) -> None:
    """Start a system, classify every bundled picture, and remove the system.

    Args:
        announce: called with the name of each stage; an empty name once the system is ready.
        show: called with each result, in the pictures' order.
        check: called a few times a second; an exception from it stops the demo.

    Raises:
        EmbeddedError: a part did not start or died, or a picture was classified wrongly.
        NameshotError: a job failed.
    """
    from producer.client.blocking import Client

    with (
        tempfile.TemporaryDirectory(prefix="nameshot-demo-", ignore_cleanup_errors=True) as folder,
        PictureServer(files_by_name()) as server,
        embedded_system(
            Path(folder),
            server,
            # torch leaves an empty cache folder in TMPDIR, so the demo sets TMPDIR to the folder that the demo removes.
            settings={**_SETTINGS, "TMPDIR": folder},
            stop_grace_s=_STOP_GRACE_S,
            announce=announce,
            on_poll=check,
        ) as (valkey, worker),
        Client(valkey.broker_url, valkey.result_backend, queue_prefix="nameshot") as client,
    ):
        gallery = pictures()
        jobs = client.submit_many((server.picture_url(picture.file), picture.candidate_labels) for picture in gallery)
        wrong = []
        for picture, job in zip(gallery, jobs, strict=True):
            result = _await_result(job, valkey, worker, check)
            show(picture, result)
            if result.best.label != picture.expect:
                wrong.append(f"{picture.file} was classified as {result.best.label}, not {picture.expect}")
        if wrong:
            raise EmbeddedError(f"the model was wrong: {'; '.join(wrong)}.")
        worker.raise_if_ended()


def _await_result(job: Job, valkey: RunningValkey, worker: WorkerProcess, check: Callable[[], None]) -> Result:
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    while True:
        check()
        try:
            return job.result(timeout=_CHECK_EVERY_S)
        except ResultTimeout:
            worker.raise_if_ended()
            valkey.raise_if_ended()
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"the worker gave no answer within {_ANSWER_TIMEOUT_S:.0f} s; its last log line: "
                    f"{worker.process.last_log_line() or 'none'}"
                ) from None
