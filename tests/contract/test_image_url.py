"""Which image URLs a client refuses before it sends a job."""

import pytest

from producer import Client
from producer.contract.image_url import check_url_shape
from producer.contract.job import ClassifyJob, Question
from producer.errors import InvalidJob, JobFailed

LABELS = ["fox", "owl"]
SPACE = "contains a space, a backslash or an invisible character; percent-encode it."
USER = "contains a user name or password; leave it out."
FAULTS = {
    "http://images.example/my owl.jpg": SPACE,
    " http://images.example/owl.jpg": None,
    "http://images.example/owl.jpg\n": SPACE,
    "http://images.example/owl\u2028.jpg": SPACE,
    "http:\\\\images.example": None,
    "http://images.example\\owl.jpg": SPACE,
    "https://me@images.example/owl.jpg": USER,
    "https://me:secret@images.example/owl.jpg": USER,
}


@pytest.mark.parametrize("url", FAULTS)
def test_a_url_that_no_worker_fetches_is_refused_before_it_is_queued(url: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        check_url_shape(url)

    ending = FAULTS[url] or "must be an absolute http:// or https:// URL; other schemes and file paths are refused."
    assert str(caught.value) == f"the image URL {ending}"


def test_no_call_of_the_client_queues_a_url_with_a_user_name() -> None:
    url = "https://me:secret@images.example/owl.jpg"
    with Client("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0") as client:  # no Redis listens there
        for call in (
            lambda: client.submit(url, LABELS),
            lambda: client.submit_many([(url, LABELS)]),
            lambda: client.submit_many([ClassifyJob(url, Question.checked(LABELS))]),
        ):
            with pytest.raises(InvalidJob, match=USER):
                call()
        (outcome,) = client.classify_many([url], LABELS)

    assert isinstance(outcome.error, JobFailed)
    assert outcome.error.code == "invalid_url"
    assert outcome.error.message == f"the image URL {USER}"


@pytest.mark.parametrize("url", ["http://images.example/@owl", "http://images.example?mail=me@images.example"])
def test_an_at_sign_after_the_host_is_no_user_name(url: str) -> None:
    assert check_url_shape(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "owl.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "data:image/png;base64,AA",
        "http://",
        "http:///x",
        "http://:80/x",
        "",
        7,
    ],
)
def test_a_client_refuses_a_value_that_is_no_url(url: object) -> None:
    with pytest.raises(InvalidJob):
        check_url_shape(url)


@pytest.mark.parametrize("half", [0xD800, 0xDCFF, 0xDFFF])
def test_a_client_refuses_a_url_with_half_a_surrogate_pair(half: int) -> None:
    with pytest.raises(InvalidJob, match=rf"the image URL contains U\+{half:04X}, half of a surrogate pair"):
        check_url_shape(f"https://images.example/フクロウ{chr(half)}.jpg")


def test_a_client_accepts_a_url_in_any_script() -> None:
    url = "https://bücher.example/フクロウ🦉.jpg"

    assert check_url_shape(url) == url


def test_a_client_leaves_the_full_url_policy_to_the_worker() -> None:
    assert check_url_shape("HTTP://127.0.0.1/x") == "HTTP://127.0.0.1/x"
