"""The names of tasks, queues, Redis keys and headers."""

from __future__ import annotations

from typing import Final, Literal

CLASSIFY: Final = "nameshot.classify"
CLASSIFY_MANY: Final = "nameshot.classify_many"

Queue = Literal["high", "default", "bulk"]
#: The queues, the most important first.
QUEUES: Final[tuple[Queue, ...]] = ("high", "default", "bulk")

#: Message header: seconds since the epoch at which our client sent the job (float).
SENT_AT_HEADER: Final = "nameshot_sent_at"


def queue_name(prefix: str, queue: Queue) -> str:
    """Return the name of a queue's Redis list and Celery queue, for example ``nameshot.default``."""
    return f"{prefix}.{queue}"


def rung_name(queue: str) -> str:
    """Return the list of a queue's messages that have woken a worker and that no worker has taken yet."""
    return f"{queue}:rung"


def taken_name(queue: str) -> str:
    """Return the counter of messages that workers took from a queue, less those requeued at its front."""
    return f"{queue}:taken"


def step_names(queue: str) -> tuple[str, ...]:
    """Return the lists of a plain Celery client's priorities 1 to 9, the highest first.

    kombu puts each priority into a list of its own, and 0 into the queue itself. It separates the two by control
    characters, and by a colon where it is configured as Celery's page on Redis shows.
    """
    return tuple(f"{queue}{separator}{step}" for step in range(1, 10) for separator in ("\x06\x16", ":"))


def waiting_names(queue: str) -> tuple[str, ...]:
    """Return all lists in which a queue's messages wait: its own, that of rung messages, and those of priorities."""
    return (queue, rung_name(queue), *step_names(queue))


def claim_key(prefix: str, job_id: str) -> str:
    """Return the key that holds a submitted job's payload fingerprint for as long as its result may exist."""
    return f"{prefix}:claim:{job_id}"


def place_key(prefix: str, job_id: str) -> str:
    """Return the key, next to the claim's, that holds where the job waits: ``<queue> <number> <life>``.

    The job waits until its queue's `taken_name` has reached the number. The life is the delivery tag with which its
    message was sent; it distinguishes the message from others of the same id.
    """
    return f"{claim_key(prefix, job_id)}:place"


def claim_and_place(prefix: str, job_id: str) -> tuple[str, str]:
    """Return a job's `claim_key` and `place_key`, which every script takes in this order."""
    return claim_key(prefix, job_id), place_key(prefix, job_id)


def in_hand_key(prefix: str) -> str:
    """Return the hash that maps the id of each job whose message was taken to where the message is.

    A value is the name of a worker process, ``postponed <seconds since the epoch>``, or ``returned <queue> <number>``
    for a message that is back at the front of its queue.
    """
    return f"{prefix}:in-hand"


def mixed_key(prefix: str) -> str:
    """Return the key that exists while workers of an older version run, which keep no `taken_name`, and a day more."""
    return f"{prefix}:mixed"


def forget_key(prefix: str) -> str:
    """Return the list of forgotten jobs, ``<id> <life>``, whose messages and dead letters workers must remove."""
    return f"{prefix}:forget"


def cancel_channel(prefix: str) -> str:
    """Return the pub/sub channel that announces the ids of cancelled jobs to workers."""
    return f"{prefix}:cancelled"


def answer_key(job_id: str) -> str:
    """Return the key of a job's state and answer in Celery's Redis backend, and the channel that announces it."""
    return f"celery-task-meta-{job_id}"


def forgotten_key(job_id: str) -> str:
    """Return the sorted set, in the result backend, of the messages that must not answer this id any more.

    No `answer_key` has this prefix, whatever id a plain Celery client chooses. See `producer.operations.answers`.
    """
    return f"nameshot-forgotten-{job_id}"


def workers_key(prefix: str) -> str:
    """Return the set of the names of all worker processes that may hold messages."""
    return f"{prefix}:workers"


#: The random part of a worker's name begins with this if the worker counts the messages that it takes. In a name of an
#: older version it begins with a hex digit.
COUNTING: Final = "n"


def counts_what_it_takes(worker: str) -> bool:
    """Return whether the worker with this name keeps `taken_name` and `in_hand_key`; versions up to 0.1 do not."""
    return worker.rpartition("/")[2].startswith(COUNTING)


def lease_key(prefix: str, worker: str) -> str:
    """Return the key of a live worker process; its value is ``<host>/<process id>``, then ``: `` and any problem."""
    return f"{prefix}:lease:{worker}"


def in_flight_key(prefix: str, worker: str) -> str:
    """Return the hash of the messages that a worker process holds."""
    return f"{prefix}:in-flight:{worker}"


def alone_key(prefix: str, worker: str) -> str:
    """Return the key that names what a worker runs alone: a job's id, and the index of a bulk job's image."""
    return f"{prefix}:alone:{worker}"


def suspects_key(prefix: str) -> str:
    """Return the hash that counts, per job, the workers that died while holding it."""
    return f"{prefix}:suspects"


def postponed_key(prefix: str) -> str:
    """Return the sorted set of postponed messages, by the time from which they may run."""
    return f"{prefix}:postponed"


def looker_key(prefix: str) -> str:
    """Return the key that exists briefly after a worker has looked for dead workers."""
    return f"{prefix}:looker"


def upkeep_key(prefix: str) -> str:
    """Return the key that names the worker in charge of periodic maintenance."""
    return f"{prefix}:upkeep"


def dead_letters_key(prefix: str) -> str:
    """Return the list of dead letters, one JSON record each, newest first."""
    return f"{prefix}:dead-letters"


def dead_letter_messages_key(prefix: str) -> str:
    """Return the hash that maps a dead letter's own id to its message, byte for byte."""
    return f"{prefix}:dead-letters:messages"
