"""Lists of images in the usual forms: plain text, CSV, TSV, JSONL and Parquet, gzipped or not."""

import datetime
import gzip
import random
import sys
import tracemalloc
from pathlib import Path

import pytest

from producer.cli.bulk.input import BulkInput
from producer.cli.bulk.rows import Record
from producer.errors import InvalidJob, NameshotError, UsageError


def records(folder: Path, name: str, text: str | bytes, **options: str) -> list[Record]:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    source = BulkInput(str(file), **options)  # type: ignore[arg-type]  # the options of these tests are strings
    with source.open() as opened:
        found = list(source.records(opened))
    assert source.count() == len(found)
    return found


def images(found: list[Record]) -> list[tuple[int, str]]:
    return [(record.line, record.image) for record in found]


@pytest.mark.parametrize("name", ["urls.txt", "urls", "urls.list"])
def test_plain_text_has_one_image_per_line(name: str, tmp_path: Path) -> None:
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


def test_in_a_csv_without_a_header_the_column_of_urls_is_found(tmp_path: Path) -> None:
    assert images(records(tmp_path, "list.csv", "7,http://a/1\n8,http://a/2\n")) == [
        (1, "http://a/1"),
        (2, "http://a/2"),
    ]


@pytest.mark.parametrize(("column", "expected"), [("thumb", "http://a/t"), ("3", "http://a/t"), ("url", "http://a/1")])
def test_a_column_can_be_chosen_by_name_or_number(column: str, expected: str, tmp_path: Path) -> None:
    (record,) = records(tmp_path, "list.csv", "id,url,thumb\n7,http://a/1,http://a/t\n", column=column)

    assert record.image == expected


def test_a_csv_whose_image_column_cannot_be_found_is_refused_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(InvalidJob, match=r"choose one of id, photo with --column"):
        records(tmp_path, "list.csv", "id,photo\n7,a.png\n")
    with pytest.raises(InvalidJob, match=r"no column 'picture'; its columns are id, photo"):
        records(tmp_path, "list.csv", "id,photo\n7,a.png\n", column="picture")


def test_line_numbers_are_right_despite_quoted_line_breaks(tmp_path: Path) -> None:
    found = records(tmp_path, "list.csv", 'note,url\n"two\nlines",http://a/1\nx,http://a/2\n')

    assert images(found) == [(2, "http://a/1"), (4, "http://a/2")]


def test_a_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    assert images(records(tmp_path, "list.tsv", "id\turl\n7\thttp://a/1,2\n")) == [(2, "http://a/1,2")]


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("id;url\n7;http://a/1,2\n", "http://a/1,2"),
        ("id\turl;x\tnote\n7\thttp://a/1;2\t\n", None),
        ("\n7;http://a/1,2\n", "http://a/1,2"),
        ("http://a/1\t7\n", "http://a/1"),
        ("7\thttp://a/1;2,3\n", "http://a/1;2,3"),
        ("http://a/1;jsessionid=3\n", "http://a/1;jsessionid=3"),
        ("url\nhttp://a/1;2\n", "http://a/1;2"),
        ('"id;x",url\n7,http://a/1\n', "http://a/1"),
    ],
)
def test_a_csv_may_be_split_at_semicolons_or_tabs(text: str, image: str | None, tmp_path: Path) -> None:
    if image is None:
        with pytest.raises(InvalidJob, match="choose one of id, url;x, note with"):
            records(tmp_path, "list.csv", text)
        return
    (record,) = records(tmp_path, "list.csv", text)

    assert record.image == image


