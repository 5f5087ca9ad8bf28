"""The class of the worker's Celery app: its configuration, and the attributes that a program may replace."""

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
    """A Celery app with a worker's settings, which it reads only when Celery or the worker needs them."""

    #: Without this class Celery would choose a backend by a URL, which it parses in its own way.
    backend_cls = "worker.jobs.results:FirstAnswerBackend"
    registry_cls = "worker.jobs.registry:OnlyOurs"
    control_cls = "worker.jobs.remote_control:CarefulControl"
    #: A program with its own model replaces this function before the worker starts.
    load_model: Callable[..., Model] = staticmethod(load_model)
    #: A program also replaces this function if its model has no `Geometry` and runs in an engine process.
    load_preparation: Callable[..., Preparation] = staticmethod(load_preparation)
    #: How this worker reaches its engine process, set before the start; None if the worker loads the model itself.
    front: Front | None = None
    #: The `worker.lifecycle` module sets this attribute when a worker starts; `worker_of` returns it.
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
        """The endpoints of the broker and the result backend, parsed as clients parse them."""
        broker_url, result_backend = self.settings.broker_url, self.settings.result_backend
        try:
            return endpoint(broker_url, "NAMESHOT_BROKER_URL"), endpoint(result_backend, "NAMESHOT_RESULT_BACKEND")
        except SettingsError as error:
            raise refusal(error) from None

    @cached_property
    def delivery_keys(self) -> DeliveryKeys:
        """The names of this worker's keys in Redis, with a unique worker name."""
        return DeliveryKeys(self.settings.queue_prefix, new_worker_name())

    def own_configuration(self) -> dict[str, Any]:
        """Return the Celery settings that this worker needs, whatever else is configured."""
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
        """The class that ``celery graph bootsteps`` would use; reading it ends the program with a sentence."""
        raise refusal("`celery graph bootsteps` cannot be used: it would load the model.")

    @cached_property
    def loader(self) -> Any:
        """The loader, which Celery creates when it is first needed."""
        try:
            return get_loader_cls(self.loader_cls)(app=self)
        except Exception as error:
            raise module_refusal("--loader", error) from None

    def _load_config(self) -> Any:
        try:
            return super()._load_config()
        except Exception as error:  # the user's configuration module may raise anything
            raise module_refusal("--config", error) from None

    def _connection(self, _url: Any, *args: Any, **options: Any) -> Any:
        """Return a connection to our endpoint; a URL from Celery's environment variables or ``--broker`` is ignored."""
        return super()._connection(self.endpoints[0].shown, *args, **options)
