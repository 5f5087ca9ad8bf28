"""Combine a client's arguments and the environment into plain values."""

from __future__ import annotations

from dataclasses import dataclass

from producer.broker.urls import Endpoint, endpoint
from producer.messages.submission import MessageWriter


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration of a client, blocking or asyncio."""

    broker: Endpoint
    results: Endpoint
    queue_prefix: str
    result_ttl_s: int
    max_queue: int

    @property
    def writer(self) -> MessageWriter:
        """The writer of the client's messages."""
        return MessageWriter(self.queue_prefix, self.result_ttl_s)


def configure(
    broker_url: str | None = None,
    result_backend: str | None = None,
    result_ttl: int | None = None,
    queue_prefix: str | None = None,
    max_queue: int | None = None,
) -> Configuration:
    """Return the configuration; each argument that is None comes from the environment. Raises `SettingsError`."""
    # Imported here, because pydantic-settings alone takes longer to import than the rest of `producer`.
    from producer.settings import ProducerSettings, read_settings

    settings = read_settings(
        ProducerSettings,
        broker_url=broker_url,
        result_backend=result_backend,
        result_ttl=result_ttl,
        queue_prefix=queue_prefix,
        max_queue=max_queue,
    )
    return Configuration(
        broker=endpoint(settings.broker_url, "NAMESHOT_BROKER_URL"),
        results=endpoint(settings.result_backend, "NAMESHOT_RESULT_BACKEND"),
        queue_prefix=settings.queue_prefix,
        result_ttl_s=settings.result_ttl,
        max_queue=settings.max_queue,
    )
