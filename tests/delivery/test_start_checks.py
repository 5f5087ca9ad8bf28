"""A worker refuses pools, options and servers with which it would not answer rightly, with a sentence and status 78."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from producer import AsyncClient, BrokerUnavailable, Client
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.cli.command import Home
from tests.client.test_aio import asynchronous
from tests.delivery.conftest import COMMAND
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

URL, LABELS = "https://images.example/owl.jpg", ["fox", "owl"]
TIMEOUT_S = 60

Start = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a worker with further arguments, without waiting until it is ready."""
    with ExitStack() as stack:

        def worker(*arguments: str, command: tuple[str, ...] = COMMAND, **settings: str) -> Worker:
            environment = {"NAMESHOT_METRICS_PORT": "0", **settings}
            return stack.enter_context(Worker(tmp_path, environment, (*command, *arguments), is_new="-P" in arguments))

        yield worker


def refused(worker: Worker) -> str:
    """Return what a worker printed that ended with status 78."""
    assert worker.process.wait(TIMEOUT_S) == os.EX_CONFIG, worker.log
    assert "Traceback" not in worker.log
    return worker.log


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("-P", "solo"), {}, "the pool solo cannot be used"),
        (("--pool=processes",), {}, "the pool prefork cannot be used"),
        (("-P", "prefork"), {}, "the pool prefork cannot be used"),
        ((), {"CELERY_WORKER_POOL": "prefork"}, "the pool prefork cannot be used"),
        (("-P", "custom"), {"CELERY_CUSTOM_WORKER_POOL": "celery.concurrency.solo:TaskPool"}, "the pool solo"),
        ((), {"CELERY_WORKER_POOL": "solo"}, "the pool solo cannot be used"),
        (("--", "task.acks_late=0"), {}, "task_acks_late cannot be changed"),
        (("--autoscale", "10,3"), {}, "--autoscale (CELERY_WORKER_AUTOSCALE) cannot be used"),
        ((), {"CELERY_WORKER_AUTOSCALE": "4"}, "--autoscale (CELERY_WORKER_AUTOSCALE) cannot be used"),
        (
            ("-Q", "other"),
            {},
            "'other', which is not a queue of this worker; it has nameshot.high, nameshot.default, na",
        ),
        (("-X", "nameshot.low"), {}, "-X names 'nameshot.low', which is not a queue"),
        (("-X", "nameshot.high,nameshot.default,nameshot.bulk"), {}, "-X excludes every queue"),
        (("-I", "no.such_module"), {}, "-I (--include) has a module that cannot be imported (No module named 'no')"),
        (("--pidfile", "/no/such/folder/pid"), {}, "--pidfile /no/such/folder/pid cannot be created"),
        (("--statedb", "/no/such/folder/db"), {}, "--statedb /no/such/folder/db cannot be created"),
        (("-l", "nonsense"), {}, "'NONSENSE' is not one of"),
        (("-n", "a b@%z"), {}, "'a b@%z' is not a name"),
        (("-c", "nonsense"), {}, "must be a non-negative integer or 'auto', got 'nonsense'"),
        (("--purge",), {}, "--purge cannot be used: the ids of the jobs would stay taken; use `nameshot purge`"),
        ((), {"CELERY_CONFIG_MODULE": "no_such_module"}, "CELERY_CONFIG_MODULE (--config) is 'no_such_module', which"),
        (("-f", "/no/such/folder/log"), {}, "--logfile /no/such/folder/log cannot be written (No such file or "),
        (("--uid", "no-such"), {}, "--uid or --gid cannot be used: User does not exist: no-such."),
        (("--gid", "no-such"), {}, "--uid or --gid cannot be used: Group does not exist: no-such."),
        (("-c", "100000"), {}, "--concurrency 100000 cannot be used; choose a number from 1 to 4,096"),
    ],
)
def test_options_with_which_a_worker_cannot_work_are_refused(
    arguments: tuple[str, ...], settings: dict[str, str], said: str, start: Start
) -> None:
    assert said in refused(start(*arguments, **settings))


