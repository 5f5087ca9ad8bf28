"""The Celery app of a worker: ``celery -A worker worker``.

Importing this module reads no settings and loads no model. Celery requests the configuration when it needs it, and a
worker process loads the model at its start, before it takes the first job.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

from celery import Celery, signals
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.broker.dialling import connect
from producer.broker.urls import Endpoint
from producer.contract import cancel_channel
from producer.errors import NameshotError
from producer.settings import read_settings
from worker.concurrency.isolation import HEAD_START_S, Isolation
from worker.delivery.credit import Outcomes
from worker.delivery.delivery import Delivery
from worker.delivery.marks import Marks
from worker.delivery.names import DeliveryKeys, new_worker_name
from worker.jobs import remote_control, tasks
from worker.jobs.cancelling import CancelListener, RunningJobs
from worker.jobs.celery_command import FIRST_OPTION, config_refusal
from worker.jobs.celery_settings import configuration
from worker.jobs.claims import ClaimKeeper
from worker.jobs.consumer import ImageCredit, Pulse
from worker.jobs.refusals import Refusals
from worker.jobs.revoking import Revoker
from worker.jobs.start_checks import FirstContact, check_options, refusal, servers, warn_of_unread
from worker.model import DeviceLostError, Model, ModelError, load_model, load_preparation
from worker.model.pixels import Preparation
from worker.observability.metrics import Probes
from worker.observability.readiness import Readiness
from worker.runtime import logs
from worker.runtime.garbage import freeze_garbage
from worker.runtime.ready_file import ReadyFile
from worker.service import Front, Service, build
from worker.settings import MAX_CONCURRENCY, WorkerSettings

logger = logging.getLogger(__name__)


class Nameshot(Celery):  # type: ignore[misc]  # celery is untyped
    """A Celery app with its settings and, in a worker process, the service that its tasks use."""

    #: Named here, since Celery would otherwise choose the backend from a URL that it parses in its own way.
    backend_cls = "worker.jobs.results:FirstAnswerBackend"
    registry_cls = "worker.jobs.registry:OnlyOurs"
    control_cls = "worker.jobs.remote_control:CarefulControl"
    service: Service
    delivery: Delivery
    running: RunningJobs
    cancel_listener: CancelListener
    revoker: Revoker
    refusals: Refusals
    readiness: Readiness
    ready_file: ReadyFile
    probes: Probes | None = None
    #: The counts of finished images in the bulk messages in hand.
    outcomes: Outcomes
    #: True from the moment the worker takes jobs until it is told to stop.
    takes_jobs: bool = False
    #: True while the event loop is connected to the broker.
    is_consuming: bool = False
    #: Returns why the broker refuses to deliver messages although it answers; None if it delivers them.
    refusal: Callable[[], str | None] = staticmethod(lambda: None)
    #: The exit status of the process, known once Celery's worker has ended.
    exit_status: int = 0
    #: A program with its own model replaces this before the worker starts.
    load_model: Callable[..., Model] = staticmethod(load_model)
    #: A program replaces this too if its model has no `Geometry` and runs in an engine process.
    load_preparation: Callable[..., Preparation] = staticmethod(load_preparation)
    #: Set if this process is a front of an engine process.
    front: Front | None = None

    @cached_property
    def settings(self) -> WorkerSettings:
        """The settings, read once from the environment."""
        try:
            return read_settings(WorkerSettings)
        except NameshotError as error:
            raise refusal(error) from None

    @cached_property
    def endpoints(self) -> tuple[Endpoint, Endpoint]:
        """The endpoints of broker and result backend, parsed as clients do."""
        return servers(self.settings.broker_url, self.settings.result_backend)

    @cached_property
    def delivery_keys(self) -> DeliveryKeys:
        """The key names of this process, under a unique worker name."""
        return DeliveryKeys(self.settings.queue_prefix, new_worker_name())

    def own_configuration(self) -> dict[str, Any]:
        """Return Celery's settings as this worker needs them, regardless of other configuration."""
        settings = self.settings
        return configuration(
            *self.endpoints, self.delivery_keys, result_ttl_s=settings.result_ttl, concurrency=settings.concurrency
        )

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """The class of the worker that ``celery worker`` runs."""
        return self.subclass_with_self("worker.jobs.careful_worker:CarefulWorker")

    def _load_config(self) -> Any:
        try:
            return super()._load_config()
        except (ImportError, SyntaxError) as error:
            raise config_refusal(error) from None

    @cached_property
    def first_contact(self) -> FirstContact:
        """The check of both servers at the first contact."""
        return FirstContact(*self.endpoints, self.settings.queue_prefix)

    def _connection(self, _url: Any, *args: Any, **options: Any) -> Any:
        """Connect to our endpoint, ignoring a URL from Celery's environment variables or ``--broker``."""
        return super()._connection(self.endpoints[0].shown, *args, **options)


def _end_process() -> None:
    """End the process after the loss of its device: jobs are requeued, and a supervisor starts a new process."""
    app.delivery.end("the device stopped answering")


app = Nameshot("nameshot", set_as_current=True)
app.add_defaults(app.own_configuration)
app.steps["consumer"].update((ImageCredit, Pulse))
app.user_options["worker"].add(FIRST_OPTION)
tasks.register(app)
remote_control.register()


