"""Jobs that either version's client can submit, with their right answers, and counts of Redis's messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from producer.contract.names import QUEUES, in_flight_key, queue_name, rung_name, workers_key
from tests.acceptance.origin import Origin
from tests.chaos.jobs import job, right_ranking

PREFIX = "nameshot"


class Asked:
    """The jobs with these numbers, and their right rankings."""

    def __init__(self, origin: Origin, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)
        self.ids = [job(0, number).id for number in self.numbers]
        self.right = [right_ranking(number) for number in self.numbers]
        self.jobs: list[dict[str, Any]] = [
            {"id": asked.id, "url": origin.url(asked.picture), "labels": asked.labels}
            for asked in (job(0, number) for number in self.numbers)
        ]

    def with_other_labels(self) -> list[dict[str, Any]]:
        """Return the jobs with the same ids and one more label."""
        return [{**asked, "labels": [*asked["labels"], "another label"]} for asked in self.jobs]


def waiting(broker: redis.Redis) -> int:
    """Return how many messages wait in the queues."""
    names = [queue_name(PREFIX, queue) for queue in QUEUES]
    return sum(int(broker.llen(name)) + int(broker.llen(rung_name(name))) for name in names)


def held(broker: redis.Redis) -> int:
    """Return how many messages workers hold, including workers that died."""
    names: set[bytes] = broker.smembers(workers_key(PREFIX))  # type: ignore[assignment]  # the connection does not decode
    return sum(int(broker.hlen(in_flight_key(PREFIX, name.decode()))) for name in names)