@pytest.mark.parametrize(
    ("options", "arguments", "said"),
    [
        (
            ("--config", "no_such_module"),
            ("worker",),
            "CELERY_CONFIG_MODULE (--config) is 'no_such_module', which cannot",
        ),
        (
            ("--loader", "no_such_module"),
            ("worker",),
            "CELERY_LOADER (--loader) is 'no_such_module', which cannot",
        ),
        ((), ("graph", "bootsteps"), "`celery graph bootsteps` cannot be used: it would load the model"),
        ((), ("purge", "-f"), "ids would stay taken; to delete its jobs, use `nameshot purge "),
        ((), ("purge", "-f", "-Q", "nameshot.bulk"), "nameshot.bulk cannot be purged with Celery"),
    ],
)
def test_celery_commands_that_would_harm_jobs_are_refused_with_a_sentence(
    options: tuple[str, ...],
    arguments: tuple[str, ...],
    said: str,
    start: Start,
    own_valkey: ValkeyServer,
    client: Client,
) -> None:
    client.submit(URL, LABELS, queue="bulk")
    command = (*COMMAND[:3], *options, *COMMAND[3:-1], *arguments)

    assert said in refused(start(command=command, **own_valkey.settings("worker")))
    assert client.queue_depths()["bulk"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("queue.delete", "nameshot.bulk"), "cannot be deleted with Celery"),
        (("queue.purge", "nameshot.bulk"), "cannot be purged with Celery"),
        (("basic.get", "nameshot.bulk", "true"), "cannot be read with Celery"),
        (("exchange.delete", "nameshot.bulk"), ""),
    ],
)
def test_no_command_of_amqp_takes_a_job_from_its_queue(
    arguments: tuple[str, ...], said: str, start: Start, own_valkey: ValkeyServer, client: Client
) -> None:
    client.submit(URL, LABELS, queue="bulk")
    done = start(command=(*COMMAND[:3], *COMMAND[3:-1], "amqp", *arguments), **own_valkey.settings("worker"))
    done.process.wait(TIMEOUT_S)

    assert said in done.log
    assert client.queue_depths()["bulk"] == 1


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ("worker_direct = True", "worker_direct cannot be changed"),
        ("control_exchange = 'x'", "control_exchange cannot be changed"),
        ("event_exchange = 'x'", "event_exchange cannot be changed"),
        ("redis_backend_credential_provider = 'x.y'", "redis_backend_credential_provider cannot be changed"),
        ("control_queue_ttl = 'x'", "control_queue_ttl is 'x', which is not a number"),
        ("worker_agent = 'a:B'", "worker_agent cannot be changed"),
        ("broker_use_ssl = redis_backend_use_ssl = {'ssl_cert_reqs': 0}", "broker_use_ssl cannot be changed"),
        ("redis_backend_use_ssl = {'ssl_cert_reqs': 0}", "redis_backend_use_ssl cannot be changed"),
        ("result_backend_transport_options = {'global_keyprefix': 'x'}", "result_backend_transport_options cannot be"),
        ("task_annotations = {'*': {'rate_limit': '1/m'}}", "task_annotations cannot be changed"),
        ("broker_connection_retry = False", "broker_connection_retry cannot be changed"),
        ("timezone = 'Foo/Bar'", "setting timezone is 'Foo/Bar', which cannot be used"),
        ("imports = ['nope']", "setting imports has a module that cannot be imported (No module named 'nope')"),
        ("raise RuntimeError('secret')", "(--config) is 'configured', which failed with RuntimeError at "),
    ],
)
def test_a_configuration_module_that_a_worker_cannot_work_with_is_refused(
    configuration: str, said: str, start: Start, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    (tmp_path / "configured.py").write_text(configuration)
    module = {"CELERY_CONFIG_MODULE": "configured", "PYTHONPATH": str(tmp_path)}
    log = refused(start(**own_valkey.settings("worker"), **module))

    assert said in log
    assert "secret" not in log


def test_a_configuration_module_may_set_harmless_options(
    start: Start, own_valkey: ValkeyServer, client: Client, origin: Origin, tmp_path: Path
) -> None:
    harmless = "timezone = 'Europe/Paris'\ntask_routes = {'x.*': 'other'}\nbeat_schedule = {}\nimports = ['json']"
    (tmp_path / "configured.py").write_text(harmless)
    settings = {"PYTHONPATH": str(tmp_path), "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}"}
    start(**own_valkey.settings("worker"), **settings, CELERY_CONFIG_MODULE="configured").wait_until_ready()

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking


def test_a_broker_on_the_command_line_is_not_used(start: Start, own_valkey: ValkeyServer) -> None:
    command = (*COMMAND[:3], "-b", "nonsense://x", *COMMAND[3:])
    worker = start(command=command, **own_valkey.settings("worker"))
    worker.wait_until_ready()

    assert "CELERY_BROKER_URL is not read, nor are --broker" in worker.log


def test_a_worker_warns_of_a_mistyped_setting_but_not_of_kubernetes_variables(
    start: Start, own_valkey: ValkeyServer
) -> None:
    mistyped = {"NAMESHOT_MAXBYTES": "1", "NAMESHOT_BROKER_URI": "x", "NAMESHOT_FETCH_TIMEOUTS": "3"}
    kubernetes = {"NAMESHOT_WEB_SERVICE_HOST": "10.0.0.1", "NAMESHOT_WEB_PORT": "tcp://10.0.0.1:80"}
    worker = start(**own_valkey.settings("worker"), **mistyped, **kubernetes)
    worker.wait_until_ready()

    assert "NAMESHOT_MAXBYTES is not a setting, and is not read; did you mean NAMESHOT_MAX_BYTES?" in worker.log
    assert worker.log.count("is not a setting") == len(mistyped)


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_green_threads_are_refused(pool: str, start: Start) -> None:
    # Celery patches Python's modules before it loads the worker's code.
    assert f"the pool {pool} cannot be used" in refused(start("-P", pool))


@pytest.mark.parametrize("arguments", [("-P", "threads"), ("--pool=threads", "-c", "3"), ("-c", "auto")])
def test_options_that_choose_threads_are_accepted(
    arguments: tuple[str, ...], start: Start, own_valkey: ValkeyServer, client: Client, origin: Origin
) -> None:
    allowed = {"NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}"}
    worker = start(*arguments, **own_valkey.settings("worker"), **allowed)
    worker.wait_until_ready()

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    folder = tmp_path_factory.mktemp("cluster")
    bus = ValkeyServer(folder).port  # the default, the server's port plus 10,000, may be no valid port
    with ValkeyServer(folder, options=("--cluster-enabled", "yes", "--cluster-port", str(bus))) as server:
        yield server


def test_client_worker_and_doctor_refuse_a_redis_cluster_by_name(
    cluster: ValkeyServer, start: Start, tmp_path: Path
) -> None:
    urls = (cluster.url(0, "producer"), cluster.url(0, "producer"))
    with Client(*urls) as client:
        for call in (lambda: client.submit(URL, LABELS), lambda: client.job("a").status()):
            with pytest.raises(BrokerUnavailable, match="is a Redis Cluster, which Celery cannot use"):
                call()
    settings = {
        "NAMESHOT_BROKER_URL": cluster.url(0, "worker"),
        "NAMESHOT_RESULT_BACKEND": cluster.url(0, "worker"),
    }
    assert "is a Redis Cluster" in refused(start(**settings))
    assert re.match("broken: .* is a Redis Cluster", doctor(tmp_path, settings))


@asynchronous
async def test_an_asyncio_client_refuses_a_redis_cluster_by_name(cluster: ValkeyServer) -> None:
    async with AsyncClient(cluster.url(0, "producer"), cluster.url(0, "producer")) as client:
        with pytest.raises(BrokerUnavailable, match="is a Redis Cluster, which Celery cannot use"):
            await client.submit(URL, LABELS)


@pytest.mark.parametrize("rule", ["-blmove", "rename"])
def test_worker_and_doctor_refuse_a_redis_without_blmove(rule: str, start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "valkey"
    folder.mkdir()
    options = ("--rename-command", "BLMOVE", "") if rule == "rename" else ()
    with ValkeyServer(folder, options=options) as valkey:
        if rule == "-blmove":
            valkey.permit("worker", without=("blmove",))
        said = "has no BLMOVE" if rule == "rename" else "does not permit this user to run BLMOVE"
        assert said in refused(start(**valkey.settings("worker")))
        assert re.match(f"broken: .* {said}", doctor(tmp_path, valkey.settings("worker")))
        # An observer may never use BLMOVE, but its doctor too must report that the server lacks the command.
        assert doctor(tmp_path, valkey.settings("observer")).startswith("ok: ") == (rule == "-blmove")


def test_roles_for_another_database_or_prefix_are_named_as_the_cause(
    start: Start, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    settings = own_valkey.settings("worker")
    for wrong, said in (
        (
            {"NAMESHOT_BROKER_URL": own_valkey.url(3, "worker")},
            "this user to use the channel /3.celery.pidbox: the user's rules are for",
        ),
        ({"NAMESHOT_QUEUE_PREFIX": "other"}, "this user to use the list other.default"),
    ):
        log = refused(start(**{**settings, **wrong}))
        assert said in log
        assert "create new rules with `nameshot acl`" in log
        assert "create new rules with `nameshot acl`" in doctor(tmp_path, {**settings, **wrong})
    with (
        Client(own_valkey.broker_url, own_valkey.result_backend, queue_prefix="other") as client,
        pytest.raises(BrokerUnavailable, match="or the database has changed, create new rules with `nameshot acl`"),
    ):
        client.submit(URL, LABELS)


def test_a_worker_that_starts_before_its_broker_checks_the_broker_later(start: Start, cluster: ValkeyServer) -> None:
    cluster.stop()
    url = cluster.url(0, None)
    worker = start(NAMESHOT_BROKER_URL=url, NAMESHOT_RESULT_BACKEND=url)
    eventually(lambda: "cannot be reached" in worker.log, lambda: worker.log)
    cluster.start()

    assert "is a Redis Cluster" in refused(worker)


def doctor(tmp_path: Path, settings: dict[str, str]) -> str:
    """Return the doctor's finding about the broker, with its state."""
    home = tmp_path / f"home-{len(list(tmp_path.iterdir()))}"
    home.mkdir()
    findings = Home.make(home, **settings).run("doctor", "--json").json_lines[0]["findings"]
    (broker,) = [finding for finding in findings if finding["subject"] == "broker"]
    return f"{broker['state']}: {broker['text']}"