def _keep_our_logging(**_: Any) -> None:
    """Do nothing: Celery leaves logging alone if a handler is connected to this signal."""


def _start(sender: Any, **_: Any) -> None:
    """Load the model before the worker consumes messages. Celery swallows all exceptions here but SystemExit."""
    logs.configure(app.settings.log_level, app.settings.log_format)
    try:
        _load(sender)
    except DeviceLostError as error:
        logger.critical("%s", error)
        raise SystemExit(os.EX_SOFTWARE) from None
    except (NameshotError, ModelError) as error:
        raise refusal(error) from None
    except Exception as error:
        logger.critical("this worker cannot start: %s at %s", type(error).__name__, logs.place_of(error))
        raise SystemExit(os.EX_SOFTWARE) from None


def _load(sender: Any) -> None:
    check_options(sender, app.own_configuration(), most_threads=MAX_CONCURRENCY)
    warn_of_unread(os.environ, app.endpoints[0])
    app.first_contact.look()
    app.ready_file = ReadyFile(app.settings.ready_file, lambda: app.readiness.takes_jobs())
    app.ready_file.begin()
    marks = Marks(
        # A stage that runs alone waits for this client: it retries only once, at once, for a closed pooled connection.
        connect(app.endpoints[0], socket_connect_timeout=1, socket_timeout=1, retry=Retry(NoBackoff(), 1)),
        app.delivery_keys,
    )
    app.service = build(
        app.settings,
        load_model=app.load_model,
        load_preparation=app.load_preparation,
        on_device_lost=_end_process,
        on_other_model=lambda: app.delivery.shutdown.leave_now(),
        front=app.front,
        isolation=Isolation(marks.alone, head_start_s=HEAD_START_S),
    )
    if not isinstance(sender.concurrency, int):
        sender.concurrency = app.service.concurrency
    broker = connect(app.endpoints[0], socket_connect_timeout=1, socket_timeout=1)
    app.running = RunningJobs()
    app.outcomes = Outcomes()
    app.readiness = Readiness(
        broker,
        connect(app.endpoints[1], socket_connect_timeout=1, socket_timeout=1),
        own_key=app.delivery_keys.in_flight,
        takes_jobs=lambda: app.takes_jobs,
        is_consuming=lambda: app.is_consuming,
        engine_unavailable_reason=lambda: app.service.engine.unavailable_reason,
        outage=lambda: app.backend.outage.description or app.refusal(),
    )
    app.delivery = Delivery(
        broker,
        app.delivery_keys,
        marks=marks,
        max_attempts=app.settings.max_attempts,
        drain_timeout_s=app.settings.drain_timeout,
        device_busy_s=lambda: app.service.engine.busy_s,
        device_limit_s=app.service.device_limit_s,
        overdue=app.running.overdue,
        waits=app.readiness.waits,
        on_leaving=_stopping,
    )
    app.refusals = Refusals(
        keep=app.delivery.dead_letters.malformed,
        answer=app.backend.refuse,
        on_settled=lambda: app.service.telemetry.answered("invalid_job"),
    )
    channel = cancel_channel(app.settings.queue_prefix)
    app.cancel_listener = CancelListener(broker, channel, app.running.cancel)
    app.revoker = Revoker(
        answer=app.backend.revoke,
        announce=lambda job_id: broker.publish(channel, job_id),
        stop=app.running.cancel,
    )
    claims = ClaimKeeper(broker, prefix=app.settings.queue_prefix, ttl_s=app.settings.result_ttl)
    app.backend.on_answered = claims.answered
    app.backend.is_claimed_for_another = claims.is_for_another
    if app.settings.metrics_port:
        app.probes = Probes(
            app.service.telemetry,
            host=app.settings.metrics_host,
            port=app.settings.metrics_port,
            not_ready=lambda: app.readiness.not_ready_reason(app.delivery.liveness.unhealthy_reason()),
            not_healthy=app.delivery.liveness.unhealthy_reason,
        )
    app.delivery.lease.start()
    app.delivery.upkeep.start()
    app.cancel_listener.start()


def _ready(**_: Any) -> None:
    freeze_garbage()
    logger.info(
        "ready: %s takes jobs from %s.* at %s",
        app.service.model.name,
        app.settings.queue_prefix,
        app.endpoints[0].shown,
    )
    app.takes_jobs = True
    app.ready_file.keep()


def _stopping(**_: Any) -> None:
    app.takes_jobs = False
    app.ready_file.look()


def _close(sender: Any, **_: Any) -> None:
    app.exit_status = sender.exitcode or 0
    app.ready_file.look()  # the signal may have come while the file was being written
    app.delivery.shutdown.drained()
    app.delivery.upkeep.close()
    app.delivery.lease.leave()
    app.cancel_listener.close()
    if app.probes:
        app.probes.close()
    app.service.close()


signals.setup_logging.connect(_keep_our_logging)
signals.worker_init.connect(_start)
signals.worker_ready.connect(_ready)
signals.worker_shutting_down.connect(_stopping)
signals.worker_shutdown.connect(_close)
