"""Lists of images, in the forms in which people have them."""

from pathlib import Path

import pytest

from producer.cli.bulk.input import BulkInput, Record
from producer.errors import InvalidJob


def records(folder: Path, name: str, text: str | bytes, **options: str) -> list[Record]:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    source = BulkInput(str(file), **options)  # type: ignore[arg-type]
    with source.open() as opened:
        found = list(source.records(opened))
    assert source.count() == len(found)
    return found


def images(found: list[Record]) -> list[tuple[int, str]]:
    return [(record.line, record.image) for record in found]


@pytest.mark.parametrize("name", ["urls.txt", "urls", "urls.list"])
def test_text_has_one_image_a_line(name: str, tmp_path: Path) -> None:
    assert images(records(tmp_path, name, "http://a/1\n\n  http://a/2 \r\nhttp://a/3")) == [
        (1, "http://a/1"),
        (3, "http://a/2"),
        (4, "http://a/3"),
    ]


@pytest.mark.parametrize("heading", ["url", "Image", "IMAGE_URL", "link"])
def test_the_column_of_a_csv_is_found_by_its_name(heading: str, tmp_path: Path) -> None:
    assert images(records(tmp_path, "list.csv", f'id,{heading},note\n7,http://a/1,"x, y"\n8,http://a/2,\n')) == [
        (2, "http://a/1"),
        (3, "http://a/2"),
    ]


def test_a_csv_without_a_heading_is_read_by_what_looks_like_a_url(tmp_path: Path) -> None:
    assert images(records(tmp_path, "list.csv", "7,http://a/1\n8,http://a/2\n")) == [
        (1, "http://a/1"),
        (2, "http://a/2"),
    ]


@pytest.mark.parametrize(("column", "expected"), [("thumb", "http://a/t"), ("3", "http://a/t"), ("url", "http://a/1")])
def test_a_column_can_be_chosen_by_name_or_number(column: str, expected: str, tmp_path: Path) -> None:
    (record,) = records(tmp_path, "list.csv", "id,url,thumb\n7,http://a/1,http://a/t\n", column=column)

    assert record.image == expected


def test_a_csv_whose_column_cannot_be_found_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidJob, match=r"choose one of id, photo with --column"):
        records(tmp_path, "list.csv", "id,photo\n7,a.png\n")
    with pytest.raises(InvalidJob, match=r"no column 'picture'; its columns are id, photo"):
        records(tmp_path, "list.csv", "id,photo\n7,a.png\n", column="picture")


def test_quoted_line_breaks_do_not_disturb_the_count_of_lines(tmp_path: Path) -> None:
    found = records(tmp_path, "list.csv", 'note,url\n"two\nlines",http://a/1\nx,http://a/2\n')

    assert images(found) == [(2, "http://a/1"), (4, "http://a/2")]


def test_a_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    assert images(records(tmp_path, "list.tsv", "id\turl\n7\thttp://a/1,2\n")) == [(2, "http://a/1,2")]


@pytest.mark.parametrize("name", ["list.jsonl", "list.ndjson", "list"])
def test_jsonl_has_objects_or_plain_strings(name: str, tmp_path: Path) -> None:
    text = '{"image": "http://a/1", "id": 7}\n{"url": "http://a/2"}\n"http://a/3"\n'

    assert images(records(tmp_path, name, text)) == [(1, "http://a/1"), (2, "http://a/2"), (3, "http://a/3")]


def test_a_json_key_can_be_chosen(tmp_path: Path) -> None:
    (record,) = records(tmp_path, "list.jsonl", '{"url": "http://a/1", "thumb": "http://a/t"}\n', column="thumb")

    assert record.image == "http://a/t"


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("list.jsonl", "{broken", "the line is not JSON"),
        pytest.param("list.jsonl", "[" * 100_000, "the line is not JSON", id="too deep"),
        ("list.jsonl", '{"name": "x"}', "the line has no text under image or url"),
        ("list.jsonl", '{"url": 7}', "the line has no text under image or url"),
        ("list.csv", "7", "the row has 1 columns, and the image's column is 2"),
    ],
)
def test_a_bad_record_spoils_only_itself(name: str, line: str, problem: str, tmp_path: Path) -> None:
    first = "id,url\n" if name.endswith("csv") else '{"url": "http://a/1"}\n'
    last = "9,http://a/2\n" if name.endswith("csv") else '{"url": "http://a/2"}\n'

    found = records(tmp_path, name, f"{first}{line}\n{last}")

    assert [record.problem for record in found if not record.image] == [problem]
    assert found[-1] == Record(3, "http://a/2")


def test_a_byte_order_mark_and_stray_bytes_are_survived(tmp_path: Path) -> None:
    found = records(tmp_path, "urls.txt", b"\xef\xbb\xbfhttp://a/1\nhttp://a/\xff\nhttp://a/3\n")

    assert images(found) == [(1, "http://a/1"), (2, "http://a/\N{REPLACEMENT CHARACTER}"), (3, "http://a/3")]


def test_the_form_can_be_said_where_the_name_does_not(tmp_path: Path) -> None:
    assert images(records(tmp_path, "list.dat", "id,url\n7,http://a/1\n", format="csv")) == [(2, "http://a/1")]


def test_a_file_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(InvalidJob, match=r"^nowhere.txt cannot be read: No such file or directory\.$"):
        BulkInput("nowhere.txt").open()
