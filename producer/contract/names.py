"""Every name that travels: tasks, queues, keys and headers."""

from __future__ import annotations

from typing import Final, Literal

CLASSIFY: Final = "nameshot.classify"
CLASSIFY_MANY: Final = "nameshot.classify_many"

Queue = Literal["high", "default", "bulk"]
#: In the order in which they are served when all of them wait.
QUEUES: Final[tuple[Queue, ...]] = ("high", "default", "bulk")

#: Message header: seconds since the epoch at which our client sent the job (float).
SENT_AT_HEADER: Final = "nameshot_sent_at"


def queue_name(prefix: str, queue: Queue) -> str:
    """The Redis list and Celery queue behind one of ours, ``nameshot.default`` for example."""
    return f"{prefix}.{queue}"


def rung_name(queue: str) -> str:
    """The list of the messages of a queue that have woken a worker, a moment before one takes them."""
    return f"{queue}:rung"


def taken_name(queue: str) -> str:
    """The counter of the messages that workers took from a queue, less those that went back to its front."""
    return f"{queue}:taken"


def step_names(queue: str) -> tuple[str, ...]:
    """The lists of a plain Celery client's priorities 1 to 9, the highest first.

    kombu puts each priority into a list of its own, and 0 into the queue itself. It separates the two by control
    characters, and by a colon where it is configured as Celery's page on Redis shows.
    """
    return tuple(f"{queue}{separator}{step}" for step in range(1, 10) for separator in ("\x06\x16", ":"))


def claim_key(prefix: str, job_id: str) -> str:
    """The key that holds a submitted job's payload fingerprint for as long as its result may live."""
    return f"{prefix}:claim:{job_id}"


def place_key(prefix: str, job_id: str) -> str:
    """The key beside a claim that says where the job waits: ``<queue> <number> <life>``.

    The job waits until its queue's `taken_name` has reached the number. The life is the delivery tag with which its
    message was sent: it tells the message apart from another of the same id.
    """
    return f"{claim_key(prefix, job_id)}:place"


def in_hand_key(prefix: str) -> str:
    """The hash from the id of each job whose message was taken to where that message is.

    That is the name of a worker process, ``postponed <seconds since the epoch>``, or ``returned <queue> <number>`` for
    one that is back at the front of its queue.
    """
    return f"{prefix}:in-hand"


def mixed_key(prefix: str) -> str:
    """The key that exists for a day after a worker was seen that keeps neither `taken_name` nor `in_hand_key`."""
    return f"{prefix}:mixed"


def forget_key(prefix: str) -> str:
    """The list of the jobs, ``<id> <life>``, of which workers are to remove what is left."""
    return f"{prefix}:forget"


def cancel_channel(prefix: str) -> str:
    """The pub/sub channel on which the ids of cancelled jobs are announced to running workers."""
    return f"{prefix}:cancelled"


def answer_key(job_id: str) -> str:
    """Where Celery's Redis backend keeps a job's state and answer, and the channel that announces it."""
    return f"celery-task-meta-{job_id}"


def forgotten_key(job_id: str) -> str:
    """The sorted set, in the result backend, of which messages must not answer this id any more, and since when.

    No `answer_key` begins so, whatever id a plain Celery client chooses. See `producer.operations.answers`.
    """
    return f"nameshot-forgotten-{job_id}"


def workers_key(prefix: str) -> str:
    """The set of the names of all worker processes that may hold messages."""
    return f"{prefix}:workers"


#: What the random part of a worker's name begins with that counts what it takes; no hexadecimal digit, as in others.
COUNTING: Final = "n"


def counts_what_it_takes(worker: str) -> bool:
    """Whether the worker of that name keeps `taken_name` and `in_hand_key`; those of versions up to 0.1 do not."""
    return worker.rpartition("/")[2].startswith(COUNTING)


def lease_key(prefix: str, worker: str) -> str:
    """The key that exists while a worker process lives: ``<host>/<process id>``, and after ``: `` what ails it."""
    return f"{prefix}:lease:{worker}"


def in_flight_key(prefix: str, worker: str) -> str:
    """The hash of the messages that a worker process holds."""
    return f"{prefix}:in-flight:{worker}"


def alone_key(prefix: str, worker: str) -> str:
    """What a worker process runs with nothing beside it: a job's id, of a bulk job's image its number too."""
    return f"{prefix}:alone:{worker}"


def suspects_key(prefix: str) -> str:
    """The hash of how often each job was in the hands of a worker that died."""
    return f"{prefix}:suspects"


def postponed_key(prefix: str) -> str:
    """The sorted set of the messages that may not run yet, by when they may."""
    return f"{prefix}:postponed"


def looker_key(prefix: str) -> str:
    """Exists while a worker has just looked after dead ones."""
    return f"{prefix}:looker"


def upkeep_key(prefix: str) -> str:
    """Names the worker that keeps the database in order."""
    return f"{prefix}:upkeep"


def dead_letters_key(prefix: str) -> str:
    """The list of what workers gave up on, one JSON record each, newest first."""
    return f"{prefix}:dead-letters"


def dead_letter_messages_key(prefix: str) -> str:
    """The hash from a dead letter's own id to its message, byte by byte."""
    return f"{prefix}:dead-letters:messages"
