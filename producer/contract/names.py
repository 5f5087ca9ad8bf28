"""The names of tasks, queues, Redis keys and headers."""

from __future__ import annotations

from typing import Final, Literal

CLASSIFY: Final = "nameshot.classify"
CLASSIFY_MANY: Final = "nameshot.classify_many"

Queue = Literal["high", "default", "bulk"]
#: The queues in descending order of priority.
QUEUES: Final[tuple[Queue, ...]] = ("high", "default", "bulk")

#: The message header in which our client stores the time of sending, a float of seconds since the epoch.
SENT_AT_HEADER: Final = "nameshot_sent_at"
#: The header that says how many more times workers may run the job if it fails with a retryable error. Without this
#: header, a job is not run again.
RETRIES_HEADER: Final = "nameshot_retries"


def queue_name(prefix: str, queue: Queue) -> str:
    """Return the name of a queue's Redis list and Celery queue, for example ``nameshot.default``."""
    return f"{prefix}.{queue}"


def rung_name(queue: str) -> str:
    """Return the name of the list of a queue's rung messages: each has woken a worker, and no worker has taken it."""
    return f"{queue}:rung"


def taken_name(queue: str) -> str:
    """Return the key of the counter of messages that workers took from a queue, minus those requeued at its front."""
    return f"{queue}:taken"


def step_names(queue: str) -> tuple[str, ...]:
    """Return the names of the lists for a plain Celery client's priorities 1 to 9, of which 1 is the highest.

    kombu uses one list per priority, and the queue's own list for priority 0, the highest of all. Between the queue's
    name and the priority, kombu writes two control characters, or a colon with the options that Celery's page on Redis
    recommends.
    """
    return tuple(f"{queue}{separator}{step}" for step in range(1, 10) for separator in ("\x06\x16", ":"))


def waiting_names(queue: str) -> tuple[str, ...]:
    """Return the names of all lists in which a queue's messages wait: the queue's own, its rung and priority lists."""
    return (queue, rung_name(queue), *step_names(queue))


def claim_key(prefix: str, job_id: str) -> str:
    """Return the key that holds a submitted job's payload fingerprint for as long as its result may exist."""
    return f"{prefix}:claim:{job_id}"


def place_key(prefix: str, job_id: str) -> str:
    """Return the key that holds where a job waits; the key expires with the claim.

    Its value is ``<queue> <number> <life>``, or ``<queue> <number> <expires_s> <life>`` if the job can expire. The job
    waits until its queue's counter, `taken_name`, has reached the number. The life is the delivery tag with which the
    client sent the message; it distinguishes the message from others of the same id. The job expires at ``expires_s``,
    in whole seconds since the epoch by the broker's clock.
    """
    return f"{claim_key(prefix, job_id)}:place"


def claim_and_place(prefix: str, job_id: str) -> tuple[str, str]:
    """Return a job's `claim_key` and `place_key`, in the order that every script expects."""
    return claim_key(prefix, job_id), place_key(prefix, job_id)


def in_hand_key(prefix: str) -> str:
    """Return the key of the hash that maps each job that a worker took to the location of its message.

    The fields of a job are its id and, if its message has a life, ``<id> <life>``. A value is the name of the worker
    process that holds the message, ``postponed <seconds since the epoch>``, or ``returned <queue> <number>`` if the
    message was requeued.
    """
    return f"{prefix}:in-hand"


def mixed_key(prefix: str) -> str:
    """Return the key that exists while workers of an older version run, and for a day after that.

    Such workers do not update `taken_name`.
    """
    return f"{prefix}:mixed"


def forget_key(prefix: str) -> str:
    """Return the key of the list of forgotten jobs, each ``<id> <life>``.

    Workers must remove the messages and dead letters of these jobs.
    """
    return f"{prefix}:forget"


def cancel_channel(prefix: str) -> str:
    """Return the pub/sub channel that announces the ids of cancelled jobs to workers."""
    return f"{prefix}:cancelled"


def answer_key(job_id: str) -> str:
    """Return the key of a job's answer in Celery's Redis backend, and the channel of that name that announces it."""
    return f"celery-task-meta-{job_id}"


def job_of_channel(channel: bytes) -> str:
    """Return the id of the job whose answer a channel announces."""
    return channel.decode().removeprefix(answer_key(""))


def forgotten_key(job_id: str) -> str:
    """Return the key of the sorted set, in the result backend, of this id's messages that workers must not answer.

    No `answer_key` has this prefix, whatever id a plain Celery client chooses. `producer.operations.answers` describes
    the members of the set.
    """
    return f"nameshot-forgotten-{job_id}"


def record_key(prefix: str, job_id: str) -> str:
    """Return the key, in the result backend, of the HTTP API's record of a job: who owns it, and when it was made."""
    return f"{prefix}:record:{job_id}"


def open_key(prefix: str, owner: str) -> str:
    """Return the key, in the result backend, of the sorted set of an API key's jobs that may have no answer yet.

    Each member is a job's id, scored by the milliseconds since the epoch at which the job was made.
    """
    return f"{prefix}:open:{owner}"


def rate_key(prefix: str, owner: str) -> str:
    """Return the key, in the result backend, that counts an API key's requests."""
    return f"{prefix}:rate:{owner}"


def workers_key(prefix: str) -> str:
    """Return the key of the set of names of all worker processes that may hold messages."""
    return f"{prefix}:workers"


#: The random part of a worker's name begins with this letter if the worker counts the messages that it takes. For a
#: worker of an older version, the random part begins with a hex digit.
COUNTING: Final = "n"


def counts_what_it_takes(worker: str) -> bool:
    """Return whether the worker with this name updates `taken_name` and `in_hand_key`; versions up to 0.1 do not."""
    return worker.rpartition("/")[2].startswith(COUNTING)


def lease_key(prefix: str, worker: str) -> str:
    """Return the key of a worker process's lease.

    `producer.contract.lease_value` describes its value.
    """
    return f"{prefix}:lease:{worker}"


def in_flight_key(prefix: str, worker: str) -> str:
    """Return the key of the hash of messages that a worker process holds."""
    return f"{prefix}:in-flight:{worker}"


def alone_key(prefix: str, worker: str) -> str:
    """Return the key that holds what a worker runs alone: a job's id and, for a bulk job, the index of the image.

    While the worker drains and runs no job alone, the value is `` draining``.
    """
    return f"{prefix}:alone:{worker}"


def suspects_key(prefix: str) -> str:
    """Return the key of the hash that counts, per job, the workers that died while they held the job."""
    return f"{prefix}:suspects"


def postponed_key(prefix: str) -> str:
    """Return the key of the sorted set of postponed messages, scored by the time from which they may run."""
    return f"{prefix}:postponed"


def looker_key(prefix: str) -> str:
    """Return the key that names the worker that last searched for dead workers; no other searches while it exists."""
    return f"{prefix}:looker"


def upkeep_key(prefix: str) -> str:
    """Return the key that names the worker in charge of periodic maintenance."""
    return f"{prefix}:upkeep"


def dead_letters_key(prefix: str) -> str:
    """Return the key of the list of dead letters, one JSON record each, newest first."""
    return f"{prefix}:dead-letters"


def dead_letter_messages_key(prefix: str) -> str:
    """Return the key of the hash that maps each dead letter's own id to its message, byte for byte."""
    return f"{prefix}:dead-letters:messages"
