"""The settings that clients and workers share, and the function that reads settings from the environment.

Each setting is one field, named after its variable: ``NAMESHOT_BROKER_URL`` is `broker_url`. Nothing is read at
import: a program calls `read_settings` when it starts or creates a client, and passes plain values on.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from producer.errors import SettingsError

PREFIX = "NAMESHOT_"
#: The key of a field's ``json_schema_extra`` whose value says what the field's pattern accepts.
WANTED: Final = "wanted"
#: The value of a worker's ``NAMESHOT_MODEL`` that selects the toy checkpoint shipped with the project.
BUNDLED: Final = "bundled"
#: Ten years. Redis refuses only far longer TTLs, whose time of expiry in milliseconds does not fit into 64 bits.
MAX_RESULT_TTL_S: Final = 315_360_000
#: A billion messages exceed the memory of any Redis.
MAX_QUEUE: Final = 1_000_000_000

Settings = TypeVar("Settings", bound="ProducerSettings")


class ProducerSettings(BaseSettings):
    """The settings of a producer; the worker's settings extend them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        # Every number also has an upper bound: with a value that the system or Redis cannot represent, every job would
        # fail.
        allow_inf_nan=False,
    )

    broker_url: str = Field("redis://localhost:6379/0", repr=False, description="the Redis that holds the queues")
    result_backend: str = Field("redis://localhost:6379/1", repr=False, description="the Redis that holds the answers")
    result_ttl: int = Field(86_400, ge=1, le=MAX_RESULT_TTL_S, description="seconds to keep an answer")
    queue_prefix: str = Field(
        "nameshot",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        json_schema_extra={WANTED: "1 to 64 letters, digits, hyphens and underscores"},
        description="prefix of every queue's name, so that two systems can share a Redis; job ids that you choose must "
        "then differ between the systems, or each system needs its own result backend",
    )
    max_queue: int = Field(
        100_000,
        ge=1,
        le=MAX_QUEUE,
        description="number of waiting messages in a queue at which `submit` raises `QueueFull`",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="lowest level that is logged"
    )
    log_format: Literal["human", "json"] = Field("human", description="`human` or `json`")


def read_settings(kind: type[Settings], **overrides: Any) -> Settings:
    """Read settings from the environment; ``overrides`` that are not None take precedence.

    Raises:
        SettingsError: a value is invalid; the message is one sentence about the first such value.
    """
    try:
        return kind(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        field = str(faults[0]["loc"][0])
        # For a field with a union of types, pydantic reports one fault per type.
        extra = kind.model_fields[field].json_schema_extra
        wanted = [
            fault["msg"].removeprefix("Input should be ").partition(", unable")[0]
            if fault["type"] != "string_pattern_mismatch" or not isinstance(extra, dict)
            else str(extra[WANTED])
            for fault in faults
            if fault["loc"][0] == field
        ]
        # Fields without a repr are URLs, which may hold passwords.
        given = f"is {faults[0]['input']!r} and " if kind.model_fields[field].repr else ""
        name = PREFIX + field.upper()
        raise SettingsError(f"{name} {given}cannot be used; it should be {' or '.join(wanted)}.") from None
