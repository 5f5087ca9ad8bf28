"""Whatever a caller passes by mistake, each call raises an error of ours with the argument's public name."""

import asyncio
import datetime
import inspect
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from producer import AsyncClient, ClassifyJob, Client, InvalidJob, NameshotError, Question
from producer.contract.names import QUEUES
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]
#: Values that no argument accepts.
WRONG = [b"x", object(), [None], (letter for letter in "a"), {"a": 1}, datetime.timedelta(1), pathlib.Path("x"), True]

Call = Callable[[Any], Any]


def done(outcome: Any) -> object:
    """Return the result of a call of either client once the call has ended."""
    if inspect.iscoroutine(outcome):
        return asyncio.run(outcome)
    if isinstance(outcome, AsyncIterator):
        return asyncio.run(anext(outcome))  # type: ignore[arg-type]  # the generators of our clients are coroutines here
    return next(outcome) if inspect.isgenerator(outcome) else outcome


@pytest.fixture(params=[Client, AsyncClient])
def either(request: pytest.FixtureRequest, valkey: ValkeyServer) -> Any:
    return request.param(valkey.broker_url, valkey.result_backend)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("method", ["submit", "classify", "classify_many"])
def test_an_argument_of_a_wrong_type_is_named_as_the_caller_wrote_it(
    method: str, wrong: object, either: Any, client: Client
) -> None:
    first = {"urls": [URL]} if method == "classify_many" else {"url": URL}
    names = [*first, "labels", "hypothesis_template", "top_k", "download_timeout", "expires_in", "queue"]
    names += {"submit": ["job_id"], "classify": ["job_id", "timeout"]}.get(method, ["images_per_message", "in_flight"])
    for name in names:
        if name == "urls" and not isinstance(wrong, bytes | bool):
            continue  # `classify_many` accepts any other iterable, and refuses each of its items separately
        with pytest.raises(InvalidJob, match=rf"^{name}(\[0\])? must be "):
            done(getattr(either, method)(**{**first, "labels": LABELS, name: wrong}))

    assert client.queue_depths() == dict.fromkeys(QUEUES, 0)


@pytest.mark.parametrize("wrong", [None, 5, "text", b"text", {"url": URL, "labels": LABELS}])
def test_submit_many_refuses_what_is_no_iterable_of_jobs(wrong: object, either: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^jobs must be a list or another iterable of jobs, not "):
        done(either.submit_many(wrong))


@pytest.mark.parametrize("wrong", [None, 5, URL, URL.encode(), pathlib.Path("x")])
def test_classify_many_refuses_what_is_no_iterable_of_urls(wrong: object, either: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^urls must be a list or another iterable of URLs, not "):
        done(either.classify_many(wrong, LABELS))


def test_the_blocking_client_refuses_an_async_iterable(client: Client) -> None:
    async def urls() -> AsyncIterator[str]:
        yield URL

    with pytest.raises(InvalidJob, match=r"^urls must be a list or another iterable of URLs, not async_generator\.$"):
        client.classify_many(urls(), LABELS)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: ClassifyJob(URL, LABELS),  # type: ignore[arg-type]  # the mistake
            r"^question must be a Question, not list; make one of the labels with Question\.checked\(labels\)\.$",
        ),
        (
            lambda: ClassifyJob(None, Question(LABELS)),  # type: ignore[arg-type]  # the mistake
            r"^image must be a URL string, not None\.$",
        ),
        (lambda: ClassifyJob("x", Question(LABELS)), r"^jobs\[0\]: image must be an absolute http"),
        (
            lambda: ClassifyJob(URL, Question(["a", 3])),  # type: ignore[list-item]  # the mistake
            r"^jobs\[0\]: candidate_labels\[1\] must be a string, not int\.",
        ),
        (lambda: ClassifyJob(URL, Question(["a"], ["b"])), r"^jobs\[0\]: templates\[0\] 'b' must contain \{\} exactly"),
        (lambda: ClassifyJob(URL, Question(["a"], download_timeout=0)), r"^jobs\[0\]: download_timeout must be more"),
    ],
)
def test_a_job_with_a_wrong_attribute_is_refused_by_the_attributes_name(
    make: Callable[[], ClassifyJob], sentence: str, client: Client
) -> None:
    with pytest.raises(InvalidJob, match=sentence):
        client.submit_many([make()])


def test_a_refused_first_job_claims_nothing_of_jobs_before_it(client: Client) -> None:
    with pytest.raises(NameshotError, match=r"^jobs\[0\]: url must be an absolute [^.]*\.$"):
        client.submit_many([("x", LABELS)])
