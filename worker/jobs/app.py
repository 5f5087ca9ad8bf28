"""The class of the worker's Celery app: how Celery is configured, and what a program may replace."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from celery import Celery
from celery.loaders import get_loader_cls

from producer.broker.urls import Endpoint, endpoint
from producer.errors import NameshotError, SettingsError
from producer.settings import read_settings
from worker.delivery.names import DeliveryKeys, new_worker_name
from worker.jobs.celery_command import module_refusal
from worker.jobs.celery_settings import configuration
from worker.jobs.running_worker import RunningWorker
from worker.jobs.start_checks import refusal
from worker.model import Model, load_model, load_preparation
from worker.model.pixels import Preparation
from worker.service import Front
from worker.settings import WorkerSettings


class Nameshot(Celery):  # type: ignore[misc]  # celery is untyped
    """A Celery app with its settings. Nothing of them is read before Celery or the worker needs it."""

    #: Named here, since Celery would otherwise choose the backend from a URL that it parses in its own way.
    backend_cls = "worker.jobs.results:FirstAnswerBackend"
    registry_cls = "worker.jobs.registry:OnlyOurs"
    control_cls = "worker.jobs.remote_control:CarefulControl"
    #: A program with its own model replaces this before the worker starts.
    load_model: Callable[..., Model] = staticmethod(load_model)
    #: A program replaces this too if its model has no `Geometry` and runs in an engine process.
    load_preparation: Callable[..., Preparation] = staticmethod(load_preparation)
    #: Set before the start if this process is a front of an engine process.
    front: Front | None = None
    #: Set by `worker.lifecycle` at the start of a worker; `worker.jobs.running_worker.worker_of` returns it.
    running_worker: RunningWorker

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
        broker_url, result_backend = self.settings.broker_url, self.settings.result_backend
        try:
            return endpoint(broker_url, "NAMESHOT_BROKER_URL"), endpoint(result_backend, "NAMESHOT_RESULT_BACKEND")
        except SettingsError as error:
            raise refusal(error) from None

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

    @cached_property
    def WorkController(self) -> Any:  # noqa: N802 - Celery's name
        """The class of which ``celery graph bootsteps`` would make a worker only to draw it."""
        raise refusal("`celery graph bootsteps` cannot be used: it would load the model.")

    @cached_property
    def loader(self) -> Any:
        """Celery's loader, which it makes when it first needs it."""
        try:
            return get_loader_cls(self.loader_cls)(app=self)
        except Exception as error:
            raise module_refusal("--loader", error) from None

    def _load_config(self) -> Any:
        try:
            return super()._load_config()
        except Exception as error:  # the module is a program of the user's
            raise module_refusal("--config", error) from None

    def _connection(self, _url: Any, *args: Any, **options: Any) -> Any:
        """Connect to our endpoint, ignoring a URL from Celery's environment variables or ``--broker``."""
        return super()._connection(self.endpoints[0].shown, *args, **options)
