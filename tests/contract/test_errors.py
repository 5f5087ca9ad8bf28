"""The table of error codes agrees with what failed jobs say and with what the code does."""

import pytest

from producer.errors import ERROR_CODES, JobFailed
from worker.decoding.images import MAX_ASPECT_RATIO, REFUSALS, reason_of, refusal
from worker.fetch.fetcher import MAX_REDIRECTS


@pytest.mark.parametrize("code", ERROR_CODES)
def test_a_failure_without_its_own_message_has_the_sentence_of_the_table(code: str) -> None:
    failure = JobFailed(code)

    assert failure.args == (code, ERROR_CODES[code].sentence, ERROR_CODES[code].retryable)
    assert failure.message.endswith(".")
    assert "`" not in failure.message


def test_a_failure_keeps_its_own_message() -> None:
    failure = JobFailed("empty", "no bytes.", True)

    assert str(JobFailed(*failure.args)) == "empty: no bytes."
    assert failure.retryable


@pytest.mark.parametrize("reason", REFUSALS)
def test_each_reason_to_refuse_an_image_has_a_code_of_the_table_and_its_own_sentence(reason: str) -> None:
    failure = refusal(reason)

    assert failure.code in ERROR_CODES
    assert failure.message.endswith(".")
    assert reason_of(failure) == reason


def test_the_limits_in_the_table_are_those_of_the_code() -> None:
    assert f"more than {MAX_ASPECT_RATIO} times" in ERROR_CODES["bad_aspect_ratio"].meaning
    assert f"`NAMESHOT_FETCH_REDIRECTS` ({MAX_REDIRECTS})" in ERROR_CODES["too_many_redirects"].meaning
