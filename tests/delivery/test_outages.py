"""A worker waits for the end of an unexpected error, unless it turns out to concern one job only."""

import re

import pytest
import redis

from producer import Client
from tests.acceptance.origin import Origin
from tests.delivery import troubles
from tests.delivery.conftest import StartWorker
from tests.delivery.probing import Probe
from tests.delivery.troubles import Trouble
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.delivery.outages import STRIKES, Outage

LABELS = ["fox", "bear"]
TIMEOUT_S = 60


@troubles.each(troubles.too_few_databases, troubles.over_quota)
def test_an_unexpected_error_of_the_result_backend_fails_no_job(
    trouble: Trouble,
    start_worker: StartWorker,
    client: Client,
    origin: Origin,
    probe: Probe,
    own_valkey: ValkeyServer,
    answers: ValkeyServer,
) -> None:
    start_worker("patient", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"), NAMESHOT_METRICS_PORT=probe.port)
    with trouble(answers):
        jobs = [client.submit(origin.url("/owl.png"), LABELS) for _ in range(20)]
        eventually(lambda: "the result backend does not take answers" in probe("/readyz")[1])
        eventually(lambda: re.search("for [89] s", probe("/readyz")[1]))
        with own_valkey.connect() as broker:
            assert not broker.exists("nameshot:dead-letters")

    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)


def test_an_error_is_attributed_to_the_content_once_the_server_has_accepted_other_commands_often_enough(
    answers: ValkeyServer,
) -> None:
    with answers.connect() as results:
        probes = 0

        def probe() -> None:
            nonlocal probes
            probes += 1
            results.ping()

        with pytest.raises(redis.ResponseError, match="ODD"):
            Outage("the server", "refuses", probe).outlast(lambda: results.eval("return redis.error_reply('ODD x')", 0))
    assert probes == STRIKES
