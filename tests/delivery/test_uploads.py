"""A worker with the secret classifies uploads by their tokens, whichever worker fetches them in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from producer import Client, JobFailed
from producer.contract.upload_token import make_token
from tests.acceptance.origin import Origin
from tests.delivery.conftest import REAL_LENGTHS, SendMany, StartWorker

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
SECRET = "s" * 32


def image_of(upload_id: str = "u_owl", life_s: float = 3_600, secret: str = SECRET) -> str:
    return f"upload:{make_token(secret, upload_id, int(time.time() + life_s))}"


def path_of(image: str) -> str:
    return f"/internal/uploads/{image.removeprefix('upload:')}"


@pytest.fixture
def front() -> Iterator[Origin]:
    """The HTTP API's server, which has the uploads that a test puts there; workers may not fetch its URLs."""
    with Origin() as front:
        yield front


def settings(front: Origin, path: str = "") -> dict[str, str]:
    return {"NAMESHOT_UPLOAD_URL": front.url(path), "NAMESHOT_UPLOAD_SECRET": SECRET}


def put(front: Origin, origin: Origin, image: str) -> str:
    """Have the front serve a picture as this upload."""
    front.pages[path_of(image)] = origin.pages["/owl.png"]
    return image


def code_of(client: Client, url: str) -> str:
    with pytest.raises(JobFailed) as failed:
        client.classify(url, LABELS, timeout=TIMEOUT_S)
    assert "u_owl" not in str(failed.value)
    return failed.value.code


def test_an_upload_is_classified_and_a_missing_one_is_a_status(
    start_worker: StartWorker, client: Client, origin: Origin, front: Origin
) -> None:
    worker = start_worker("a", **settings(front))
    image = put(front, origin, image_of())

    result = client.classify(image, LABELS, timeout=TIMEOUT_S)

    assert result.image.sha256 == client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).image.sha256
    gone = image_of("u_owl_gone")
    assert code_of(client, gone) == "http_status"
    assert front.paths == [path_of(image), path_of(gone)]
    assert "u_owl" not in worker.log


def test_a_bulk_message_may_mix_uploads_and_urls(
    start_worker: StartWorker, origin: Origin, front: Origin, send_many: SendMany
) -> None:
    start_worker("a", **settings(front))
    images = [put(front, origin, image_of()), origin.url("/owl.png"), f"{image_of()}x"]

    outcomes = send_many(images).get(timeout=TIMEOUT_S)["outcomes"]

    assert outcomes[0]["ranking"] == outcomes[1]["ranking"]
    assert outcomes[2]["error"]["code"] == "invalid_url"


def test_no_job_reaches_the_front_but_by_a_valid_token(
    start_worker: StartWorker, client: Client, front: Origin, send_many: SendMany
) -> None:
    start_worker("a", NAMESHOT_FETCH_PORTS=f"80,443,{front.port}", **settings(front))
    valid = image_of()

    for url in (front.url("/"), front.url(path_of(valid)), front.url("/internal/uploads/"), front.url("/v1/events")):
        assert code_of(client, url) == "address_blocked"
    mac_of_another = f"{valid.rpartition('.')[0]}.{image_of('u_other').rpartition('.')[2]}"
    for image in (mac_of_another, image_of(life_s=-1), image_of(secret="t" * 32)):
        assert code_of(client, image) == "invalid_url"
    no_mac = send_many([valid.rpartition(".")[0], "upload:", f"{valid}/../../../v1/events"])
    assert [each["error"]["code"] for each in no_mac.get(timeout=TIMEOUT_S)["outcomes"]] == ["invalid_url"] * 3
    assert front.paths == []


def test_a_worker_without_the_secret_answers_that_it_fetches_no_uploads(
    start_worker: StartWorker, client: Client
) -> None:
    start_worker("a")

    assert code_of(client, image_of()) == "invalid_url"


def test_an_upload_that_a_killed_worker_was_fetching_is_classified_by_the_next(
    start_worker: StartWorker, client: Client, origin: Origin, front: Origin
) -> None:
    held = settings(front, "/held")
    victim = start_worker("victim", **held, **REAL_LENGTHS)
    job = client.submit(put(front, origin, image_of()), LABELS)
    assert front.asked.acquire(timeout=TIMEOUT_S)

    victim.process.kill()
    victim.process.wait()
    start_worker("heir", **held, **REAL_LENGTHS)
    front.hold.set()

    assert job.result(timeout=TIMEOUT_S).ranking
    assert len(front.paths) == 2


@pytest.mark.parametrize(("ahead_s", "outcome"), [("7200", "succeeded"), ("-7200", "failed")])
def test_the_broker_s_clock_decides_whether_a_token_has_expired(
    ahead_s: str, outcome: str, start_worker: StartWorker, client: Client, origin: Origin, front: Origin
) -> None:
    start_worker("wrong", "tests.delivery.wrong_clock_worker", CLOCK_AHEAD_S=ahead_s, **settings(front))
    life_s = 3_600 if outcome == "succeeded" else -3_600

    job = client.submit(put(front, origin, image_of(life_s=life_s)), LABELS)

    assert job.answer(TIMEOUT_S).state == outcome
