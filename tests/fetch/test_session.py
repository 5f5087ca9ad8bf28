"""The ``requests`` session sends no request whose address was not checked."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from worker.fetch import Fetcher, UrlPolicy
from worker.fetch.session import GuardedSession


@pytest.fixture
def session() -> GuardedSession:
    return Fetcher(UrlPolicy.parsed("80", "", ""), max_bytes=1, timeout_s=1)._session


def test_a_request_to_an_unchecked_address_is_not_sent(session: GuardedSession, dialled: list[Any]) -> None:
    for send in (session.get, session.post, session.head):
        with pytest.raises(TypeError, match="CheckedRequest"):
            send("http://h.example/")
    with pytest.raises(requests.exceptions.InvalidSchema):
        session.get_adapter("file:///etc/passwd")
    assert dialled == []


def test_the_session_follows_no_redirects_and_ignores_the_environment(session: GuardedSession) -> None:
    assert list(session.resolve_redirects(requests.Response(), requests.PreparedRequest())) == []
    assert session.trust_env is False
