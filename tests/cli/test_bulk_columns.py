"""The image's column chosen by its number, in tables with and without a header."""

from pathlib import Path

import pytest

from producer.cli.bulk.input import BulkInput
from producer.errors import UsageError
from tests.cli.command import Home


def images(file: Path, column: str) -> list[tuple[int, str]]:
    source = BulkInput(str(file), column=column)
    with source.open() as opened:
        return [(record.line, record.image) for record in source.records(opened)]


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("7,owl.png\n8,car.jpg\n", "2", [(1, "owl.png"), (2, "car.jpg")]),
        ("7,Owl.JPEG\n", "2", [(1, "Owl.JPEG")]),
        ("7,beside\n", "2", [(1, "beside")]),
        ("2,http://a/1\n", "2", [(1, "http://a/1")]),
        ("2,owl.png\n", "2", [(1, "owl.png")]),
        ("id,picture\n7,owl.png\n", "2", [(2, "owl.png")]),
        ("1,2\n7,owl.png\n", "2", [(2, "owl.png")]),
        ("http://a/owl.png;1\nhttp://a/car.jpg;2\n", "1", [(1, "http://a/owl.png"), (2, "http://a/car.jpg")]),
        ("7;http://a/1,2\n", "2", [(1, "http://a/1,2")]),
        ("owl.png;1\n", "1", [(1, "owl.png")]),
        ("http://a/1,2\t7\n", "1", [(1, "http://a/1,2")]),
    ],
)
def test_with_a_column_number_a_first_row_that_holds_an_image_is_not_taken_for_a_header(
    text: str, column: str, expected: list[tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "beside").touch()
    (tmp_path / "list.csv").write_text(text)

    assert images(tmp_path / "list.csv", column) == expected


def test_a_number_beyond_the_last_column_is_a_wrong_use(with_valkey: Home) -> None:
    (with_valkey.folder / "list.csv").write_text("id,url,note\n7,http://a/1,x\n8,http://a/2,x\n")

    done = with_valkey.run("bulk", "list.csv", "-l", "fox", "-l", "owl", "--column", "9")

    assert (done.status, done.out) == (2, "")
    assert done.sentence == "the table has 3 columns, so it has no column 9."


@pytest.mark.parametrize("number", ["0", "4"])
def test_a_column_number_outside_the_table_is_refused(number: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("http://a/1\n")

    with pytest.raises(UsageError, match=f"the table has 1 column, so it has no column {number}"):
        images(tmp_path / "list.csv", number)
