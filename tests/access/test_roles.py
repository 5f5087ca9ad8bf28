"""What the roles of a shared Redis forbid; all other tests run in these roles and show what they permit."""

import asyncio
import json
from pathlib import Path

import pytest
import redis
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeout

from producer import AsyncClient, BrokerUnavailable, Client, ResultTimeout
from producer.broker.access import ROLE_NAMES, RoleName, roles
from producer.contract.names import record_key, rung_name
from tests.acceptance.origin import Origin
from tests.cli.command import Home
from tests.client.stock_worker import StockWorker, result_for
from tests.delivery.conftest import StartWorker
from tests.delivery.hands import KEYS, give_up
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.web.serving import JOB, serving
from worker.delivery.scripts import HAND_ON
from worker.delivery.upkeep import Upkeep
from worker.delivery.upkeep_scripts import UPDATE_LEASE

LABELS = ["fox", "owl"]
URL = "http://example.com/owl.png"
TIMEOUT_S = 60
ROLES = ROLE_NAMES


def as_role(valkey: ValkeyServer, role: RoleName, database: int = 0) -> redis.Redis:
    return redis.Redis.from_url(valkey.url(database, role))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("SHUTDOWN",),
        ("MONITOR",),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("FUNCTION", "LIST"),
        ("MODULE", "LIST"),
        ("REPLICAOF", "NO", "ONE"),
        ("GET", "another-applications-key"),
        ("SET", "another-applications-key", "1"),
        ("EVAL", "return redis.call('KEYS', '*')", 0),
        ("EVAL", "return redis.call('GET', 'another-applications-key')", 0),
    ],
    ids=lambda command: " ".join(map(str, command)),
)
def test_commands_that_no_role_permits_are_refused(
    valkey: ValkeyServer, role: RoleName, command: tuple[str, ...]
) -> None:
    with as_role(valkey, role) as connection, pytest.raises(redis.ResponseError, match=r"(?i)no permissions"):
        connection.execute_command(*command)


@pytest.mark.parametrize(
    "command",
    [
        ("RPOP", "nameshot.default"),
        ("LRANGE", "nameshot.default", 0, -1),
        ("HGETALL", "nameshot:in-flight:somebody"),
        ("DEL", "nameshot:lease:somebody"),
        ("LRANGE", "nameshot:dead-letters", 0, -1),
        ("PUBLISH", "/0.celery.pidbox", '{"method": "shutdown"}'),
    ],
    ids=lambda command: " ".join(map(str, command)),
)
def test_a_producer_can_neither_take_jobs_nor_read_messages_nor_control_workers(
    valkey: ValkeyServer, command: tuple[str, ...]
) -> None:
    with as_role(valkey, "producer") as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command)


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "nameshot.default", "x"),
        ("EXPIRE", "nameshot.default", -1),
        ("SADD", "nameshot.bulk", "x"),
        ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "nameshot.default"),
    ],
    ids=lambda command: " ".join(map(str, command)),
)
def test_a_producer_cannot_destroy_a_queue(valkey: ValkeyServer, command: tuple[str | int, ...]) -> None:
    with as_role(valkey, "producer") as connection, pytest.raises(redis.ResponseError, match=r"(?i)no permissions"):
        connection.execute_command(*command)


