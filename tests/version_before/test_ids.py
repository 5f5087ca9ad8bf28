"""A job id that one version's client has used means the same job to the other version's client."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.origin import Origin
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.version_before.archive import NOW, Version
from tests.version_before.asked import Asked, waiting
from tests.version_before.conftest import StartWorker
from tests.version_before.programs import ClientProgram

pytestmark = pytest.mark.thorough


@pytest.fixture(params=["before", "now"])
def first(request: pytest.FixtureRequest, old_client: ClientProgram, new_client: ClientProgram) -> ClientProgram:
    """Return the client that submits first."""
    return old_client if request.param == "before" else new_client


@pytest.fixture
def second(first: ClientProgram, old_client: ClientProgram, new_client: ClientProgram) -> ClientProgram:
    """Return the other client."""
    return new_client if first is old_client else old_client


def test_a_job_that_both_clients_submit_is_queued_once_and_both_get_its_answer(
    first: ClientProgram, second: ClientProgram, own_valkey: ValkeyServer, origin: Origin, start_worker: StartWorker
) -> None:
    asked = Asked(origin, range(4))
    assert first.submit(asked.jobs) == ["accepted"] * 4
    assert second.submit(asked.jobs) == ["accepted"] * 4
    with own_valkey.connect() as broker:
        assert waiting(broker) == 4
    assert second.statuses(asked.ids) == ["queued"] * 4
    answers = [first.wait(asked.ids), second.wait(asked.ids)]

    start_worker(NOW)

    assert [answer.result(60) for answer in answers] == [asked.right] * 2
    assert second.submit(asked.jobs) == ["accepted"] * 4
    with own_valkey.connect() as broker:
        assert waiting(broker) == 0
    assert first.statuses(asked.ids) == second.statuses(asked.ids) == ["succeeded"] * 4


def test_a_client_refuses_another_payload_for_an_id_that_the_other_client_has_used(
    first: ClientProgram,
    second: ClientProgram,
    before: Version,
    own_valkey: ValkeyServer,
    origin: Origin,
    start_worker: StartWorker,
) -> None:
    asked = Asked(origin, range(3))
    assert first.submit(asked.jobs) == ["accepted"] * 3

    assert second.submit(asked.with_other_labels()) == ["JobConflict"] * 3
    with own_valkey.connect() as broker:
        assert waiting(broker) == 3

    start_worker(before)
    assert second.wait(asked.ids).result(60) == asked.right
    assert second.submit(asked.with_other_labels()) == ["JobConflict"] * 3


def test_either_client_can_cancel_the_other_one_s_jobs(
    first: ClientProgram,
    second: ClientProgram,
    origin: Origin,
    stand_still: Path,
    start_worker: StartWorker,
) -> None:
    stand_still.touch()
    asked = Asked(origin, range(2))
    worker = start_worker(first.version)
    assert first.submit(asked.jobs) == ["accepted"] * 2
    eventually(lambda: second.statuses(asked.ids) == ["running"] * 2, lambda: worker.log)

    assert second.cancel(asked.ids[0])

    assert first.wait(asked.ids[:1]).result(30) == ["JobCancelled"]
    assert second.statuses(asked.ids) == ["cancelled", "running"]
    stand_still.unlink()
    assert second.wait(asked.ids[1:]).result(30) == asked.right[1:]
