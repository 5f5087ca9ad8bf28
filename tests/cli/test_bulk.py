"""`nameshot bulk`, with a real worker, turns any list into JSONL, even if it is killed and run again."""

import gzip
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from producer.client.portions import IMAGES_PER_MESSAGE
from producer.demo.gallery import FOLDER
from tests.cli.command import NAMESHOT, Home, Running

#: Enough for several starts of a worker on a busy machine.
pytestmark = pytest.mark.timeout(300)

OWL = ("-l", "fox", "-l", "bear", "-l", "seagull", "-l", "owl")
OTHER_QUESTION = ("-l", "fox", "-l", "owl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for this test's files; commands run in the folder of `up`'s user."""
    return tmp_path


def pictures(up: Running) -> list[str]:
    """Return the URLs of an owl and a car that `up` serves."""
    information = json.loads((up.home.folder / "data" / "nameshot" / "up.json").read_text())
    return [f"{information['url']}/pictures/{name}" for name in ("owl.png", "car.jpg")]


def write_list(folder: Path, images: list[str], name: str = "urls.txt") -> Path:
    file = folder / name
    file.write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
    return file


def answers(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_every_line_of_the_input_has_one_line_in_the_output(up: Running, folder: Path) -> None:
    owl, car = pictures(up)
    images = [
        owl,
        car,
        owl,
        "not a url",
        str(FOLDER / "owl.png"),
        owl.replace("owl", "nobody"),
        "beside.png",
        "x" * 999,
    ]
    (folder / "beside.png").write_bytes((FOLDER / "owl.png").read_bytes())
    file, out = write_list(folder, images), folder / "out.jsonl"

    done = up.home.run("bulk", file, *OWL, "-o", out)

    assert (done.status, done.out) == (1, "")
    found = {answer["line"]: answer for answer in answers(out)}
    assert [found[line]["url"] for line in range(1, 9)] == [image.strip() for image in images]
    assert [found[line]["result"]["ranking"][0]["label"] for line in (1, 3, 5, 7)] == ["owl"] * 4
    assert [found[line]["error"]["code"] for line in (4, 8)] == ["invalid_url"] * 2
    assert found[4]["error"]["message"] == "'not a url' is neither an http(s):// URL nor a file."
    assert found[6]["error"]["code"] == "http_status"
    assert "8 images: 5 classified, 3 failed (" in done.err
    assert "Traceback" not in done.err


def test_a_second_run_sends_no_answered_image_again(up: Running, folder: Path) -> None:
    file, out = write_list(folder, pictures(up)), folder / "out.jsonl"
    assert up.home.run("bulk", file, *OWL, "-o", out).status == 0
    before = out.read_bytes()
    write_list(folder, [*pictures(up), pictures(up)[0]])

    done = up.home.run("bulk", file, *OWL, "-o", out)

    assert done.status == 0
    assert "3 images: 3 classified; 1 in this run" in done.err
    assert out.read_bytes().startswith(before)
    assert [answer["line"] for answer in answers(out)][2:] == [3]


def test_bulk_reads_standard_input_and_writes_to_standard_output(up: Running) -> None:
    done = up.home.run("bulk", "-", *OWL, "--top-k", "1", input_text="\ufeff" + "\n".join(pictures(up)))

    assert done.status == 0
    assert sorted(answer["line"] for answer in done.json_lines) == [1, 2]
    assert all(len(answer["result"]["ranking"]) == 1 for answer in done.json_lines)


def test_with_ordered_the_output_has_the_order_of_the_input(up: Running, folder: Path) -> None:
    owl, car = pictures(up)
    rows = [f"{number},{owl if number % 3 else car if number % 2 else 'nonsense'}" for number in range(100)]
    file, out = write_list(folder, ["id,url", *rows], "list.csv"), folder / "out.jsonl"

    done = up.home.run("bulk", file, *OWL, "-o", out, "--ordered", "--images-per-message", "64")

    assert done.status == 1
    found = answers(out)
    assert [answer["line"] for answer in found] == list(range(2, 102))
    assert [answer["id"] for answer in found] == [str(number) for number in range(100)]


def test_a_second_run_continues_where_the_first_was_killed(up: Running, folder: Path) -> None:
    owl, car = pictures(up)
    images = [f"{owl if number % 2 else car}?{number}" for number in range(250)]
    file, out = write_list(folder, images), folder / "out.jsonl"
    out.touch()
    with up.home.start("bulk", file, *OWL, "-o", out) as running:
        while not out.stat().st_size:
            assert running.process.poll() is None
        running.send(signal.SIGKILL)
        running.ended()
    before = out.read_bytes().count(b"\n")
    assert 0 < before < len(images)

    done = up.home.run("bulk", file, *OWL, "-o", out)

    assert done.status == 0, done.err
    found = answers(out)
    assert sorted(answer["line"] for answer in found) == list(range(1, len(images) + 1))
    assert all(answer["url"] == images[answer["line"] - 1] for answer in found)


def test_ctrl_c_cancels_the_images_in_flight_and_says_how_to_resume(up: Running, folder: Path) -> None:
    owl, _ = pictures(up)
    file, out = write_list(folder, [f"{owl}?{number}" for number in range(2000)]), folder / "out.jsonl"
    out.touch()
    with up.home.start("bulk", file, *OWL, "-o", out) as running:
        while not out.stat().st_size:
            assert running.process.poll() is None

        running.send(signal.SIGINT)

        assert running.ended() == 130
        said = re.fullmatch(
            rf"nameshot: stopped; cancelled ([\d,]+) images before their answers were written; "
            rf"run the same command to resume \({out}\)\.\n",
            running.err,
        )
    assert said
    assert 0 < int(said[1].replace(",", "")) <= 2000 - len(answers(out))
    assert out.read_bytes().endswith(b"\n")


def test_retry_failed_sends_again_only_images_with_retryable_errors(up: Running, folder: Path) -> None:
    """A missing picture (404) is not retryable; one whose server was down is."""
    owl, _ = pictures(up)
    file, out = write_list(folder, [owl, f"{owl}x"]), folder / "out.jsonl"
    assert up.home.run("bulk", file, *OWL, "-o", out).status == 1
    first, second = sorted(answers(out), key=lambda answer: answer["line"])
    first.pop("result")
    first["error"] = {"code": "connect_failed", "message": "down.", "retryable": True}
    out.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")

    unchanged = up.home.run("bulk", file, *OWL, "-o", out)
    assert "--retry-failed retries 1 image" in unchanged.err

    done = up.home.run("bulk", file, *OWL, "-o", out, "--retry-failed")

    assert "2 images: 1 classified, 1 failed (1 http_status); 1 in this run" in done.err
    assert [answer["line"] for answer in answers(out)] == [2, 1]


def test_without_a_running_up_only_the_local_files_of_a_list_fail(with_valkey: Home) -> None:
    write_list(with_valkey.folder, ["owl.png", "nowhere.png"])
    (with_valkey.folder / "owl.png").write_bytes(b"")

    done = with_valkey.run("bulk", "urls.txt", *OWL)

    assert done.status == 1
    local, missing = done.json_lines
    assert local["error"]["code"] == "invalid_url"
    assert (
        "'owl.png' is a local file, and a worker fetches only http(s):// URLs; run `nameshot"
        in local["error"]["message"]
    )
    assert missing["error"]["message"] == "'nowhere.png' is neither an http(s):// URL nor a file."


def test_a_gzipped_table_can_come_from_standard_input(with_valkey: Home) -> None:
    process = subprocess.run(
        [NAMESHOT, "bulk", "-", *OWL, "--column", "2"],
        input=gzip.compress(b"id;url\n7;\n"),
        env=with_valkey.environment,
        capture_output=True,
        check=False,
    )

    assert process.returncode == 1, process.stderr
    answer = json.loads(process.stdout)
    assert (answer["line"], answer["id"]) == (2, "7")
    assert answer["error"]["message"] == "the row has no image."


def test_help_names_the_default_number_of_images_in_a_message(home: Home) -> None:
    assert f"(default: {IMAGES_PER_MESSAGE})" in home.run("bulk", "--help").out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nowhere.txt", *OWL), "nowhere.txt cannot be read: No such file or directory."),
        (("list.csv", *OWL), "no column of the table is called image or url; choose one of a, b with --column."),
    ],
)
def test_a_list_that_cannot_be_read_is_reported_in_one_sentence(
    arguments: tuple[str, ...], sentence: str, with_valkey: Home
) -> None:
    (with_valkey.folder / "list.csv").write_text("a,b\n1,2\n")

    done = with_valkey.run("bulk", *arguments, "-o", "out.jsonl")

    assert done.status == 1
    assert done.sentence.startswith(sentence)


def test_answers_to_different_questions_are_not_mixed_in_a_file(with_valkey: Home) -> None:
    (with_valkey.folder / "urls.txt").write_text("")
    (with_valkey.folder / "out.jsonl").write_text(
        '{"line": 1, "url": "http://a/1", "question": "other", "result": {"ranking": []}}\n'
    )

    done = with_valkey.run("bulk", "urls.txt", *OTHER_QUESTION, "-o", "out.jsonl")

    assert done.status == 1
    assert "out.jsonl contains answers for other labels" in done.sentence
