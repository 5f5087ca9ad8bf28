"""The parts of a running worker; `worker.lifecycle` creates them, and the code that Celery calls uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worker.delivery.credit import Outcomes
from worker.delivery.delivery import Delivery
from worker.jobs.cancelling import CancelListener, Revoker, RunningJobs
from worker.jobs.refusals import Refusals
from worker.jobs.results import FirstAnswerBackend
from worker.jobs.start_checks import FirstContact
from worker.observability.probes import Probes
from worker.observability.readiness import Readiness
from worker.runtime.ready_file import ReadyFile
from worker.service import Service


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """The parts of one worker process, from its start to its end.

    Attributes:
        queue_prefix: the prefix of the names of this worker's queues.
        answers: stores the answers of jobs.
        jobs: the jobs that run now.
        outcomes: counts the finished images of each bulk message in hand.
        first_contact: checks the broker and the result backend as soon as they reply.
        probes: the server of metrics and probes; None if the settings switch it off.
    """

    queue_prefix: str
    service: Service
    delivery: Delivery
    answers: FirstAnswerBackend
    jobs: RunningJobs
    outcomes: Outcomes
    readiness: Readiness
    refusals: Refusals
    revoker: Revoker
    cancel_listener: CancelListener
    first_contact: FirstContact
    ready_file: ReadyFile
    probes: Probes | None


def worker_of(app: Any) -> RunningWorker:
    """Return the running worker of a `Nameshot` app, which Celery passes without its type."""
    worker: RunningWorker = app.running_worker
    return worker
