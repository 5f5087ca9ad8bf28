"""How an answer is written: as any Celery client reads it."""

import json

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from producer.broker.urls import endpoint
from worker.jobs.results import FirstAnswerBackend


@pytest.fixture(scope="module")
def backend() -> FirstAnswerBackend:
    """Connected to nothing."""
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
