"""A producer process: submits its share of a run's jobs at an even pace, each until it is accepted.

It notes each accepted job in a file. One that is killed in between leaves a job that may have been submitted; its
replacement submits it again under the same id, as the README tells web apps to do.
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
from tests.chaos.jobs import ChaosJob, job

#: What a web app's own retry would wait.
RETRY_DELAY_S = 0.2

Send = Callable[[ChaosJob], object]


def main() -> None:
    """Submit jobs ``share``, ``share + shares``, … below ``jobs``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("client", "plain"))
    parser.add_argument("--accepted", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--share", type=int, required=True)
    parser.add_argument("--shares", type=int, required=True)
    parser.add_argument("--first-at", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("--every-s", type=float, required=True, help="between two jobs of the run")
    parser.add_argument("--pictures", required=True, help="URL before a picture's path")
    arguments = parser.parse_args()
    send = (our_client if arguments.kind == "client" else plain_celery)(arguments.pictures)
    file = os.open(arguments.accepted, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    known = set(arguments.accepted.read_text().split())
    for number in range(arguments.share, arguments.jobs, arguments.shares):
        asked = job(arguments.seed, number)
        if asked.id not in known:
            time.sleep(max(0.0, arguments.first_at + number * arguments.every_s - time.time()))
            submit_until_accepted(send, asked)
            os.write(file, f"{asked.id}\n".encode())


def submit_until_accepted(send: Send, asked: ChaosJob) -> None:
    """Repeat the submission while Redis cannot be reached or the queue is full."""
    while True:
        try:
            send(asked)
        except (BrokerUnavailable, QueueFull, OperationalError, redis.RedisError) as error:
            print(f"{asked.id}: {type(error).__name__}: {error}")
            time.sleep(RETRY_DELAY_S)
        else:
            return


def our_client(pictures: str) -> Send:
    """`producer.Client`, configured by the environment."""
    client = Client()
    return lambda asked: client.submit(pictures + asked.picture, asked.labels, job_id=asked.id)


def plain_celery(pictures: str) -> Send:
    """A Celery client that knows the task's name and the queue's."""
    app = Celery("somebody-else", broker=os.environ["NAMESHOT_BROKER_URL"])
    return lambda asked: app.send_task(
        "nameshot.classify",
        kwargs={"image": pictures + asked.picture, "candidate_labels": asked.labels},
        queue="nameshot.default",
        task_id=asked.id,
    )


if __name__ == "__main__":
    main()
