"""The file of answers can be continued however a run ended, and never mixes questions or loses answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from producer.cli.bulk.output import BulkOutput, BulkOutputError, question_digest
from producer.cli.bulk.rows import Record

QUESTION = question_digest(["fox", "owl"], "This is a photo of {}.", None)
RESULT = {"result": {"ranking": [{"label": "owl", "score": 1.0}]}}
LATER = {"error": {"code": "fetch_timeout", "message": "too slow.", "retryable": True}}
NEVER = {"error": {"code": "undecodable", "message": "broken.", "retryable": False}}


def record(line: int) -> Record:
    return Record(line, f"http://a/{line}")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "out.jsonl"
    with BulkOutput(file, QUESTION) as output:
        for line, answer in ((1, RESULT), (3, LATER), (4, NEVER)):
            output.write(record(line), answer)
    return file


def test_each_answer_is_a_line_that_names_its_record(file: Path) -> None:
    assert lines(file)[0] == {"line": 1, "url": "http://a/1", "question": QUESTION, **RESULT}


def test_a_later_run_knows_which_lines_have_answers(file: Path) -> None:
    with BulkOutput(file, QUESTION) as output:
        assert [output.has(record(line)) for line in (1, 2, 3, 4, 5, 10**6)] == [True, False, True, True, False, False]
        assert (output.succeeded, output.failed, output.retryable) == (1, 2, 1)
        assert output.codes == {"fetch_timeout": 1, "undecodable": 1}


def test_lines_may_come_in_any_order_and_far_apart(tmp_path: Path) -> None:
    numbers = [70_000, 2, 500, 69_999, 1]
    with BulkOutput(tmp_path / "out.jsonl", QUESTION) as output:
        for number in numbers:
            output.write(record(number), RESULT)
        assert all(output.has(record(number)) for number in numbers)
        assert not output.has(record(3))


@pytest.mark.parametrize("cut", [1, 5, 40, 60])
def test_an_incomplete_last_line_is_dropped_and_its_image_sent_again(cut: int, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-cut])

    with BulkOutput(file, QUESTION) as output:
        assert output.has(record(3))
        assert not output.has(record(4))
        output.write(record(4), NEVER)

    assert [line["line"] for line in lines(file)] == [1, 3, 4]


def test_a_file_with_only_an_incomplete_line_starts_empty(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text('{"line": 1, "url": "' + "x" * 200_000)

    with BulkOutput(file, QUESTION) as output:
        assert not output.has(record(1))

    assert file.read_bytes() == b""


def test_retry_failed_drops_only_retryable_errors(file: Path) -> None:
    with BulkOutput(file, QUESTION, retry_failed=True) as output:
        assert [output.has(record(line)) for line in (1, 3, 4)] == [True, False, True]
        output.write(record(3), RESULT)
        assert (output.succeeded, output.failed) == (2, 1)

    assert [line["line"] for line in lines(file)] == [1, 4, 3]
    assert list(file.parent.iterdir()) == [file]


def test_a_file_with_answers_to_another_question_is_refused(file: Path) -> None:
    other = question_digest(["owl", "fox"], "This is a photo of {}.", None)

    with pytest.raises(BulkOutputError, match=r"other labels, another template or another --top-k; write to another"):
        BulkOutput(file, other)


def test_a_changed_input_is_refused(file: Path) -> None:
    with (
        BulkOutput(file, QUESTION) as output,
        pytest.raises(BulkOutputError, match=r"holds an answer for line 3, but the input now has a different image"),
    ):
        output.has(Record(3, "http://a/other"))


@pytest.mark.parametrize(
    "content",
    [
        '{"line": 1}\n',
        "http://a/1\n",
        "http://a/1",
        "{}",
        '{"line": "1", "url": "u", "question": "q"}\n',
        pytest.param("[" * 100_000, id="too deep"),
    ],
)
def test_a_file_that_nameshot_bulk_did_not_write_is_refused_and_not_changed(content: str, tmp_path: Path) -> None:
    file = tmp_path / "urls.txt"
    file.write_text(content)

    with pytest.raises(BulkOutputError, match=r"^line 1 of .* was not written by `nameshot bulk`"):
        BulkOutput(file, QUESTION)

    assert file.read_text() == content


def test_two_runs_cannot_write_to_one_file(file: Path) -> None:
    with BulkOutput(file, QUESTION), pytest.raises(BulkOutputError, match="another `nameshot bulk` is writing to"):
        BulkOutput(file, QUESTION)
    BulkOutput(file, QUESTION).close()


def test_a_file_that_cannot_be_written_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BulkOutputError, match=r"cannot be used: No such file or directory\.$"):
        BulkOutput(tmp_path / "nowhere" / "out.jsonl", QUESTION)


def test_a_full_disk_is_reported_in_one_sentence() -> None:
    with (
        BulkOutput(Path("/dev/full"), QUESTION) as output,
        pytest.raises(
            BulkOutputError, match=r"/dev/full cannot be written: No space left on device; run the command again"
        ),
    ):
        output.write(record(1), RESULT)


def test_different_questions_have_different_digests() -> None:
    digests = {
        question_digest(["fox", "owl"], "{}", None),
        question_digest(["owl", "fox"], "{}", None),
        question_digest(["fox", "owl"], ["{}"], None),
        question_digest(["fox", "owl"], "{}", 1),
        question_digest(["fox, owl"], "{}", None),
    }

    assert len(digests) == 5
