"""``python -m tests.chaos.takers`` kills processes that only take and acknowledge messages, at random moments.

Kombu's own Redis transport loses a message if a process is killed after it popped the message and before it recorded
it. Each taker is forked from a process that has imported everything, so the kills follow one another much faster than
whole workers could start. Exits with 1 if a message is lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import redis
from kombu import Connection, Consumer, Queue

from producer.broker.urls import endpoint
from producer.contract.names import rung_name
from producer.embedded.valkey import RunningValkey
from worker.delivery.moves import reclaim
from worker.delivery.names import DeliveryKeys

QUEUE = "nameshot.default"
DONE = "done"
#: A taker begins some 10 ms after the fork, and then takes about 1,000 messages/s.
LIFE_S = (0.01, 0.15)
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of the kills.

    Attributes:
        in_hand: how many killed processes held messages.
        lost: how many messages no taker finished and no key of Redis holds.
    """

    kills: int
    in_hand: int
    messages: int
    lost: int


def run(kills: int, messages: int, *, seed: int, folder: Path) -> Outcome:
    """Queue ``messages`` messages, kill ``kills`` takers, let a last one finish, and return the counts."""
    source = random.Random(seed)
    processes = multiprocessing.get_context("fork")
    with RunningValkey(folder, persistent=False) as valkey, redis.Redis.from_url(valkey.broker_url) as broker:
        ids = [f"message-{number}" for number in range(messages)]
        hits: Counter[bool] = Counter()
        for number in range(kills):
            # The queue never runs empty, as under load.
            first, last = (messages * at // kills for at in (number, number + 1))
            if first < last:
                broker.lpush(QUEUE, *(envelope(job_id) for job_id in ids[first:last]))
            keys = DeliveryKeys("nameshot", f"taker-{number}")
            taker = processes.Process(target=_take, args=(valkey.broker_url, keys))
            taker.start()
            taker.join(source.uniform(*LIFE_S))
            taker.kill()
            taker.join()
            hits[reclaim(broker, keys, "gone") > 0] += 1
        keys = DeliveryKeys("nameshot", "last")
        last_taker = processes.Process(target=_take, args=(valkey.broker_url, keys))
        last_taker.start()
        while broker.llen(QUEUE) or broker.llen(rung_name(QUEUE)) or broker.hlen(keys.in_flight):
            if not last_taker.is_alive():
                raise RuntimeError("the last taker ended before the queue was empty")
        last_taker.kill()
        last_taker.join()
        done = {member.decode() for member in broker.smembers(DONE)}
        return Outcome(kills, hits[True], messages, len(set(ids) - done))


def _take(url: str, keys: DeliveryKeys) -> None:
    """Take messages as a worker does, record each as done and acknowledge it, and do nothing else."""
    options = {
        "queue_prefix": keys.prefix,
        "worker_name": keys.worker,
        "priority_steps": [0],
        "endpoint": endpoint(url, "the broker"),
    }
    with (
        redis.Redis.from_url(url) as broker,
        Connection(url, transport="worker.delivery.transport:AtomicTransport", transport_options=options) as connection,
    ):
        broker.sadd(keys.workers, keys.worker)
        broker.set(keys.lease, 1, ex=int(TIMEOUT_S))

        def work(_body: object, message: object) -> None:
            broker.sadd(DONE, message.headers["id"])  # type: ignore[attr-defined] # kombu is untyped
            message.ack()  # type: ignore[attr-defined] # kombu is untyped

        with Consumer(connection, queues=[Queue(QUEUE, routing_key=QUEUE)], callbacks=[work], accept=["json"]):
            while True:
                try:
                    connection.drain_events(timeout=1)
                except TimeoutError:
                    continue


def envelope(job_id: str) -> str:
    """Return a message as kombu writes it; only its id matters."""
    properties = {"delivery_tag": "", "delivery_info": {"exchange": "", "routing_key": QUEUE}}
    return json.dumps(
        {
            "body": "[]",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"id": job_id},
            "properties": properties,
        }
    )


def main() -> int:
    """Run the kills and print the counts; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.takers", description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000, help="(%(default)s)")
    parser.add_argument("--messages", type=int, default=50_000, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(arguments.kills, arguments.messages, seed=arguments.seed, folder=Path(folder))
    print(outcome)
    return 1 if outcome.lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
