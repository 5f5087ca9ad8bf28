"""The settings both sides share, and the one function that reads the environment.

Each setting is one field, named after its variable: ``NAMESHOT_BROKER_URL`` is `broker_url`. Nothing is read
at import; `read_settings` is called once by whoever starts something, and plain values go on from there.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from producer.errors import SettingsError

PREFIX = "NAMESHOT_"
#: Ten years. Redis keeps milliseconds in 64 bits, and refuses to store an answer whose end is beyond them.
MAX_RESULT_TTL_S: Final = 315_360_000
#: More messages than any Redis has memory for.
MAX_QUEUE: Final = 1_000_000_000

Settings = TypeVar("Settings", bound="ProducerSettings")


class ProducerSettings(BaseSettings):
    """What a producer needs to know; the worker's settings extend it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        # Every number has an upper bound too: what the system or Redis cannot count would fail job by job.
        allow_inf_nan=False,
    )

    broker_url: str = Field("redis://localhost:6379/0", repr=False, description="where the queues are")
    result_backend: str = Field("redis://localhost:6379/1", repr=False, description="where the answers are")
    result_ttl: int = Field(86_400, ge=1, le=MAX_RESULT_TTL_S, description="seconds an answer is kept")
    queue_prefix: str = Field(
        "nameshot",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="first part of every queue's name, so that two models can live side by side; ids that you choose "
        "must differ between them, or each needs a result backend of its own",
    )
    max_queue: int = Field(100_000, ge=1, le=MAX_QUEUE, description="waiting messages per queue before `QueueFull`")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="least severe log line"
    )
    log_format: Literal["human", "json"] = Field("human", description="`human` or `json`")


def read_settings(kind: type[Settings], **overrides: Any) -> Settings:
    """Read the environment once; ``overrides`` that are not None win over it.

    Raises:
        SettingsError: one sentence about the first value that is impossible.
    """
    try:
        return kind(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        field = str(faults[0]["loc"][0])
        # Where either of two types would do, pydantic has a fault for each.
        wanted = [
            fault["msg"].removeprefix("Input should be ").partition(", unable")[0]
            for fault in faults
            if fault["loc"][0] == field
        ]
        # The URLs hold passwords.
        given = f"is {faults[0]['input']!r} and " if kind.model_fields[field].repr else ""
        name = PREFIX + field.upper()
        raise SettingsError(f"{name} {given}cannot be used; it should be {' or '.join(wanted)}.") from None
