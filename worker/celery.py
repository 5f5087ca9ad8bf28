"""The Celery app of a worker: ``celery -A worker worker``.

Importing this reads nothing and loads no model. Celery asks for the configuration when it needs it, and the model
is loaded when a worker process starts, before the first job is taken.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import redis
from celery import Celery, signals

from producer.broker import celery_configuration
from producer.contract import cancel_channel
from producer.errors import NameshotError
from producer.redis_urls import endpoint
from producer.settings import read_settings
from worker import logs, remote_control, tasks
from worker.cancelling import CancelListener, RunningJobs
from worker.claims import ClaimKeeper
from worker.consumer import ImageCredit, Pulse
from worker.credit import Outcomes
from worker.delivery.delivery import Delivery
from worker.delivery.names import DeliveryKeys, new_worker_name
from worker.garbage import settle
from worker.model import Model, ModelError, load_model, load_preparation
from worker.model.pixels import Preparation
from worker.ready_file import ReadyFile
from worker.results import MAX_PAUSE_MS, MAX_RETRIES
from worker.revoking import Revoker
from worker.service import Front, Service, build
from worker.settings import WorkerSettings
from worker.telemetry import Probes

logger = logging.getLogger(__name__)

#: After so much silence of the broker the event loop's connection is given up, at the next look, so often as well: a
#: machine that vanishes closes no connection.
BROKER_SILENCE_S: Final = 5
#: Longer than a doorbell waits in Redis. The event loop may wait so long three times over before it connects anew.
BROKER_TIMEOUT_S: Final = 8


class Nameshot(Celery):  # type: ignore[misc]  # celery is untyped
    """A Celery app that knows its settings, and in a worker process the service its tasks use."""

    registry_cls = "worker.registry:OnlyOurs"
    control_cls = "worker.remote_control:CarefulControl"
    service: Service
    delivery: Delivery
    running: RunningJobs
    cancel_listener: CancelListener
    revoker: Revoker
    ready_file: ReadyFile
    probes: Probes | None = None
    #: Of the bulk messages in hand.
    outcomes: Outcomes
    #: True from the first moment jobs are taken until the worker is told to stop.
    takes_jobs: bool = False
    #: A program that brings a model of its own replaces this before the worker starts.
    load_model: Callable[..., Model] = staticmethod(load_model)
    #: Likewise, for one whose model has no `Geometry` and runs in an engine process.
    load_preparation: Callable[..., Preparation] = staticmethod(load_preparation)
    #: Set where this process is a front of an engine process.
    front: Front | None = None

    @cached_property
    def settings(self) -> WorkerSettings:
        """The environment, read once."""
        try:
            settings = read_settings(WorkerSettings)
            for variable in ("broker_url", "result_backend"):  # Celery's complaint would quote what it cannot read
                endpoint(getattr(settings, variable), f"NAMESHOT_{variable.upper()}")
            return settings
        except NameshotError as error:
            raise _refusal(error) from None

    @cached_property
    def delivery_keys(self) -> DeliveryKeys:
        """The keys of this process, under a name that no process had before."""
        return DeliveryKeys(self.settings.queue_prefix, new_worker_name())


def configuration(settings: WorkerSettings, worker_name: str) -> dict[str, Any]:
    """Celery's settings for a worker process."""
    shared = celery_configuration(
        broker_url=settings.broker_url,
        result_backend=settings.result_backend,
        result_ttl_s=settings.result_ttl,
        queue_prefix=settings.queue_prefix,
    )
    return {
        **shared,
        "broker_transport": "worker.delivery.transport:AtomicTransport",
        "broker_transport_options": {
            **shared["broker_transport_options"],
            "health_check_interval": BROKER_SILENCE_S,
            "socket_timeout": BROKER_TIMEOUT_S,
            "queue_prefix": settings.queue_prefix,
            "worker_name": worker_name,
        },
        # Threads overlap the network with the device, and hold one model and one device context.
        "worker_pool": "threads",
        "worker_concurrency": settings.concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "worker.consumer:QuietConsumer",
        "task_acks_late": True,
        "task_track_started": False,  # the task says it itself, and learns whether an answer stands already
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,  # events halve the throughput; our own metrics replace them
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # One pool of connections for all threads; redis-py's is thread-safe.
        "result_backend_thread_safe": True,
        "result_backend_always_retry": True,
        "result_backend_max_retries": MAX_RETRIES,
        "result_backend_max_sleep_between_retries_ms": MAX_PAUSE_MS,
    }