def test_an_observer_can_read_queues_workers_answers_and_dead_letters_but_change_nothing(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    with Client(valkey.broker_url, valkey.result_backend) as client, valkey.connect() as database:
        job = client.submit(URL, LABELS)
        client.submit(URL, LABELS, job_id="poison")
        give_up(database, "poison")
    observer = Home.make(tmp_path, **valkey.settings("observer"))

    assert "default 1" in observer.run("doctor").out
    assert observer.run("status", job.id).out.strip() == "queued"
    assert observer.run("dead-letters", "list", "--json").json_lines[0]["id"] == "poison"
    for command in (("submit", URL, "-l", "owl"), ("cancel", job.id), ("dead-letters", "replay", "--all")):
        refused = observer.run(*command)
        assert refused.status == 1
        assert "does not permit this user" in refused.sentence


def test_a_client_names_a_missing_permission_as_the_cause(valkey: ValkeyServer) -> None:
    with (
        Client(valkey.url(0, "observer"), valkey.url(1, "observer")) as client,
        pytest.raises(BrokerUnavailable, match="does not permit this user"),
    ):
        client.submit(URL, LABELS)


class Trace:
    """The commands that a server has executed, including those of scripts."""

    def __init__(self, valkey: ValkeyServer) -> None:
        self._operator = valkey.connect()

    def begin(self) -> None:
        self._operator.config_resetstat()

    def saw(self, command: str) -> bool:
        """Return whether the server has executed the command since `begin`."""
        return f"cmdstat_{command}" in self._operator.info("commandstats")

    def unused(self, role: RoleName) -> set[str]:
        """Return the commands that the role permits but the server has not executed since `begin`."""
        (found,) = (each for each in roles("nameshot") if each.name == role)
        used = {name.removeprefix("cmdstat_") for name in self._operator.info("commandstats")}
        return set(found.commands) - used


@pytest.fixture
def trace(own_valkey: ValkeyServer) -> Trace:
    return Trace(own_valkey)


@pytest.mark.usefixtures("a_worker_that_lives")
def test_the_producer_s_role_permits_no_command_that_producers_do_not_use(
    own_valkey: ValkeyServer, trace: Trace, tmp_path: Path
) -> None:
    broker_url, result_backend = own_valkey.broker_url, own_valkey.result_backend
    trace.begin()
    with Client(broker_url, result_backend) as client:
        job = client.submit(URL, LABELS, job_id="mine")
        with pytest.raises(ResultTimeout):
            job.result(timeout=0.1)
        job.cancel()
        job.forget()
        for _ in range(2):
            assert client.submit(URL, LABELS, job_id="purged").is_new
            with own_valkey.connect() as stranger:
                stranger.delete("nameshot.default")

    async def wait() -> None:
        async with AsyncClient(broker_url, result_backend) as client:
            job = await client.submit(URL, LABELS)
            with pytest.raises(ResultTimeout):
                await job.result(timeout=0.1)

    asyncio.run(wait())
    with Celery(broker=broker_url, backend=result_backend, set_as_current=False) as plain:
        sent = plain.send_task("nameshot.classify", queue="nameshot.default")
        with pytest.raises(CeleryTimeout):
            sent.get(timeout=0.1)
        plain.backend.remove_pending_result(sent)  # otherwise its destructor would connect to a server that has ended
    Home.make(tmp_path, **own_valkey.settings("producer")).run("doctor")

    assert trace.unused("producer") == set()


@pytest.mark.usefixtures("a_worker_that_lives")
def test_the_observer_s_role_permits_no_command_that_observers_do_not_use(
    own_valkey: ValkeyServer, trace: Trace, tmp_path: Path
) -> None:
    observer = Home.make(tmp_path, **own_valkey.settings("observer"))
    trace.begin()
    observer.run("doctor")
    observer.run("status", "somebodys")
    assert observer.run("status", "lost").out == "unknown\n"
    observer.run("dead-letters", "list")
    with (
        Client(own_valkey.url(0, "observer"), own_valkey.url(1, "observer")) as client,
        pytest.raises(ResultTimeout),
    ):
        client.job("somebodys").result(timeout=0.1)

    assert trace.unused("observer") == set()


@pytest.mark.usefixtures("a_worker_that_lives")
def test_the_web_role_permits_no_command_that_the_http_api_does_not_use(
    own_valkey: ValkeyServer, trace: Trace, tmp_path: Path
) -> None:
    worker = StockWorker(own_valkey)
    settings = {"NAMESHOT_WEB_RATE": "1000/60", "NAMESHOT_WEB_MAX_WAITING": "2", "NAMESHOT_MAX_QUEUE": "3"}
    with serving(own_valkey, tmp_path / "log", **settings) as server, own_valkey.connect() as broker:
        trace.begin()
        first, again = (server.submit(headers={"Idempotency-Key": "first"}, job={"expires_in": 60}) for _ in range(2))
        server.get(f"/v1/jobs/{first}", headers={"Prefer": "wait=1"})
        server.post(f"/v1/jobs/{again}/cancel")
        assert server.delete(f"/v1/jobs/{again}").status_code == 204
        jobs = [server.submit(headers={"Idempotency-Key": str(number)}) for number in range(2)]
        worker.take()
        worker.take()
        worker.fail(jobs[0], ValueError())
        server.submit()  # after those that have an answer were taken out of the set
        assert server.get("/v1/queues").json()["workers"] == 1
        assert server.get("/v1/jobs/somebodys").status_code == 200
        for number in range(3):
            broker.lpush("nameshot.default", f"message {number}")
        broker.set("nameshot.default:taken", "0")
        worker.succeed(jobs[1], result_for(LABELS))
        assert server.post("/v1/jobs", JOB).json()["code"] == "queue_full"
        lost = server.submit(headers={"Idempotency-Key": "lost"}, job={"queue": "bulk"})
        broker.delete("nameshot.bulk", "nameshot.default")
        make_old(own_valkey, lost)
        other = {"queue": "bulk", "top_k": 1}
        assert server.submit(headers={"Idempotency-Key": "lost"}, job=other) == lost
    worker.close()

    assert trace.unused("web") == set()


def make_old(valkey: ValkeyServer, job_id: str) -> None:
    """Date a record of the HTTP API back, as if its request had ended long ago."""
    with valkey.connect(1) as results:
        stored = results.get(record_key("nameshot", job_id))
        assert isinstance(stored, bytes)
        results.set(record_key("nameshot", job_id), json.dumps({**json.loads(stored), "created": 0}), keepttl=True)


def test_the_worker_s_role_permits_no_command_that_workers_do_not_use(
    own_valkey: ValkeyServer, origin: Origin, start_worker: StartWorker, trace: Trace, tmp_path: Path
) -> None:
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client, own_valkey.connect() as database:
        client.submit(URL, LABELS, job_id="poison")
        give_up(database, "poison")
        database.lpush("nameshot.default", "junk")
        held = client.submit(origin.url("/held/owl.png"), LABELS)
        waiting = client.submit(origin.url("/held/owl.png"), LABELS)
    trace.begin()
    victim = start_worker("victim", NAMESHOT_CONCURRENCY="1")
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    victim.process.kill()
    victim.process.wait()
    heir = start_worker("heir", NAMESHOT_CONCURRENCY="1")
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    with Celery(broker=own_valkey.url(0, "worker"), set_as_current=False) as remote:
        remote.control.revoke([held.id, waiting.id])
    with Celery(broker=own_valkey.broker_url, set_as_current=False) as plain:
        plain.send_task("nameshot.classify", queue="nameshot.default", countdown=20, priority=9)
    eventually(lambda: trace.saw("blmove") and trace.saw("zrem"), lambda: heir.log)
    with Celery(broker=own_valkey.url(0, "worker"), set_as_current=False) as remote:
        assert remote.control.ping(timeout=TIMEOUT_S, limit=1)
    (tmp_path / "home").mkdir()
    operator = Home.make(tmp_path / "home", **own_valkey.settings("worker"))
    operator.run("dead-letters", "replay", "--all")
    operator.run("doctor")
    with as_role(own_valkey, "worker") as stuck:  # commands that only a busy or a stuck worker sends
        stuck.eval(HAND_ON, 2, rung_name("nameshot.default"), "nameshot.default")
        stuck.eval(UPDATE_LEASE, 1, "nameshot:lease:stuck", "a-machine/17: its device is busy")
    heir.stop(timeout_s=TIMEOUT_S)
    with own_valkey.connect() as database, as_role(own_valkey, "worker") as chosen:
        database.lpush("nameshot.bulk", "{}", '{"headers": {"id": "job"}, "properties": {"delivery_tag": "life"}}')
        database.lpush("nameshot:forget", "job life")
        Upkeep(chosen, KEYS).forget()
        assert database.lrange("nameshot.bulk", 0, -1) == [b"{}"]
        database.lpush("nameshot.bulk", '{"headers": {"id": "taken-once"}}')
        database.hset("nameshot:in-hand", "taken-once", "returned bulk 1")
    operator.run("purge", "bulk", "--yes")

    # A worker of the previous version reads with it what a dead one held; tests/version_before checks that it may.
    assert trace.unused("worker") == {"hgetall"}


@pytest.fixture
def a_worker_that_lives(own_valkey: ValkeyServer) -> None:
    """The records in Redis of a living worker, without the worker."""
    with own_valkey.connect() as database:
        database.sadd("nameshot:workers", "somebody")
        database.set("nameshot:lease:somebody", "a-machine/17")
        database.set("nameshot:claim:somebodys", "0")
        database.hset("nameshot:in-hand", "somebodys", "somebody")
        database.set("nameshot:claim:lost", "0")
