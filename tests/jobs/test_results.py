"""Workers write answers that any Celery client can read."""

import json

import pytest
import redis
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from producer.broker.dialling import MAX_CONNECTIONS
from producer.broker.urls import endpoint
from tests.valkey_server import ValkeyServer
from worker.delivery.outages import is_outage
from worker.jobs.results import FirstAnswerBackend


@pytest.fixture(scope="module")
def backend() -> FirstAnswerBackend:
    """A backend without a connection."""
    app = Celery("answers", set_as_current=False)
    app.endpoints = (endpoint("redis://127.0.0.1:1/0", "the broker"), endpoint("redis://127.0.0.1:1/1", "the backend"))
    return FirstAnswerBackend(app=app)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_value_is_read_back_as_it_was(backend: FirstAnswerBackend, value: object) -> None:
    written = backend.encode(value)

    assert json.loads(written) == value
    assert backend.decode(written) == value


def test_half_a_surrogate_pair_is_written_as_celery_writes_it(backend: FirstAnswerBackend) -> None:
    assert backend.decode(backend.encode({"message": "\ud83e"})) == {"message": "\ud83e"}


def test_hundreds_of_threads_may_store_answers_at_once(backend: FirstAnswerBackend) -> None:
    assert backend.client.connection_pool.max_connections == MAX_CONNECTIONS


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"[" * 100_000, b"7", b"null", b"9" * 5_000])
def test_an_answer_that_another_program_has_overwritten_counts_as_none(valkey: ValkeyServer, garbage: bytes) -> None:
    app = Celery("answers", set_as_current=False)
    app.endpoints = tuple(endpoint(valkey.url(database), "the URL") for database in (0, 1))
    backend = FirstAnswerBackend(app=app)
    backend.client.set(backend.get_key_for_task("an-id"), garbage)

    assert backend.failed_attempts("an-id", "a-life") == 0
    assert not backend.is_cancelled("an-id")


def test_a_permission_that_a_script_lacks_counts_as_an_outage() -> None:
    assert is_outage(redis.ResponseError("ACL failure in script: User w has no permissions to run the 'zadd' command"))
