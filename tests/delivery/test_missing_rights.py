"""A worker that loses a right reports it, loses no message, and goes on when it has the right again."""

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.delivery.probing import OK, Probe, wait_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
REFUSED = "the broker refuses to hand out messages"


@pytest.mark.parametrize("command", ["rpop", "hset", "exists", "type"])
def test_a_worker_without_the_right_to_take_messages_logs_it_once_and_goes_on_when_it_has_the_right_again(
    command: str, start_worker: StartWorker, own_valkey: ValkeyServer, client: Client, origin: Origin, probe: Probe
) -> None:
    worker = start_worker("refused", NAMESHOT_METRICS_PORT=probe.port)
    own_valkey.permit("worker", without=(command,))
    jobs = [client.submit(origin.url("/owl.png"), LABELS, queue=queue) for queue in ("high", "default", "default")]

    eventually(lambda: probe("/readyz")[1].startswith(REFUSED), lambda: worker.log + probe("/readyz")[1])
    assert probe("/readyz")[0] == 503
    eventually(lambda: not worker.is_ready)
    assert probe("/healthz") == OK
    assert sum(client.queue_depths().values()) == 3
    assert worker.log.count(REFUSED) == 1

    own_valkey.permit("worker")
    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)
    wait_for(probe, "/readyz", OK, worker)
    eventually(lambda: "the broker hands out messages again" in worker.log)
