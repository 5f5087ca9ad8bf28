"""The dates in a message, when it was sent and when it expires, are by Redis's clock, not by the client's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer import Client
from producer.contract.names import SENT_AT_HEADER
from producer.operations.dating import DATED
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]
YEAR_S = 366 * 86_400


def newest(broker: redis.Redis) -> dict[str, Any]:
    """Return the headers of the message that was sent last."""
    message = broker.lindex("nameshot.default", 0)
    assert message
    headers: dict[str, Any] = json.loads(message)["headers"]
    return headers


def redis_s(broker: redis.Redis) -> float:
    seconds, microseconds = broker.time()
    return float(seconds + microseconds / 1e6)


@pytest.mark.parametrize("ahead_s", [600, -600])
@pytest.mark.parametrize("program", ["client.submit(*job, expires_in=60)", "client.submit_many([(*job,)])"])
def test_a_client_whose_clock_is_wrong_sends_right_times(valkey: ValkeyServer, ahead_s: int, program: str) -> None:
    wrong = f"from tests.wrong_clock import set_ahead; set_ahead({ahead_s}); from producer import Client\n"
    wrong += f"job = ({URL!r}, {LABELS!r})\nwith Client() as client: {program}"
    with valkey.connect() as broker:
        before_s = redis_s(broker)
        subprocess.run([sys.executable, "-c", wrong], check=True, env={**os.environ, **valkey.settings("producer")})
        after_s = redis_s(broker)
        headers = newest(broker)

    assert before_s <= headers[SENT_AT_HEADER] <= after_s
    if headers["expires"] is not None:
        expires = datetime.fromisoformat(headers["expires"])
        assert expires.timestamp() == pytest.approx(headers[SENT_AT_HEADER] + 60)
    assert ("expires_in" in program) == (headers["expires"] is not None)


def test_a_lost_job_that_is_queued_again_has_new_times(valkey: ValkeyServer) -> None:
    with Client(valkey.broker_url, valkey.result_backend) as client, valkey.connect() as broker:
        client.submit(URL, LABELS, job_id="lost", expires_in=60)
        first = newest(broker)
        broker.delete("nameshot.default")
        assert client.submit(URL, LABELS, job_id="lost", expires_in=90).is_new
        second = newest(broker)

    assert second[SENT_AT_HEADER] > first[SENT_AT_HEADER]
    expires = datetime.fromisoformat(second["expires"])
    assert expires.timestamp() == pytest.approx(second[SENT_AT_HEADER] + 90)


@given(
    sent_us=st.integers(0, 430 * 366 * 86_400 * 10**6),
    lifetime=st.timedeltas(timedelta(microseconds=1), timedelta(seconds=YEAR_S)),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_time_of_redis_is_written_as_the_calendar_has_it(
    valkey_of_this_run: ValkeyServer, sent_us: int, lifetime: timedelta
) -> None:
    script = DATED.replace("redis.call('TIME')", "{ARGV[1], ARGV[2]}") + "return dated('', ARGV[3], '')"
    with valkey_of_this_run.connect() as broker:
        written = broker.eval(script, 0, sent_us // 10**6, sent_us % 10**6, lifetime // timedelta(microseconds=1))

    found = json.loads(b"{%s}" % written)
    assert (
        datetime.fromisoformat(found["expires"])
        == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=sent_us) + lifetime
    )
    assert found[SENT_AT_HEADER] == pytest.approx(sent_us / 1e6)
