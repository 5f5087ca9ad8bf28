"""A producer process: submits its share of a run's jobs at an even pace, each until it is accepted.

It records each accepted job in a file. A producer that is killed in between leaves a job that may have been submitted;
its replacement submits the job again under the same id, as the README advises web apps to do.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from producer import BrokerUnavailable, Client, QueueFull
from producer.contract.names import CLASSIFY, CLASSIFY_MANY, queue_name
from tests.chaos.jobs import SENDERS, ChaosJob, Sender, job

#: How long a web app would wait before a retry.
RETRY_DELAY_S = 0.2
#: The errors after which a submission may be repeated.
LATER = (BrokerUnavailable, QueueFull, OperationalError, redis.RedisError)

Send = Callable[[ChaosJob], object]


def main() -> None:
    """Submit jobs ``share``, ``share + shares``, … below ``jobs``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(set(SENDERS)))
    parser.add_argument("--accepted", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--share", type=int, required=True)
    parser.add_argument("--shares", type=int, required=True)
    parser.add_argument("--first-at", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("--every-s", type=float, required=True, help="between two jobs of the run")
    parser.add_argument("--pictures", required=True, help="URL before a picture's path")
    parser.add_argument("--slow-pictures", required=True, help="likewise, of the last picture of a bulk message")
    arguments = parser.parse_args()
    pictures = (arguments.pictures, arguments.slow_pictures)
    send = sender(arguments.kind, pictures, os.environ["NAMESHOT_BROKER_URL"])
    file = os.open(arguments.accepted, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    known = set(arguments.accepted.read_text().split())
    for number in range(arguments.share, arguments.jobs, arguments.shares):
        asked = job(arguments.seed, number)
        if asked.id not in known:
            time.sleep(max(0.0, arguments.first_at + number * arguments.every_s - time.time()))
            submit_until_accepted(send, asked)
            os.write(file, f"{asked.id}\n".encode())


def submit_until_accepted(send: Send, asked: ChaosJob, say: Callable[[str], None] = print) -> None:
    """Repeat the submission while Redis cannot be reached or the queue is full."""
    while True:
        try:
            send(asked)
        except LATER as error:
            say(f"{asked.id}: {type(error).__name__}: {error}")
            time.sleep(RETRY_DELAY_S)
        else:
            return


def sender(kind: Sender, pictures: tuple[str, str], broker_url: str) -> Send:
    """Return a function that sends one job once; ``pictures`` holds the base URLs of ordinary and of slow pictures."""
    return our_client(pictures) if kind == "client" else plain_celery(pictures, broker_url)


def our_client(pictures: tuple[str, str]) -> Send:
    """Return a sender that uses `producer.Client`, configured by the environment."""
    client = Client()
    return lambda asked: client.submit(pictures[0] + asked.picture, asked.labels, job_id=asked.id, queue=asked.queue)


def plain_celery(pictures: tuple[str, str], broker_url: str) -> Send:
    """Return a sender that uses a plain Celery client, which knows only the names of tasks and queues.

    After an outage kombu's channels may fail permanently, with any error; then the sender makes another app.
    """
    apps = [Celery("somebody-else", broker=broker_url)]

    def send(asked: ChaosJob) -> None:
        urls = [pictures[0] + picture for picture in asked.pictures]
        if asked.is_bulk:
            urls[-1] = pictures[1] + asked.pictures[-1]
        try:
            apps[0].send_task(
                CLASSIFY_MANY if asked.is_bulk else CLASSIFY,
                kwargs={
                    **({"images": urls} if asked.is_bulk else {"image": urls[0]}),
                    "candidate_labels": asked.labels,
                },
                queue=queue_name("nameshot", asked.queue),
                task_id=asked.id,
            )
        except LATER:
            raise
        except Exception as error:
            apps[0] = Celery("somebody-else", broker=broker_url)
            raise OperationalError(f"{type(error).__name__}: {error}") from error

    return send


if __name__ == "__main__":
    main()
