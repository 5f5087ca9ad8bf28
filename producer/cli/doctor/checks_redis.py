"""Check Redis: broker, result backend, queues and workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from producer.cli.doctor.checks_lists import lists_that_no_worker_serves, text_of
from producer.errors import NameshotError
from producer.findings import Finding

if TYPE_CHECKING:
    from redis import Redis

    from producer.broker.urls import Endpoint
    from producer.client.configuration import Configuration
    from producer.contract.lease_value import LeaseValue
    from producer.embedded.home import UpInfo

_TIMEOUT_S: Final = 2.0
#: Above this share of maxmemory, a burst of jobs may reach the limit before an operator reacts.
_MEMORY_WARNING: Final = 0.9


def redis(up: UpInfo | None) -> Iterator[Finding]:
    """Run all checks that need Redis; an unreachable server yields one finding."""
    from producer.cli.connection import redis_of
    from producer.client.configuration import configure
    from producer.contract.names import queue_name, rung_name

    try:
        configuration = configure(**redis_of(up))
    except NameshotError as error:
        yield Finding("settings", "broken", str(error), "correct the variable")
        return
    waits_at = rung_name(queue_name(configuration.queue_prefix, "default"))
    broker = _server("broker", configuration.broker, waits_at=waits_at)
    yield broker
    checked: set[str] = set()
    if broker.state == "ok":
        yield from _durability(configuration.broker, "waiting jobs", checked)
    results = _server("result backend", configuration.results)
    yield results
    if results.state == "ok":
        yield from _durability(configuration.results, "answers", checked)
    if broker.state == "ok":
        yield from _queues(configuration)


def _connect(endpoint: Endpoint) -> Redis:
    from producer.broker.dialling import connect

    timeouts = {"socket_connect_timeout": _TIMEOUT_S, "socket_timeout": _TIMEOUT_S}
    return connect(endpoint, **{**timeouts, "client_name": "nameshot", **endpoint.arguments})


def _server(subject: str, endpoint: Endpoint, *, waits_at: str | None = None) -> Finding:
    """Check one server.

    Args:
        subject: the server's role, as the finding names it.
        endpoint: the server.
        waits_at: for the broker, a list on which workers wait for jobs.
    """
    from redis import RedisError

    from producer.broker.failures import unavailable
    from producer.broker.servers import clock_fault, what_is_wrong
    from producer.cli.connection import is_configured

    try:
        with _connect(endpoint) as server:
            server.ping()
            began_s = time.perf_counter()
            server.ping()
            took_ms = 1000 * (time.perf_counter() - began_s)
            info: dict[str, Any] = server.info("server") | server.info("replication")
            wrong = what_is_wrong(info, endpoint) or (waits_at and _cannot_wait(server, waits_at, endpoint))
    except (RedisError, OSError) as error:
        advice = "" if is_configured() else "without a Redis of your own, run `nameshot up` in another terminal"
        return Finding(subject, "broken", unavailable(error, endpoint), advice)
    if wrong:
        return Finding(subject, "broken", wrong)
    if info.get("role") == "slave":
        return Finding(
            subject, "broken", f"{endpoint.shown} is a read-only replica", f"set {endpoint.variable} to the primary"
        )
    if fault := clock_fault(info, endpoint):
        return Finding(subject, "warning", fault.rstrip("."))
    version = info.get("valkey_version") or info.get("redis_version")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return Finding(subject, "ok", f"{endpoint.shown}: {name} {version}, answers in {took_ms:.1f} ms")


def _cannot_wait(server: Redis, waits_at: str, endpoint: Endpoint) -> str | None:
    from redis.exceptions import NoPermissionError

    from producer.broker.servers import cannot_subscribe, cannot_wait

    try:
        server.script_exists("0" * 40)
    except NoPermissionError:
        is_a_worker = False  # among the roles, only the worker's permits SCRIPT EXISTS
    else:
        is_a_worker = True
    wrong = cannot_wait(server, waits_at, endpoint, as_a_worker=is_a_worker)
    return wrong or (cannot_subscribe(server, endpoint) if is_a_worker else None)


def _durability(endpoint: Endpoint, content: str, checked: set[str]) -> Iterator[Finding]:
    """Check that a server keeps its data when memory runs out and when it restarts.

    Args:
        content: the data that the server would lose, as the finding names it.
        checked: the ids of the servers checked so far, since one server may be both broker and result backend.
    """
    with _connect(endpoint) as server:
        run_id = str(server.info("server").get("run_id"))
        if run_id in checked:
            return
        checked.add(run_id)
        memory: dict[str, Any] = server.info("memory")
        persistence: dict[str, Any] = server.info("persistence")
    limit, used, policy = memory["maxmemory"], memory["used_memory"], memory["maxmemory_policy"]
    if policy != "noeviction":
        yield Finding(
            "memory",
            "broken" if limit else "warning",
            f"maxmemory-policy is {policy}: Redis would evict {content} when it runs out of memory",
            "set maxmemory-policy to noeviction",
        )
    elif limit and used > _MEMORY_WARNING * limit:
        yield Finding("memory", "warning", f"{used / limit:.0%} of maxmemory is in use", "raise it or add workers")
    else:
        yield Finding("memory", "ok", f"{used / 1e6:,.0f} MB in use, no eviction")
    if persistence["aof_enabled"]:
        state = persistence.get("aof_last_write_status", "ok")
        if state == "ok":
            yield Finding("persistence", "ok", "append-only file: a restart of Redis loses at most a second")
        else:
            yield Finding(
                "persistence", "broken", f"the last write of the append-only file: {state}", "check Redis's disk"
            )
    else:
        yield Finding(
            "persistence",
            "warning",
            f"no append-only file: a restart of Redis loses {content}",
            "set appendonly to yes",
        )


def _queues(configuration: Configuration) -> Iterator[Finding]:
    from redis import RedisError

    from producer.broker.failures import unavailable
    from producer.cli.output import counted
    from producer.client.blocking import Client
    from producer.contract.lease_value import unserved_queues
    from producer.contract.names import QUEUES, queue_name

    prefix = configuration.queue_prefix
    try:
        with (
            Client(configuration.broker.url, configuration.results.url, queue_prefix=prefix) as client,
            _connect(configuration.broker) as server,
        ):
            backlog = client.backlog()
            leases = _leases(server, prefix)
            strange = list(lists_that_no_worker_serves(server, prefix))
    except NameshotError as error:
        yield Finding("queues", "broken", str(error))
        return
    except RedisError as error:
        yield Finding("queues", "broken", unavailable(error, configuration.broker))
        return
    text = f"waiting messages: {', '.join(f'{name} {backlog.waiting[name]:,}' for name in QUEUES)}"
    text += f"; held by workers: {backlog.in_hand:,}"
    if backlog.in_dead_hands:
        text += f"; held by dead workers: {backlog.in_dead_hands:,}"
    if backlog.postponed:
        text += f"; postponed: {backlog.postponed:,}"
    numbers = backlog.to_json()
    full = [name for name in QUEUES if backlog.waiting[name] >= configuration.max_queue]
    if full:
        advice = f"{full[0]} is full (NAMESHOT_MAX_QUEUE): add workers"
        yield Finding("queues", "broken", text, advice, numbers)
    else:
        yield Finding("queues", "ok", text, numbers=numbers)
    yield from strange
    if leases:
        places = sorted(lease.where for lease in leases)
        yield Finding("workers", "ok", f"{len(leases)} running: {', '.join(places)}")
        for ailing in sorted(f"{lease.where}: {lease.problem}" for lease in leases if lease.problem):
            yield Finding("workers", "broken", ailing, "a worker that hangs ends itself soon; see its log")
        unserved = unserved_queues(leases)
        for queue in (queue for queue in QUEUES if queue in unserved and backlog.waiting[queue]):
            name, count = queue_name(prefix, queue), backlog.waiting[queue]
            yield Finding(
                "workers",
                "broken",
                f"no worker takes jobs from {name}, which holds {counted(count, 'waiting message')}",
                f"start one without -Q, or have one take from it: `celery -A worker control add_consumer {name}`",
            )
    else:
        yield Finding(
            "workers",
            "broken",
            f"no worker takes jobs from {prefix}.*",
            "start one with `nameshot worker`, or `nameshot up` to try it out",
        )


def _leases(server: Redis, prefix: str) -> list[LeaseValue]:
    """Return the leases of all live workers."""
    from producer.contract.lease_value import LeaseValue
    from producer.contract.names import lease_key, workers_key

    names = [text_of(name) for name in server.smembers(workers_key(prefix))]
    leases: list[Any] = server.mget([lease_key(prefix, name) for name in names]) if names else []
    return [LeaseValue.read(lease) for lease in leases if lease is not None]
