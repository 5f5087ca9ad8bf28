"""A connection that holds an unread reply is replaced: each of its later commands would get its predecessor's reply."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from producer.broker.dialling import connect, connect_async
from producer.broker.urls import endpoint
from tests.valkey_server import ValkeyServer
from worker.jobs.app import Nameshot

TIMEOUT_S = 60


@pytest.fixture(params=["", "?protocol=2", "?protocol=3"])
def urls(valkey: ValkeyServer, request: pytest.FixtureRequest) -> tuple[str, str]:
    """The broker and the result backend, as a user may write them."""
    return f"{valkey.url(0, 'worker')}{request.param}", f"{valkey.url(1, 'worker')}{request.param}"


@pytest.fixture
def app(urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Nameshot]:
    monkeypatch.setenv("NAMESHOT_BROKER_URL", urls[0])
    monkeypatch.setenv("NAMESHOT_RESULT_BACKEND", urls[1])
    with Nameshot("surplus", set_as_current=False) as app:
        app.add_defaults(app.own_configuration)
        yield app


def assert_its_own_reply_after_a_surplus_one(client: redis.Redis) -> None:
    connection = client.connection_pool.get_connection()
    for reply in ("read", "surplus"):
        connection.send_command("EVAL", f"return '{reply}'", 0)
    assert connection.read_response() == b"read"
    assert connection.can_read(TIMEOUT_S)
    client.connection_pool.release(connection)

    assert client.eval("return 'own'", 0) == b"own"


def test_every_client_replaces_a_connection_with_an_unread_reply(urls: tuple[str, str]) -> None:
    for url in urls:
        with connect(endpoint(url, "the URL")) as client:
            assert_its_own_reply_after_a_surplus_one(client)


def test_an_asyncio_client_replaces_a_connection_with_an_unread_reply(urls: tuple[str, str]) -> None:
    async def ask() -> object:
        async with connect_async(endpoint(urls[0], "the URL")) as client:
            connection = await client.connection_pool.get_connection()
            for reply in ("read", "surplus"):
                await connection.send_command("EVAL", f"return '{reply}'", 0)
            assert await connection.read_response() == b"read"
            while not await connection.can_read():  # noqa: ASYNC110 - redis-py has no event for this
                await asyncio.sleep(0)
            await client.connection_pool.release(connection)
            return await client.eval("return 'own'", 0)

    assert asyncio.run(ask()) == b"own"


def test_a_workers_result_backend_replaces_a_connection_with_an_unread_reply(app: Nameshot) -> None:
    assert_its_own_reply_after_a_surplus_one(app.backend.client)


def test_a_worker_replaces_a_connection_to_the_broker_with_an_unread_reply(app: Nameshot) -> None:
    with app.connection_for_write() as connection, closing(connection.default_channel) as channel:
        assert_its_own_reply_after_a_surplus_one(channel.holding)
        for pool in (channel.pool, channel.async_pool):
            assert_its_own_reply_after_a_surplus_one(channel.Client(connection_pool=pool))
