"""A program that dies during a purge, and workers that requeue messages during one."""

from collections.abc import Callable
from contextlib import suppress

import pytest
import redis

from producer import BrokerUnavailable, Client
from producer.operations.exchanges import Call, Together
from producer.operations.purging import _PURGE, purge
from tests.client.test_forgetting import LABELS, URL, answer, broker, life_of, now_us, results
from tests.valkey_server import ValkeyServer

__all__ = ["broker", "results"]  # fixtures


def purge_until(operator: Client, is_last: Callable[[Call | Together], bool]) -> None:
    """Purge, and stop before the call for which ``is_last`` is true."""
    operation = purge("nameshot", "default")
    call = next(operation)
    while not is_last(call):
        call = operation.send(operator._link._execute(call))


@pytest.mark.parametrize("calls", range(1, 20))
def test_wherever_a_purge_stops_no_old_message_answers_a_job_that_was_submitted_later(
    calls: int, client: Client, valkey: ValkeyServer, broker: redis.Redis, results: redis.Redis
) -> None:
    """The worker from which a message was requeued may be frozen, and still hold a copy."""
    job_ids = [f"order-{number}" for number in range(3)]
    for job_id in job_ids:
        client.submit(URL + "old", LABELS, job_id=job_id)
        broker.hset("nameshot:in-hand", job_id, f"returned default {job_id[-1]}")
    lives = {job_id: life_of(broker, job_id) for job_id in job_ids}
    taken = now_us(results)
    left = iter(range(calls))
    with Client(valkey.url(0, "worker"), valkey.url(1, "worker")) as operator:
        try:
            purge_until(operator, lambda _: next(left, None) is None)
        except StopIteration:
            assert not broker.exists("nameshot.default")

    for job_id in job_ids:
        if client.job(job_id).status() == "queued":
            continue  # its message still waits, and another purge would delete it
        again = client.submit(URL + "new", LABELS, job_id=job_id)
        assert again.is_new
        assert not answer(results, job_id, lives[job_id])
        assert not answer(results, job_id, "", taken)
        assert answer(results, job_id, life_of(broker, job_id))


def test_jobs_that_a_worker_requeues_during_a_purge_wait_in_order_and_are_not_reported_as_lost(
    client: Client, valkey: ValkeyServer, broker: redis.Redis
) -> None:
    held = [client.submit(URL, LABELS, job_id=f"held-{number}") for number in range(3)]
    messages = [broker.rpop("nameshot.default") for _ in held]
    broker.set("nameshot.default:taken", 3)
    purged = [client.submit(URL, LABELS, job_id=f"waits-{number}") for number in range(5)]

    def gives_back(call: Call | Together) -> bool:
        if isinstance(call, Call) and _PURGE in call.command and broker.llen("nameshot.default") == 4:
            for job, message in reversed(list(zip(held, messages, strict=True))):
                assert isinstance(message, bytes)
                broker.rpush("nameshot.default", message)
                number = broker.decr("nameshot.default:taken") + 1
                broker.hset("nameshot:in-hand", job.id, f"returned default {number}")
        return False

    with Client(valkey.url(0, "worker"), valkey.url(1, "worker")) as operator, suppress(StopIteration):
        purge_until(operator, gives_back)

    assert [job.status() for job in purged] == ["unknown"] * 5
    assert [job.status() for job in held] == ["queued"] * 3
    assert [job.position() for job in held] == [0, 1, 2]


def test_a_purge_that_fails_half_way_says_how_many_jobs_it_deleted(client: Client, valkey: ValkeyServer) -> None:
    client.submit_many({"url": URL, "labels": LABELS} for _ in range(5))
    operation = purge("nameshot", "default")
    with Client(valkey.url(0, "worker"), valkey.url(1, "worker")) as operator:
        call = next(operation)
        while not (
            isinstance(call, Call) and call.command[:2] == ("LRANGE", "nameshot.default") and not waits(client, 5)
        ):
            call = operation.send(operator._link._execute(call))

        with pytest.raises(BrokerUnavailable, match=r"is away\. Waiting jobs deleted before that: 1\. Repeat"):
            operation.throw(BrokerUnavailable("the server is away."))


def waits(client: Client, count: int) -> bool:
    return client.queue_depths()["default"] == count