def test_comments_and_blank_lines_of_a_plain_list_are_skipped(tmp_path: Path) -> None:
    text = "# pictures of May\n\n  # and of June\nhttp://a/1#top\nhttp://a/2\n"

    assert images(records(tmp_path, "urls.txt", text)) == [(4, "http://a/1#top"), (5, "http://a/2")]
    assert images(records(tmp_path, "urls", text)) == [(4, "http://a/1#top"), (5, "http://a/2")]


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        ("list.csv", "ID,url\n007,http://a/1\n,http://a/2\n", ["007", ""]),
        (
            "list.jsonl",
            '{"url": "http://a/1", "id": 7}\n{"url": "http://a/2", "id": "x"}\n"http://a/3"\n',
            [7, "x", None],
        ),
        ("list.jsonl", '{"url": "http://a/1", "id": NaN}\n{"url": "http://a/2", "id": [1]}\n', [None, "[1]"]),
        ("list.csv", "7,http://a/1\n", [None]),
        ("urls.txt", "http://a/1\n", [None]),
    ],
)
def test_a_record_has_the_id_of_the_input(name: str, text: str, ids: list[object], tmp_path: Path) -> None:
    assert [record.id for record in records(tmp_path, name, text)] == ids


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("urls.txt.gz", "http://a/1\n"),
        ("list.csv.gz", "id;url\n7;http://a/1\n"),
        ("list.JSONL.gz", '{"url": "http://a/1"}\n'),
    ],
)
def test_any_list_may_be_gzipped(name: str, text: str, tmp_path: Path) -> None:
    (record,) = records(tmp_path, name, gzip.compress(text.encode()))

    assert record.image == "http://a/1"


def test_a_gzipped_list_is_known_by_its_content_too(tmp_path: Path) -> None:
    assert images(records(tmp_path, "urls", gzip.compress(b"http://a/1\n"))) == [(1, "http://a/1")]


@pytest.mark.parametrize("kept", [9, 11, 18, 60, 100, -4])
@pytest.mark.parametrize("name", ["urls.txt.gz", "urls", "urls.csv.gz"])
def test_a_gzip_file_that_is_damaged_near_its_start_is_reported_in_one_sentence(
    tmp_path: Path, name: str, kept: int
) -> None:
    whole = gzip.compress("".join(f"http://a/{random.random()}\n" for _ in range(100)).encode())
    for damaged in (whole[:kept], whole[:10] + b"\xff\xfe" * 20 + whole[50:], whole[:-8] + b"\0" * 8):
        (tmp_path / name).write_bytes(damaged)
        source = BulkInput(str(tmp_path / name))

        with source.open() as opened, pytest.raises(InvalidJob, match="the gzip file is damaged"):
            list(source.records(opened))
        with pytest.raises(InvalidJob, match="the gzip file is damaged"):
            source.count()


def test_a_damaged_gzip_file_yields_its_readable_lines_and_then_an_error(tmp_path: Path) -> None:
    numbers = "".join(f"http://a/{random.random()}\n" for _ in range(10_000))
    file = tmp_path / "urls.txt.gz"
    file.write_bytes(gzip.compress(numbers.encode())[:-1000])
    source = BulkInput(str(file))

    with source.open() as opened:
        found = source.records(opened)
        assert [next(found).line for _ in range(100)] == list(range(1, 101))
        with pytest.raises(InvalidJob, match=r"gz cannot be read after line \d+: the gzip file is damaged\.$"):
            list(found)


def test_a_missing_quotation_mark_fails_only_the_rows_that_it_swallows(tmp_path: Path) -> None:
    rows = [f"{number},http://a/{number}" for number in range(3, 10_000)]
    text = "\n".join(["id,url", '2,"http://a/2', *rows, '10000,"http://a/10000"', "10001,http://a/10001", ""])

    found = records(tmp_path, "list.csv", text)

    assert found[0].line == 2
    assert found[0].problem.endswith("a quotation mark may be missing")
    assert found[-1] == Record(10_001, "http://a/10001", id="10001")


def write_parquet(folder: Path, rows_per_group: int = 10, **columns: list[object]) -> bytes:
    from pyarrow import parquet, table

    parquet.write_table(table(columns), folder / "list.parquet", row_group_size=rows_per_group)
    return (folder / "list.parquet").read_bytes()


@pytest.mark.parametrize("name", ["list.parquet", "list", "list.parquet.gz"])
def test_parquet_is_read_by_its_columns(name: str, tmp_path: Path) -> None:
    urls: list[object] = [f"http://a/{number}" for number in range(1, 26)]
    content = write_parquet(tmp_path, note=[*urls], url=urls, id=[*range(1, 26)])
    if name.endswith(".gz"):
        content = gzip.compress(content)

    found = records(tmp_path, name, content)

    assert found == [Record(number, f"http://a/{number}", id=number) for number in range(1, 26)]