def _refusal(error: Exception) -> SystemExit:
    """One sentence on stderr, and the exit status (78) for a configuration that no restart will help."""
    logger.critical("%s", error)
    return SystemExit(os.EX_CONFIG)


def _end_process() -> None:
    """The device was lost: what is in flight goes back, and a supervisor starts a new process."""
    app.delivery.end("the device stopped answering")


app = Nameshot("nameshot", set_as_current=True)
app.add_defaults(lambda: configuration(app.settings, app.delivery_keys.worker))
app.loader.override_backends = dict.fromkeys(("redis", "rediss"), "worker.results:FirstAnswerBackend")
app.steps["consumer"].update((ImageCredit, Pulse))
tasks.register(app)
remote_control.register()


def _keep_our_logging(**_: Any) -> None:
    """Celery leaves logging alone when somebody listens here."""


def _start(sender: Any, **_: Any) -> None:
    """Load the model before anything is consumed; Celery swallows every exception here but SystemExit."""
    logs.configure(app.settings.log_level, app.settings.log_format)
    try:
        _load(sender)
    except (NameshotError, ModelError) as error:
        raise _refusal(error) from None
    except Exception as error:
        logger.critical("this worker cannot start: %s at %s", type(error).__name__, logs.place_of(error))
        raise SystemExit(os.EX_SOFTWARE) from None


def _load(sender: Any) -> None:
    broker_endpoint = endpoint(app.settings.broker_url, "NAMESHOT_BROKER_URL")
    app.ready_file = ReadyFile(app.settings.ready_file, lambda: app.takes_jobs and app.service.engine.is_here)
    app.ready_file.begin()
    app.service = build(
        app.settings,
        load_model=app.load_model,
        load_preparation=app.load_preparation,
        on_device_lost=_end_process,
        on_other_model=lambda: app.delivery.departure.leave_now(),
        front=app.front,
    )
    if not isinstance(sender.concurrency, int):
        sender.concurrency = app.service.concurrency
    broker = redis.Redis.from_url(broker_endpoint.url, socket_connect_timeout=1, socket_timeout=1)
    app.running = RunningJobs()
    app.outcomes = Outcomes()
    app.delivery = Delivery(
        broker,
        app.delivery_keys,
        max_attempts=app.settings.max_attempts,
        drain_timeout_s=app.settings.drain_timeout,
        device_busy_s=lambda: app.service.engine.busy_s,
        device_limit_s=app.service.device_limit_s,
        overdue=app.running.overdue,
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
    if app.settings.metrics_port:
        app.probes = Probes(
            app.service.telemetry,
            host=app.settings.metrics_host,
            port=app.settings.metrics_port,
            not_ready=lambda: _not_ready(broker),
            not_healthy=app.delivery.vitality.complaint,
        )
    app.delivery.lease.start()
    app.delivery.upkeep.start()
    app.cancel_listener.start()


def _not_ready(broker: redis.Redis) -> str | None:
    if not app.takes_jobs:
        return "starting or stopping"
    if complaint := app.delivery.vitality.complaint():
        return complaint
    if not app.service.engine.is_here:
        return "the engine is away"
    try:
        broker.ping()
    except redis.RedisError:
        return "the broker does not answer"
    return None


def _ready(**_: Any) -> None:
    app.delivery.departure.install()
    broker = endpoint(app.settings.broker_url, "NAMESHOT_BROKER_URL").shown
    settle()
    logger.info("ready: %s takes jobs from %s.* at %s", app.service.model.name, app.settings.queue_prefix, broker)
    app.takes_jobs = True
    app.ready_file.keep()


def _stopping(**_: Any) -> None:
    app.takes_jobs = False
    app.ready_file.look()


def _close(**_: Any) -> None:
    app.ready_file.look()  # the signal may have come while it was being made
    app.delivery.departure.drained()
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
