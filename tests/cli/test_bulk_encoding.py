"""In lists that are not UTF-8, a row of another encoding fails alone; a file that is no text is refused."""

import json
from pathlib import Path

import pytest

from producer.cli.bulk.input import BulkInput
from producer.cli.bulk.rows import Record
from producer.demo.gallery import FOLDER
from producer.errors import UsageError
from tests.cli.command import Home

NOT_UTF8 = "line {} is not UTF-8 text; save the list as UTF-8"


def records(file: Path) -> list[Record]:
    source = BulkInput(str(file))
    with source.open() as opened:
        return list(source.records(opened))


@pytest.mark.parametrize(
    ("name", "content", "line", "image", "own_id"),
    [
        ("list.csv", b"id,url\ncaf\xe9,http://a/1\nok,http://a/2\n", 2, "http://a/1", "caf\N{REPLACEMENT CHARACTER}"),
        ("list.csv", b"id,url\nx,http://a/\xe9\nok,http://a/2\n", 2, "http://a/\N{REPLACEMENT CHARACTER}", "x"),
        ("urls.txt", b"\xef\xbb\xbfhttp://a/\xe9\nhttp://a/2\n", 1, "http://a/\N{REPLACEMENT CHARACTER}", None),
        (
            "list.jsonl",
            b'{"url": "http://a/1", "id": "\xe9"}\n{"url": "http://a/2"}\n',
            1,
            "http://a/1",
            "\N{REPLACEMENT CHARACTER}",
        ),
    ],
)
def test_a_row_in_another_encoding_fails_alone(
    name: str, content: bytes, line: int, image: str, own_id: str | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)

    bad, good = records(tmp_path / name)

    assert bad == Record(line, image, NOT_UTF8.format(line), own_id)
    assert (good.image, good.problem) == ("http://a/2", "")


def test_another_encoding_in_an_unread_column_fails_no_row(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"url,gr\xf6\xdfe\nhttp://a/1,caf\xe9\n")

    assert records(tmp_path / "list.csv") == [Record(2, "http://a/1")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_list_in_utf_16_is_refused_in_one_sentence(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_bytes("\ufeffhttp://a/1\n".encode(encoding))

    with pytest.raises(UsageError, match=r"urls.txt is UTF-16; save it as UTF-8\.$"):
        records(tmp_path / "urls.txt")


@pytest.mark.parametrize("name", ["owl.png", "car.jpg"])
def test_a_picture_in_place_of_a_list_is_refused_in_one_sentence(name: str, with_valkey: Home) -> None:
    done = with_valkey.run("bulk", FOLDER / name, "-l", "fox", "-l", "owl", "-o", "out.jsonl")

    assert (done.status, done.out) == (2, "")
    assert done.sentence.endswith(
        f"{name} is not text, so it is no list of images; `nameshot classify` takes pictures."
    )
    assert not (with_valkey.folder / "out.jsonl").read_text()


def test_the_error_of_a_row_in_another_encoding_is_written_and_a_second_run_keeps_it(with_valkey: Home) -> None:
    (with_valkey.folder / "list.csv").write_bytes(b"id,url\ncaf\xe9,http://a/\xe9\n")
    command = ("bulk", "list.csv", "-l", "fox", "-l", "owl", "-o", "out.jsonl")

    first, second = with_valkey.run(*command), with_valkey.run(*command)

    assert (first.status, second.status) == (1, 1)
    assert first.err.startswith("1 image: 0 classified, 1 failed (1 invalid_url)")

    (line,) = (with_valkey.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["error"]["message"] == NOT_UTF8.format(2) + "."
