"""nameshot in thirteen tests, each of which shows one idea with public names only. Read them first, in order."""

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
    """The scores are probabilities over exactly the labels of this job."""
    job = client.submit(pictures("owl.png"), ANIMALS)

    result = job.result(timeout=30)

    assert result.best.label == "owl"
    assert sorted(score.label for score in result.ranking) == sorted(ANIMALS)
    assert sum(score.score for score in result.ranking) == pytest.approx(1)


def test_the_same_id_with_the_same_question_is_queued_once(client: Client, pictures: Pictures) -> None:
    """A web app can therefore repeat a request without a second job."""
    first = client.submit(pictures("fox.png"), ANIMALS, job_id="upload-1")
    again = client.submit(pictures("fox.png"), ANIMALS, job_id="upload-1")

    assert (first.is_new, again.is_new) == (True, False)
    assert again.result(timeout=30) == first.result(timeout=30)


def test_the_same_id_with_another_question_is_a_conflict_until_the_id_is_forgotten(
    client: Client, pictures: Pictures
) -> None:
    """An id stands for one question as long as Redis keeps its answer."""
    client.submit(pictures("fox.png"), ANIMALS, job_id="upload-2").result(timeout=30)
    with pytest.raises(JobConflict):
        client.submit(pictures("owl.png"), ANIMALS, job_id="upload-2")

    client.forget("upload-2")

    assert client.submit(pictures("owl.png"), ANIMALS, job_id="upload-2").result(timeout=30).best.label == "owl"


def test_a_bad_image_among_many_fails_alone(client: Client, pictures: Pictures) -> None:
    """`classify_many` yields each outcome with the index of its image."""
    urls = [pictures("owl.png"), pictures("no-such-file.png"), pictures("cat.jpg")]

    outcomes = {outcome.index: outcome for outcome in client.classify_many(urls, ["owl", "cat"])}

    assert [outcomes[index].ok for index in range(3)] == [True, False, True]
    assert outcomes[1].error is not None
    assert outcomes[1].error.code == "http_status"


def test_outcomes_come_in_the_order_of_the_images_if_ordered_is_set(client: Client, pictures: Pictures) -> None:
    """Without ``ordered``, each outcome comes as soon as it is ready."""
    urls = [pictures(name) for name in ("owl.png", "cat.jpg", "fox.png")]

    outcomes = list(client.classify_many(urls, ["owl", "cat", "fox"], ordered=True))

    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert [outcome.result.best.label for outcome in outcomes if outcome.result] == ["owl", "cat", "fox"]


def test_a_job_can_be_cancelled_while_it_waits_or_runs(client: Client, pictures: Pictures, origin: Origin) -> None:
    """This job is cancelled while a worker downloads its image or before a worker takes it."""
    origin.hold.clear()
    job = client.submit(pictures("held/owl.png"), ANIMALS)

    assert job.cancel()
    origin.hold.set()

    assert job.status() == "cancelled"


def test_a_job_that_no_worker_begins_in_time_expires(client: Client, pictures: Pictures) -> None:
    """`expires_in` is the time, in seconds, within which a worker must begin the job."""
    job = client.submit(pictures("owl.png"), ANIMALS, expires_in=1e-3)

    with pytest.raises(JobExpired):
        job.result(timeout=30)


def test_urgent_jobs_have_their_own_queue(client: Client, pictures: Pictures) -> None:
    """Workers prefer `high` to `default`, and `default` to `bulk`, but serve each of them in turn."""
    job = client.submit(pictures("owl.png"), ANIMALS, queue="high")

    assert job.result(timeout=30).best.label == "owl"


def test_a_job_may_set_how_many_labels_it_gets_back_and_in_which_sentence_the_model_reads_them(
    client: Client, pictures: Pictures
) -> None:
    """The template contains `{}`, which each label replaces in turn."""
    result: Result = client.classify(
        pictures("owl.png"), ANIMALS, top_k=1, hypothesis_template="a picture of a {}.", timeout=30
    )

    assert [score.label for score in result.ranking] == ["owl"]


def test_a_failure_has_a_code_and_says_whether_a_retry_can_help(client: Client, pictures: Pictures) -> None:
    """docs/errors.md lists the codes."""
    with pytest.raises(JobFailed) as failure:
        client.classify(pictures("no-such-file.png"), ANIMALS, timeout=30)

    assert failure.value.code == "http_status"
    assert not failure.value.retryable


def test_asyncio_programs_have_the_same_client(valkey_of_this_run: ValkeyServer, pictures: Pictures) -> None:
    """A program can await thousands of jobs at once; one connection receives the news of all of them."""

    async def ask() -> list[str]:
        async with AsyncClient(valkey_of_this_run.broker_url, valkey_of_this_run.result_backend) as client:
            jobs = [await client.submit(pictures(name), ["owl", "cat"]) for name in ("owl.png", "cat.jpg")]
            return [result.best.label for result in await asyncio.gather(*(job.result(30) for job in jobs))]

    assert asyncio.run(ask()) == ["owl", "cat"]


def test_any_celery_client_can_send_a_job(plain: Celery, pictures: Pictures) -> None:
    """It needs no package of ours: docs/wire-format.md describes the message."""
    question = {"image": pictures("owl.png"), "candidate_labels": ANIMALS}

    answer = plain.send_task("nameshot.classify", kwargs=question, queue="nameshot.default").get(30)

    assert answer["ranking"][0]["label"] == "owl"


def test_a_job_that_was_never_submitted_is_unknown(client: Client) -> None:
    """Redis holds neither a message nor an answer of the job."""
    assert client.job("never-sent").status() == "unknown"
    with pytest.raises(JobNotFound):
        client.job("never-sent").result(timeout=30)
