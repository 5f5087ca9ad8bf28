"""nameshot in thirteen tests, one idea each, by public names only. Read them first, in order."""

import asyncio
from collections.abc import Callable

import pytest
from celery import Celery

from producer import AsyncClient, Client, JobConflict, JobExpired, JobFailed, JobNotFound, Result
from tests.acceptance.origin import Origin
from tests.valkey_server import ValkeyServer

Pictures = Callable[[str], str]
ANIMALS = ["fox", "bear", "seagull", "owl"]


def test_a_job_is_an_image_and_labels_and_its_result_ranks_them(client: Client, pictures: Pictures) -> None:
    """Scores are probabilities over exactly the labels of this job."""
    job = client.submit(pictures("owl.png"), ANIMALS)

    result = job.result(timeout=30)

    assert result.best.label == "owl"
    assert sorted(score.label for score in result.ranking) == sorted(ANIMALS)
    assert sum(score.score for score in result.ranking) == pytest.approx(1)


def test_the_same_id_with_the_same_question_is_queued_once(client: Client, pictures: Pictures) -> None:
    """So a web request may be repeated without a second job."""
    first = client.submit(pictures("fox.png"), ANIMALS, job_id="upload-1")
    again = client.submit(pictures("fox.png"), ANIMALS, job_id="upload-1")

    assert (first.is_new, again.is_new) == (True, False)
    assert again.result(timeout=30) == first.result(timeout=30)


def test_the_same_id_with_another_question_is_a_conflict_until_it_is_forgotten(
    client: Client, pictures: Pictures
) -> None:
    """An id stands for one question as long as its answer is kept."""
    client.submit(pictures("fox.png"), ANIMALS, job_id="upload-2").result(timeout=30)
    with pytest.raises(JobConflict):
        client.submit(pictures("owl.png"), ANIMALS, job_id="upload-2")

    client.forget("upload-2")

    assert client.submit(pictures("owl.png"), ANIMALS, job_id="upload-2").result(timeout=30).best.label == "owl"


def test_of_many_images_a_bad_one_fails_alone(client: Client, pictures: Pictures) -> None:
    """`classify_many` yields each outcome with the index of its image."""
    urls = [pictures("owl.png"), pictures("no-such-file.png"), pictures("cat.jpg")]

    outcomes = {outcome.index: outcome for outcome in client.classify_many(urls, ["owl", "cat"])}

    assert [outcomes[index].ok for index in range(3)] == [True, False, True]
    assert outcomes[1].error is not None
    assert outcomes[1].error.code == "http_status"


def test_outcomes_come_in_order_where_that_is_asked_for(client: Client, pictures: Pictures) -> None:
    """Otherwise each comes as soon as it is there."""
    urls = [pictures(name) for name in ("owl.png", "cat.jpg", "fox.png")]

    outcomes = list(client.classify_many(urls, ["owl", "cat", "fox"], ordered=True))

    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert [outcome.result.best.label for outcome in outcomes if outcome.result] == ["owl", "cat", "fox"]


def test_a_job_is_cancelled_while_it_waits_or_runs(client: Client, pictures: Pictures, origin: Origin) -> None:
    """Here it is cancelled while its image is being downloaded."""
    origin.hold.clear()
    job = client.submit(pictures("held/owl.png"), ANIMALS)

    assert job.cancel()
    origin.hold.set()

    assert job.status() == "cancelled"


def test_a_job_that_no_worker_begins_in_time_expires(client: Client, pictures: Pictures) -> None:
    """`expires_in` says after how many seconds the answer is of no use any more."""
    job = client.submit(pictures("owl.png"), ANIMALS, expires_in=1e-3)

    with pytest.raises(JobExpired):
        job.result(timeout=30)


def test_urgent_jobs_have_a_queue_of_their_own(client: Client, pictures: Pictures) -> None:
    """`high` goes before `default`, and `default` before `bulk`; none of them starves."""
    job = client.submit(pictures("owl.png"), ANIMALS, queue="high")

    assert job.result(timeout=30).best.label == "owl"


def test_a_job_says_how_many_labels_it_wants_back_and_how_they_are_put_to_the_model(
    client: Client, pictures: Pictures
) -> None:
    """The template has `{}` where each label stands."""
    result: Result = client.classify(
        pictures("owl.png"), ANIMALS, top_k=1, hypothesis_template="a picture of a {}.", timeout=30
    )

    assert [score.label for score in result.ranking] == ["owl"]


def test_a_failure_has_a_code_and_says_whether_to_try_again(client: Client, pictures: Pictures) -> None:
    """docs/errors.md lists the codes."""
    with pytest.raises(JobFailed) as failure:
        client.classify(pictures("no-such-file.png"), ANIMALS, timeout=30)

    assert failure.value.code == "http_status"
    assert not failure.value.retryable


def test_asyncio_programs_have_the_same_client(valkey_of_this_run: ValkeyServer, pictures: Pictures) -> None:
    """Thousands of jobs may be awaited at once; one connection hears of them all."""

    async def ask() -> list[str]:
        async with AsyncClient(valkey_of_this_run.broker_url, valkey_of_this_run.result_backend) as client:
            jobs = [await client.submit(pictures(name), ["owl", "cat"]) for name in ("owl.png", "cat.jpg")]
            return [result.best.label for result in await asyncio.gather(*(job.result(30) for job in jobs))]

    assert asyncio.run(ask()) == ["owl", "cat"]


def test_any_celery_client_can_ask(plain: Celery, pictures: Pictures) -> None:
    """It needs no package of ours: docs/wire-format.md says what a message holds."""
    question = {"image": pictures("owl.png"), "candidate_labels": ANIMALS}

    answer = plain.send_task("nameshot.classify", kwargs=question, queue="nameshot.default").get(30)

    assert answer["ranking"][0]["label"] == "owl"


def test_an_id_of_which_nothing_is_known_says_so(client: Client) -> None:
    """Neither a message nor an answer is left."""
    assert client.job("never-sent").status() == "unknown"
    with pytest.raises(JobNotFound):
        client.job("never-sent").result(timeout=30)
