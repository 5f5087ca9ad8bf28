"""In an odd environment a command works or prints one sentence, but never a traceback."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import NAMESHOT, Home

#: Runs a command as a user whom the system's list of users lacks, as in a container, and who has no home folder.
UNKNOWN_USER = (
    "unshare",
    "--user",
    "--map-user=54321",
    "--map-group=54321",
    "env",
    "-u",
    "HOME",
    "-u",
    "XDG_DATA_HOME",
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["env"], "`nameshot up` is not running here"),
        (["up"], "set HOME or XDG_DATA_HOME to the absolute path of a folder"),
        (["status", "x"], "cannot be reached"),
        (["doctor"], ""),
    ],
)
def test_a_user_without_a_home_folder_gets_no_traceback(arguments: list[str], words: str, home: Home) -> None:
    if subprocess.run([*UNKNOWN_USER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not available")

    done = subprocess.run(
        [*UNKNOWN_USER, NAMESHOT, *arguments],
        env={**home.environment, "NAMESHOT_BROKER_URL": "redis://127.0.0.1:1"},
        cwd=home.folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("command", ["classify", "submit"])
@pytest.mark.parametrize("image", ["data:image/png;base64," + 5_000 * "A", 300 * "x", "owl\n.png"])
def test_an_image_that_is_neither_a_url_nor_a_file_is_quoted_only_in_part(command: str, image: str, home: Home) -> None:
    done = home.run(command, image, "-l", "fox")

    assert done.status == 2
    assert done.sentence.endswith("is neither an http(s):// URL nor a file.")
    assert len(done.sentence) < 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["bulk", 300 * "x", "-l", "fox"],
        ["bulk", "urls.txt", "-l", "fox", "-o", 300 * "x"],
        ["evaluate", 300 * "x"],
        ["verify", "--images", 300 * "x"],
        ["classify", "http://example.com/a.png", "--labels-file", 300 * "x"],
        ["acl", 300 * "x"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_path_that_the_system_refuses_is_reported_in_one_sentence(arguments: list[str], home: Home) -> None:
    (home.folder / "urls.txt").write_text("http://example.com/a.png\n")

    done = home.run(*arguments)

    assert done.status in (1, 2)
    assert "File name too long" in done.sentence


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", ["classify", "submit", "evaluate"])
def test_a_file_whose_name_is_not_utf_8_is_refused_in_one_sentence(command: str, as_json: bool, home: Home) -> None:
    for label in ("owl", "fox"):
        (home.folder / "pictures" / label).mkdir(parents=True)
        (home.folder / "pictures" / label / os.fsdecode(b"bad\xff.jpg")).touch()
    image = "pictures" if command == "evaluate" else os.fsdecode(b"pictures/owl/bad\xff.jpg")
    labels = () if command == "evaluate" else ("-l", "owl", "-l", "fox")

    done = home.run(command, image, *labels, *["--json"] * as_json)

    assert done.status == 2
    sentence = done.json_lines[0]["error"]["message"] if as_json else done.sentence
    assert "bad\\udcff.jpg' is not UTF-8 text; rename the file." in sentence


def test_a_deleted_working_folder_causes_no_traceback(home: Home) -> None:
    gone = home.folder / "gone"
    gone.mkdir()

    done = subprocess.run(
        ["bash", "-c", f"rmdir {gone}; {NAMESHOT} classify owl.png -l fox"],
        env=home.environment,
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == "nameshot: 'owl.png' is neither an http(s):// URL nor a file.\n"


@pytest.mark.parametrize(
    "environment",
    [
        {"TMPDIR": "/nowhere"},
        {"TERM": "nonsense"},
        {"COLUMNS": "many"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
        {"XDG_DATA_HOME": "/dev/null"},
        {"XDG_DATA_HOME": "relative"},
        {"HOME": "nowhere"},
    ],
    ids=str,
)
def test_commands_work_with_odd_variables(environment: dict[str, str], home: Home, tmp_path: Path) -> None:
    odd = home.with_settings(**environment)

    assert odd.run("acl", tmp_path / "acl").status == 0
    assert odd.run("env").sentence.startswith("`nameshot up` is not running here")


@pytest.mark.parametrize("command", ["status", "result", "cancel", "forget"])
def test_the_refusal_of_an_impossible_id_names_the_argument_as_the_help_does(command: str, home: Home) -> None:
    done = home.run(command, "a b")

    assert done.status == 2
    assert done.sentence == "ID must be 1 to 128 of the characters A-Z a-z 0-9 _ and -."
