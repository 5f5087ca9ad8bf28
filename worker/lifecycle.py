"""Starts and ends a worker when Celery sends its signals, in this order: start, ready, stopping, close."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
from functools import partial
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.broker.dialling import connect
from producer.contract.names import cancel_channel
from producer.processes.leash import continue_when_parent_ends
from producer.settings import PREFIX
from worker.concurrency.isolation import HEAD_START_S, Isolation
from worker.delivery.credit import Outcomes
from worker.delivery.delivery import Delivery
from worker.delivery.liveness import Liveness
from worker.delivery.marks import Marks
from worker.delivery.times import Times
from worker.engine.failures import failed_start
from worker.jobs.app import Nameshot
from worker.jobs.cancelling import CancelListener, Revoker, RunningJobs
from worker.jobs.claims import ClaimKeeper
from worker.jobs.refusals import Refusals
from worker.jobs.results import FirstAnswerBackend
from worker.jobs.running_worker import RunningWorker
from worker.jobs.start_checks import FirstContact, check_options, warn_of_unread
from worker.observability.probes import Probes
from worker.observability.readiness import Readiness
from worker.runtime import logs
from worker.runtime.garbage import freeze_garbage
from worker.runtime.ready_file import ReadyFile
from worker.service import Service, build
from worker.settings import MAX_CONCURRENCY, WorkerSettings

logger = logging.getLogger(__name__)


class Lifecycle:
    """Starts and ends the worker of an app.

    Attributes:
        exit_status: the status with which the process should exit; it is set when Celery's worker has ended.
        times: the times of this worker's delivery; a change must come before the start.
    """

    def __init__(self, app: Nameshot) -> None:
        self._app = app
        self.exit_status = 0
        self.times = Times()

    def start(self, sender: Any, **_: Any) -> None:
        """Check the options and servers, load the model, and start the worker's threads.

        Args:
            sender: Celery's `WorkController`, before its pool is created.

        Raises:
            SystemExit: the worker cannot start; Celery ignores every other exception of a signal's handler.
        """
        app = self._app
        logs.configure(app.settings.log_level, app.settings.log_format)
        continue_when_parent_ends()
        # Print all threads' stacks, even while native code runs; Celery later installs a handler that does the same.
        faulthandler.register(signal.SIGUSR1)
        try:
            check_options(sender, app.own_configuration(), most_threads=MAX_CONCURRENCY)
            settings = [f"{PREFIX}{field.upper()}" for field in WorkerSettings.model_fields]
            warn_of_unread(os.environ, settings, app.endpoints[0])
            first_contact = FirstContact(*app.endpoints, app.settings.queue_prefix)
            first_contact.check()
            if getattr(sender, "checks_only", False):  # Celery's own worker class has no such attribute
                raise SystemExit(os.EX_OK)
            if app.front is None:  # the launcher chose a front's file, and sees to its folder
                ReadyFile(app.settings.ready_file).prepare()
            worker = app.running_worker = assemble(app, first_contact, self.times)
            if not isinstance(sender.concurrency, int):
                sender.concurrency = worker.service.concurrency
            worker.delivery.lease.start()
            worker.delivery.upkeep.start()
            worker.cancel_listener.start()
        except Exception as error:
            raise SystemExit(failed_start(error, "worker")) from None

    def ready(self, **_: Any) -> None:
        """Begin to take jobs; Celery calls this when the event loop is connected to the broker."""
        freeze_garbage()
        worker = self._app.running_worker
        logger.info(
            "ready: %s takes jobs from %s.* at %s",
            worker.service.model.name,
            worker.queue_prefix,
            self._app.endpoints[0].shown,
        )
        worker.readiness.is_open = True
        worker.ready_file.start_updates()

    def stopping(self, **_: Any) -> None:
        """Take no more jobs; running jobs may finish."""
        stop_taking(self._app.running_worker.readiness, self._app.running_worker.ready_file)

    def close(self, sender: Any, **_: Any) -> None:
        """End every part of the worker; Celery calls this when no job runs any more."""
        self.exit_status = sender.exitcode or 0
        worker = self._app.running_worker
        worker.ready_file.update()  # the stop signal may have interrupted the creation of the file
        worker.delivery.shutdown.drained()
        worker.delivery.upkeep.close()
        worker.delivery.lease.leave()
        worker.cancel_listener.close()
        if worker.probes:
            worker.probes.close()
        worker.service.close()


def stop_taking(readiness: Readiness, ready_file: ReadyFile) -> None:
    """Mark the worker as not ready, for its own threads and for probes and supervisors."""
    readiness.is_open = False
    ready_file.update()


def assemble(app: Nameshot, first_contact: FirstContact, times: Times) -> RunningWorker:
    """Load the model and build every part of a worker.

    Raises:
        ModelLoadError: the checkpoint cannot be used.
        SettingsError: a setting cannot be used.
    """
    settings, keys = app.settings, app.delivery_keys
    marks = Marks(
        # A stage that must run alone waits for this client, so the client does not wait before it retries. It retries
        # once, because Redis may have closed a pooled connection.
        connect(app.endpoints[0], socket_connect_timeout=1, socket_timeout=1, retry=Retry(NoBackoff(), 1)),
        keys,
    )
    service = build(
        settings,
        load_model=app.load_model,
        load_preparation=app.load_preparation,
        # The worker requeues its jobs and ends, and the launcher or a supervisor starts a new process.
        on_device_lost=lambda: delivery.end("the device stopped answering"),
        on_other_model=lambda: delivery.shutdown.leave_now(),
        front=app.front,
        isolation=Isolation(marks.alone, head_start_s=HEAD_START_S),
        now_s=lambda: delivery.clock.now_s(),
    )
    broker, results = (connect(server, socket_connect_timeout=1, socket_timeout=1) for server in app.endpoints)
    answers: FirstAnswerBackend = app.backend
    readiness = Readiness(
        broker,
        results,
        own_key=keys.in_flight,
        engine_unavailable_reason=lambda: service.engine.unavailable_reason,
        results_outage=lambda: answers.outage.description,
    )
    ready_file = ReadyFile(settings.ready_file, readiness.takes_jobs)
    jobs = RunningJobs()
    delivery = Delivery(
        broker,
        keys,
        marks=marks,
        max_attempts=settings.max_attempts,
        drain_timeout_s=settings.drain_timeout,
        liveness=Liveness(
            device_busy_s=lambda: service.engine.busy_s,
            device_limit_s=service.device_limit_s,
            overdue=jobs.overdue,
            waits=readiness.waits,
            times=times,
        ),
        times=times,
        on_leaving=partial(stop_taking, readiness, ready_file),
    )
    claims = ClaimKeeper(broker, prefix=keys.prefix, ttl_s=settings.result_ttl)
    answers.on_answered = claims.answered
    answers.now_s = delivery.clock.now_s
    answers.is_claimed_for_another = claims.is_for_another
    channel = cancel_channel(keys.prefix)
    return RunningWorker(
        queue_prefix=keys.prefix,
        service=service,
        delivery=delivery,
        answers=answers,
        jobs=jobs,
        outcomes=Outcomes(),
        readiness=readiness,
        refusals=Refusals(answers, delivery.dead_letters, service.telemetry),
        revoker=Revoker(answers, jobs, partial(broker.publish, channel)),
        cancel_listener=CancelListener(broker, channel, partial(jobs.cancel, is_cancelled=answers.is_cancelled)),
        first_contact=first_contact,
        ready_file=ready_file,
        probes=_probes(settings, service, readiness, delivery.liveness),
    )


def _probes(settings: WorkerSettings, service: Service, readiness: Readiness, liveness: Liveness) -> Probes | None:
    """Start the HTTP server for metrics and probes, unless the settings switch it off."""
    if not settings.metrics_port:
        return None
    return Probes(
        service.telemetry,
        host=settings.metrics_host,
        port=settings.metrics_port,
        not_ready=lambda: readiness.not_ready_reason(liveness.unhealthy_reason()),
        not_healthy=liveness.unhealthy_reason,
    )