def test_a_parquet_row_without_text_fails_alone(tmp_path: Path) -> None:
    content = write_parquet(tmp_path, picture=["http://a/1", None], id=[datetime.date(2026, 1, 31), None])

    first, second = records(tmp_path, "list.parquet", content, column="picture")

    assert first == Record(1, "http://a/1", id="2026-01-31")
    assert second == Record(2, "", "the row has no text under picture")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"PAR1 and nothing", {}, "cannot be read as Parquet: "),
        (b"no parquet at all", {}, "cannot be read as Parquet: "),
        (None, {}, "no column of the table is called image or url; choose one of id, picture with"),
    ],
)
def test_parquet_that_cannot_be_read_is_reported_in_one_sentence(
    content: bytes | None, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    content = content or write_parquet(tmp_path, id=[1], picture=["http://a/1"])

    with pytest.raises(InvalidJob, match=message):
        records(tmp_path, "list.parquet", content, **options)


def test_a_number_beyond_the_last_column_of_parquet_is_a_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the table has 2 columns, so it has no column 3"):
        records(tmp_path, "list.parquet", write_parquet(tmp_path, id=[1], picture=["http://a/1"]), column="3")


def test_without_pyarrow_parquet_is_refused_by_the_name_of_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(NameshotError, match=r"pyarrow is not installed; install nameshot\[parquet\], or give CSV"):
        records(tmp_path, "list.parquet", b"PAR1")


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz", "list.jsonl", "list.parquet"])
def test_memory_does_not_grow_with_the_length_of_the_list(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    urls: list[object] = [f"http://a/{number:0100}" for number in range(30_000)]
    if name.endswith("parquet"):
        write_parquet(tmp_path, len(urls), url=urls)
    elif "jsonl" in name:
        file.write_text("".join(f'{{"url": "{url}"}}\n' for url in urls))
    else:
        text = "url\n" + "".join(f"{url}\n" for url in urls)
        file.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    source = BulkInput(str(file))

    tracemalloc.start()
    try:
        with source.open() as opened:
            assert sum(1 for _ in source.records(opened)) == len(urls)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 2_000_000


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
        ("list.jsonl", '{"url": " "}', "the line has no text under image or url"),
        ("list.csv", "7,", "the row has no image"),
        ("list.csv", "7", "the row has 1 column, and the image's column is 2"),
    ],
)
def test_a_bad_jsonl_record_fails_alone(name: str, line: str, problem: str, tmp_path: Path) -> None:
    first = "id,url\n" if name.endswith("csv") else '{"url": "http://a/1"}\n'
    last = "9,http://a/2\n" if name.endswith("csv") else '{"url": "http://a/2"}\n'

    found = records(tmp_path, name, f"{first}{line}\n{last}")

    assert [record.problem for record in found if not record.image] == [problem]
    assert (found[-1].line, found[-1].image) == (3, "http://a/2")


def test_a_byte_order_mark_and_stray_bytes_are_tolerated(tmp_path: Path) -> None:
    found = records(tmp_path, "urls.txt", b"\xef\xbb\xbfhttp://a/1\nhttp://a/\xff\nhttp://a/3\n")

    assert images(found) == [(1, "http://a/1"), (2, "http://a/\N{REPLACEMENT CHARACTER}"), (3, "http://a/3")]


def test_an_option_names_the_form_of_a_list_whose_name_does_not(tmp_path: Path) -> None:
    assert images(records(tmp_path, "list.dat", "id,url\n7,http://a/1\n", format="csv")) == [(2, "http://a/1")]


def test_a_file_that_is_not_there_is_reported_in_one_sentence() -> None:
    with (
        pytest.raises(InvalidJob, match=r"^nowhere.txt cannot be read: No such file or directory\.$"),
        BulkInput("nowhere.txt").open(),
    ):
        pass
