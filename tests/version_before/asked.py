"""What the tests ask: jobs that either client can submit, and the answer that is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from producer.contract.names import QUEUES, in_flight_key, queue_name, rung_name, workers_key
from tests.acceptance.origin import Origin
from tests.chaos.jobs import job, right_ranking

PREFIX = "nameshot"


class Asked:
    """Jobs by their numbers."""

    def __init__(self, origin: Origin, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)
        self.ids = [job(0, number).id for number in self.numbers]
        self.right = [right_ranking(number) for number in self.numbers]
        self.jobs: list[dict[str, Any]] = [
            {"id": asked.id, "url": origin.url(asked.picture), "labels": asked.labels}
            for asked in (job(0, number) for number in self.numbers)
        ]

    def with_other_labels(self) -> list[dict[str, Any]]:
        """The same ids, and another question."""
        return [{**asked, "labels": [*asked["labels"], "another label"]} for asked in self.jobs]


def waiting(broker: redis.Redis) -> int:
    """Messages in the queues."""
    names = [queue_name(PREFIX, queue) for queue in QUEUES]
    return sum(int(broker.llen(name)) + int(broker.llen(rung_name(name))) for name in names)


def held(broker: redis.Redis) -> int:
    """Messages in workers' hands, dead or alive."""
    names: set[bytes] = broker.smembers(workers_key(PREFIX))  # type: ignore[assignment]  # it decodes nothing
    return sum(int(broker.hlen(in_flight_key(PREFIX, name.decode()))) for name in names)
