"""What each role can do to each key, found by trying every command."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from producer import Client
from producer.broker.access import ROLE_NAMES, RoleName
from producer.contract.names import (
    answer_key,
    claim_key,
    forget_key,
    forgotten_key,
    open_key,
    place_key,
    rate_key,
    record_key,
)
from tests.acceptance.origin import Origin
from tests.access.walk import CANARY, FOREIGN, KEYS, MESSAGES, TYPES, is_permitted, steps
from tests.delivery.conftest import StartWorker
from tests.valkey_server import ValkeyServer

ROLES = ROLE_NAMES
#: The keys that a producer may write freely.
ITS_OWN = (claim_key("nameshot", "a-job"), place_key("nameshot", "a-job"), answer_key("a-job"), forgotten_key("a-job"))

RECORDS = {record_key("nameshot", "a-job"), open_key("nameshot", "a-key"), rate_key("nameshot", "a-key")}


def as_role(valkey: ValkeyServer, role: RoleName) -> redis.Redis:
    return redis.Redis.from_url(valkey.url(0, role))


def dump(operator: redis.Redis, key: str) -> object:
    """Return a key's type, value and whether it expires, for comparison."""
    kind = operator.type(key)
    assert isinstance(kind, bytes)
    read: dict[bytes, Callable[[], object]] = {
        b"none": lambda: None,
        b"string": lambda: operator.get(key),
        b"list": lambda: operator.lrange(key, 0, -1),
        b"set": lambda: operator.smembers(key),
        b"hash": lambda: operator.hgetall(key),
        b"zset": lambda: operator.zrange(key, 0, -1, withscores=True),
        b"stream": lambda: operator.xrange(key),
    }
    return kind, read[kind](), operator.ttl(key) >= 0


@pytest.mark.parametrize("role", ["producer", "observer", "web"])
def test_programs_without_the_worker_s_role_can_read_no_message(valkey: ValkeyServer, role: RoleName) -> None:
    with valkey.connect() as operator, as_role(valkey, role) as connection:
        for key in MESSAGES:
            for make in TYPES.values():
                for command in steps(key):
                    operator.delete(key)
                    make(operator, key)
                    _, reply = is_permitted(connection, command)
                    assert CANARY not in repr(reply).encode(), command


@pytest.mark.parametrize("role", ROLES)
def test_no_role_can_read_or_change_another_application_s_keys(valkey: ValkeyServer, role: RoleName) -> None:
    with valkey.connect() as operator, as_role(valkey, role) as connection:
        for key in FOREIGN:
            for make in TYPES.values():
                operator.delete(key)
                make(operator, key)
                before = dump(operator, key)
                for command in steps(key):
                    permitted, _ = is_permitted(connection, command)
                    assert not permitted, command
                assert dump(operator, key) == before


def test_an_observer_changes_nothing(valkey: ValkeyServer) -> None:
    with valkey.connect() as operator, as_role(valkey, "observer") as connection:
        for key in KEYS:
            for make in TYPES.values():
                operator.delete(key)
                make(operator, key)
                before = dump(operator, key)
                for command in steps(key):
                    is_permitted(connection, command)
                assert dump(operator, key) == before, key


@pytest.mark.parametrize("role", ["producer", "web"])
def test_programs_that_send_jobs_can_only_append_except_to_their_claims_answers_and_records(
    valkey: ValkeyServer, role: RoleName
) -> None:
    with valkey.connect() as operator, as_role(valkey, role) as connection:
        for key in set(KEYS) - set(ITS_OWN) - (RECORDS if role == "web" else set()):
            for kind, make in TYPES.items():
                for command in steps(key):
                    operator.delete(key)
                    make(operator, key)
                    before = dump(operator, key)
                    is_permitted(connection, command)
                    after = dump(operator, key)
                    if after != before:
                        grown = "_kombu.binding" in key or key == forget_key("nameshot") or key in MESSAGES
                        assert grown, (kind, command)
                        assert command[0] in ("LPUSH", "SADD"), (kind, command)


@pytest.mark.parametrize("role", ROLES)
def test_whatever_a_role_did_before_a_worker_starts_and_answers_jobs(
    own_valkey: ValkeyServer, origin: Origin, start_worker: StartWorker, role: RoleName
) -> None:
    with as_role(own_valkey, role) as connection:
        for key in KEYS:
            for command in steps(key):
                is_permitted(connection, command)
    worker = start_worker("fresh")

    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        assert client.classify(origin.url("/owl.png"), ["owl", "car"], timeout=60).best
    assert worker.process.poll() is None, worker.log
