"""Runs the periodic duties of a thread, so that a duty that fails does not keep the others from running."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from worker.delivery.names import DeliveryKeys
from worker.delivery.outages import describe, is_outage, is_wrong_type

logger = logging.getLogger(__name__)


class Duties:
    """Catches the error of each duty, and logs it once, until the duty succeeds again or fails for another reason.

    Args:
        client: a Redis client for the broker's database.
        keys: the keys whose types are checked when Redis says that one has the wrong type.
    """

    def __init__(self, client: Any, keys: DeliveryKeys) -> None:
        self._client = client
        self._keys = keys
        self._failing: dict[str, str] = {}

    @contextmanager
    def duty(self, name: str) -> Iterator[None]:
        """Run one duty within this context; the name completes the log line "cannot <name>".

        Raises:
            RedisError: the broker is down, so every other duty would fail too.
        """
        try:
            yield
        except Exception as error:  # the thread must keep running, whatever a key holds
            if isinstance(error, redis.RedisError) and is_outage(error):
                raise
            self.report(name, self._reason(error))
        else:
            self.report(name, "")

    def report(self, name: str, reason: str) -> None:
        """Log once that a duty fails for this reason or, if the reason is empty, that it succeeds again."""
        if self._failing.get(name, "") == reason:
            return
        if reason:
            logger.error("cannot %s: %s", name, reason)
            self._failing[name] = reason
        else:
            logger.info("can %s again", name)
            del self._failing[name]

    def _reason(self, error: Exception) -> str:
        found = wrong_types(self._client, self._keys) if is_wrong_type(error) else []
        return f"{describe(error)} ({'; '.join(found)})" if found else describe(error)


def wrong_types(client: Any, keys: DeliveryKeys) -> list[str]:
    """Return a clause for each key of the delivery that has the wrong type; raise `RedisError` if the broker fails."""
    expected = {
        **dict.fromkeys((*keys.lists, keys.dead_letters, keys.forget), "list"),
        **dict.fromkeys((keys.in_flight, keys.in_hand, keys.suspects, keys.dead_letter_messages), "hash"),
        **dict.fromkeys((keys.lease, keys.alone, keys.mixed, *keys.counters), "string"),
        keys.workers: "set",
        keys.postponed: "zset",
    }
    with client.pipeline(transaction=False) as pipe:
        for key in expected:
            pipe.type(key)
        found: Sequence[bytes] = pipe.execute()
    return [
        f"the key {key} holds a {kind.decode()}, not a {expected[key]}"
        for key, kind in zip(expected, found, strict=True)
        if kind.decode() not in ("none", expected[key])
    ]
