"""`nameshot evaluate` measures how often a model is right about pictures whose labels are known."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from producer.cli.evaluate.examples import Example, read_examples
from producer.cli.evaluate.measures import Evaluation, Failure, Judged
from producer.cli.evaluate.page import page
from producer.contract.result import scores_of
from producer.demo.gallery import FOLDER
from producer.errors import JobFailed, UsageError
from tests.cli.command import Home, Running

#: Enough for a system's start on a busy machine.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A folder for each label; one picture is in the wrong folder, and one file is no picture."""
    for label, file in (("owl", "owl.png"), ("car", "car.jpg"), ("red_fox", "owl.png")):
        (tmp_path / label).mkdir()
        (tmp_path / label / file).write_bytes((FOLDER / file).read_bytes())
    (tmp_path / "car" / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_for_each_label_is_evaluated(up: Running, labelled: Path) -> None:
    done = up.home.run("evaluate", labelled, "-l", "bear", "--html", "report.html")

    assert done.status == 0
    assert "3 pictures, 4 labels" in done.out
    assert "top-1 66.7%" in done.out
    assert f"{labelled}/red_fox/owl.png: red fox " in done.out
    assert "ranked first: owl" in done.out
    report = (up.home.folder / "report.html").read_text()
    assert "66.7%" in report
    assert report.count("data:image/jpeg;base64,") == 1


def test_a_table_of_urls_and_labels_is_evaluated_as_json(up: Running, tmp_path: Path) -> None:
    table = tmp_path / "pictures.csv"
    table.write_text(f"label,url\nowl,{FOLDER / 'owl.png'}\ncar,{FOLDER / 'car.jpg'}\ncar,http://127.0.0.1:1/x.png\n")

    done = up.home.run("evaluate", table, "--json")

    assert done.status == 1
    (found,) = done.json_lines
    assert (found["pictures"], found["classified"], found["top_1"], found["top_5"]) == (3, 2, 1.0, 1.0)
    assert sum(found["failed"].values()) == 1
    assert found["labels"][0] == {"label": "owl", "pictures": 1, "right": 1, "recall": 1.0, "precision": 1.0}
    assert found["worst"] == []


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "holds no pictures with labels; it needs rows of image and label"),
        ("url,label\n", "holds no pictures with labels"),
        ("http://x/1.png,owl\nhttp://x/2.png\n", "has a row without an image or a label: 'http://x/2.png'"),
        (b"\xff\xfe\x00", "is neither a folder nor a CSV file"),
    ],
)
def test_a_table_that_cannot_be_evaluated_is_reported_in_one_sentence(
    home: Home, content: str | bytes, part: str
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (home.folder / "table.csv").write_bytes(data)

    done = home.run("evaluate", "table.csv")

    assert done.status == 2
    assert part in done.sentence


def test_a_folder_one_level_too_high_is_refused_because_all_its_pictures_would_have_one_label(home: Home) -> None:
    (home.folder / "top" / "my_photos" / "owls").mkdir(parents=True)
    (home.folder / "top" / "my_photos" / "owls" / "owl.png").write_bytes(b"")

    done = home.run("evaluate", "top")

    assert done.status == 2
    assert done.sentence == (
        "there is only one label ('my photos'), so every answer would be right: give the folder "
        "whose subfolders are the labels, or add others with -l."
    )


def test_a_table_with_one_label_is_refused_unless_other_labels_are_given(home: Home) -> None:
    (home.folder / "table.csv").write_text("http://x/1.png,owl\nhttp://x/2.png,owl\n")

    done = home.run("evaluate", "table.csv")

    assert done.status == 2
    assert "only one label ('owl'), so every answer would be right: give rows with other labels, or" in done.sentence
    assert read_examples(home.folder / "table.csv")[0].label == "owl"


def test_pictures_outside_the_labels_folders_are_reported_as_left_out(up: Running, labelled: Path) -> None:
    for name in ("a.png", "b.JPG", "notes.txt"):
        (labelled / name).write_bytes(b"")

    done = up.home.run("evaluate", labelled)

    assert done.status == 0
    assert f"nameshot: left out 2 pictures that lie in no label's folder of {labelled}: a.png, b.JPG.\n" in done.err


def test_files_in_the_labels_folders_that_are_not_named_like_pictures_are_reported_as_left_out(
    up: Running, labelled: Path
) -> None:
    owl = next((labelled / "owl").iterdir())
    shutil.copy(owl, labelled / "owl" / "photo.jfif")
    shutil.copy(owl, labelled / "owl" / "IMG_1")
    for name in ("drawing.svg", "scan.tiff", ".DS_Store", "._owl.png"):
        (labelled / "owl" / name).write_bytes(b"")
    (labelled / "car" / "notes.txt").unlink()

    done = up.home.run("evaluate", labelled)

    assert "5 pictures, 3 labels" in done.out
    names = "owl/drawing.svg, owl/scan.tiff"
    assert f"nameshot: left out 2 files whose name does not end as that of a picture: {names}.\n" in done.err


def test_a_page_that_cannot_be_written_is_refused_before_any_picture_is_sent(home: Home) -> None:
    (home.folder / "table.csv").write_text("http://x/1.png,owl\nhttp://x/2.png,fox\n")

    done = home.run("evaluate", "table.csv", "--html", "no/such/folder/report.html")

    assert done.status == 2
    assert done.sentence == "'no/such/folder/report.html' cannot be written: No such file or directory."


def test_a_folder_without_pictures_and_a_missing_folder_are_each_reported_in_one_sentence(home: Home) -> None:
    (home.folder / "empty").mkdir()

    assert "it needs a folder for each label, with pictures in it" in home.run("evaluate", "empty").sentence
    assert "'missing' cannot be read: No such file or directory." in home.run("evaluate", "missing").sentence


def test_paths_in_a_table_are_relative_to_the_table_s_folder(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "\ufeffowl.png,owl\n\nhttps://example.com/car.jpg, car \n/abs/x.png,x\n", encoding="utf-8"
    )

    assert read_examples(tmp_path / "t.csv") == [
        Example(str(tmp_path / "owl.png"), "owl"),
        Example("https://example.com/car.jpg", "car"),
        Example("/abs/x.png", "x"),
    ]
    with pytest.raises(UsageError, match="cannot be read"):
        read_examples(tmp_path / "other.csv")
    (tmp_path / "t.csv").write_text("https://example.com/owl.png;owl\n")
    assert read_examples(tmp_path / "t.csv") == [Example("https://example.com/owl.png", "owl")]


@pytest.mark.parametrize(
    "text", ["image;label\nowl.png;owl\n", "label\tid\timage\nowl\t7\towl.png\n", "owl.png;owl\n", '"owl.png",owl\n']
)
def test_a_table_may_be_split_at_semicolons_or_tabs(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)

    assert read_examples(tmp_path / "t.csv") == [Example(str(tmp_path / "owl.png"), "owl")]


@pytest.mark.parametrize("header", ["photo,name", "url,name", "photo,label", "label"])
def test_a_table_with_unknown_column_names_is_refused_with_the_known_ones(header: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{header}\nowl.png,owl\n")

    with pytest.raises(UsageError) as refused:
        read_examples(tmp_path / "t.csv")

    assert str(refused.value) == (
        f"{str(tmp_path / 't.csv')!r} needs a column of images (image, image_url, url, uri, link, href or src) and one "
        f"of labels (label, class, category or target); its columns are {header.replace(',', ', ')}."
    )


def test_help_names_the_columns_that_are_read(home: Home) -> None:
    told = " ".join(home.run("evaluate", "--help").out.replace("│", "").split())

    assert "image, image_url, url, uri, link, href or src" in told
    assert "label, class, category or target" in told


@pytest.mark.timeout(300)
def test_failed_pictures_are_listed_the_first_ones_as_text_and_all_in_json(up: Running, tmp_path: Path) -> None:
    rows = [f"http://127.0.0.1:1/{number}.png,car\n" for number in range(22)]
    (tmp_path / "t.csv").write_text(f"{FOLDER / 'owl.png'},owl\n{''.join(rows)}")

    shown = up.home.run("evaluate", tmp_path / "t.csv")
    (found,) = up.home.run("evaluate", tmp_path / "t.csv", "--json").json_lines

    assert "1 picture, 2 labels\n22 pictures failed (" in shown.out
    assert "http://127.0.0.1:1/19.png: " in shown.out
    assert "http://127.0.0.1:1/20.png" not in shown.out
    assert "and 2 others; --json names all of them" in shown.out
    assert [failure["image"] for failure in found["failures"]] == [f"http://127.0.0.1:1/{n}.png" for n in range(22)]
    assert found["failures"][0]["label"] == "car"
    assert found["failures"][0]["error"]["code"] in found["failed"]


def judged(image: str, label: str, *ranking: tuple[str, float]) -> Judged:
    return Judged(Example(image, label), scores_of(ranking))


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(
        ("owl", "car", "<fox>"),
        (
            judged("1", "owl", ("owl", 0.9), ("car", 0.1), ("<fox>", 0.0)),
            judged("2", "owl", ("car", 0.5), ("owl", 0.4), ("<fox>", 0.1)),
            judged("3", "car", ("owl", 0.98), ("<fox>", 0.01), ("car", 0.01)),
        ),
        tuple(Failure(Example(str(number), "car"), JobFailed("too_large")) for number in (4, 5)),
    )


def test_the_measures_of_an_evaluation_are_right(evaluation: Evaluation) -> None:
    owl, car, fox = evaluation.by_label()

    assert [evaluation.top(places) for places in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert (owl.recall, owl.precision) == (0.5, 0.5)
    assert (car.recall, car.precision) == (0.0, 0.0)
    assert (fox.recall, fox.precision) == (None, None)
    assert [(one.example.image, one.rank) for one in evaluation.worst()] == [("3", 3), ("2", 2)]
    assert json.loads(json.dumps(evaluation.to_json()))["confusion"][0]["pictures"] == 1


def test_the_page_is_well_formed_escapes_its_texts_and_needs_no_other_file(evaluation: Evaluation) -> None:
    text = page(evaluation, "a & b")

    assert "&lt;fox&gt;" in text
    assert "<fox>" not in text
    assert "a &amp; b" in text
    assert not [name for name in ("src", "href", "@import", "url(") if f"{name}=" in text or f'{name}"' in text]
    open_tags: list[str] = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the parser passes it
            if tag not in {"meta", "img", "br", "rect"}:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Nesting().feed(text.replace("/>", ">"))
    assert open_tags == []


def test_a_page_of_many_labels_lists_the_commonest_mistakes() -> None:
    labels = tuple(f"label {number}" for number in range(100))
    wrong = tuple(judged(str(n), labels[n], (labels[n - 1], 0.9), (labels[n], 0.1)) for n in range(100))

    text = page(Evaluation(labels, wrong, ()), "many")

    assert text.count("<th>") == 8
    assert "0.0%" in text


def test_if_no_picture_could_be_classified_no_share_is_printed() -> None:
    empty = Evaluation(("a",), (), (Failure(Example("1", "a"), JobFailed("dns_failed")),) * 3)

    assert (empty.top(1), empty.to_json()["top_1"]) == (None, None)
    assert "dns_failed: 3" in page(empty, "none")
