"""A claim expires with the answer to its own message, and with no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from producer.contract.names import claim_key, place_key
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.jobs.claims import ClaimKeeper

DAY_S = 86_400


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


def claim(broker: redis.Redis, job_id: str, life: str | None) -> None:
    broker.set(claim_key("nameshot", job_id), "a fingerprint", ex=8 * DAY_S)
    if life is not None:
        broker.set(place_key("nameshot", job_id), f"default 7 {life}", ex=8 * DAY_S)


def lives_s(broker: redis.Redis, job_id: str) -> list[int]:
    return [broker.ttl(key) for key in (claim_key("nameshot", job_id), place_key("nameshot", job_id))]


def note(broker: redis.Redis, *answered: tuple[str, str]) -> None:
    """Report these answers to a `ClaimKeeper`, and wait until it has shortened the claim of a last one."""
    keeper = ClaimKeeper(broker, prefix="nameshot", ttl_s=DAY_S)
    claim(broker, "the-last", "life")
    for job_id, life in (*answered, ("the-last", "life")):
        keeper.answered(job_id, life)
    eventually(lambda: max(lives_s(broker, "the-last")) <= DAY_S)


def test_a_claim_is_shortened_by_the_answer_to_its_own_message_and_by_no_other(broker: redis.Redis) -> None:
    for job_id in ("its-own", "another", "unknown"):
        claim(broker, job_id, "life")
    claim(broker, "noted-no-place", None)
    note(broker, ("its-own", "life"), ("another", "old-life"), ("unknown", ""), ("noted-no-place", "any"))

    assert lives_s(broker, "its-own") == [DAY_S, DAY_S]
    assert min(lives_s(broker, "another") + lives_s(broker, "unknown")) > 7 * DAY_S
    assert lives_s(broker, "noted-no-place")[0] == DAY_S


def test_an_id_that_looks_like_a_place_key_shortens_no_claim_of_another_id(broker: redis.Redis) -> None:
    claim(broker, "x", "life")
    note(broker, ("x:place", ""), ("x:place", "life"))

    assert min(lives_s(broker, "x")) > 7 * DAY_S


def test_an_id_is_claimed_for_another_message_if_its_place_key_names_another_life(broker: redis.Redis) -> None:
    keeper = ClaimKeeper(broker, prefix="nameshot", ttl_s=DAY_S)
    claim(broker, "claimed", "life")
    claim(broker, "claimed-by-an-older-client", "a place that was left")
    broker.expire(claim_key("nameshot", "claimed-by-an-older-client"), 9 * DAY_S)
    claim(broker, "strange", None)
    broker.lpush(place_key("nameshot", "strange"), "junk")

    assert keeper.is_for_another("claimed", "")
    assert keeper.is_for_another("claimed", "old-life")
    assert not keeper.is_for_another("claimed", "life")
    for job_id in ("free", "claimed-by-an-older-client", "strange", "x:place"):
        assert not keeper.is_for_another(job_id, ""), job_id
