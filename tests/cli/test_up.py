"""`nameshot up` runs a whole system that other commands find, and that restarts its own parts."""

import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from producer import Client
from producer.demo.gallery import FOLDER
from tests.cli.command import NAMESHOT, Home, Running
from tests.cli.terminal import on_a_terminal
from tests.valkey_server import ValkeyServer

#: Enough for several starts of a worker on a busy machine.
pytestmark = pytest.mark.timeout(300)

OWL = ("-l", "fox", "-l", "bear", "-l", "seagull", "-l", "owl")


def picture_url(up: Running, name: str = "owl.png") -> str:
    information = json.loads((up.home.folder / "data" / "nameshot" / "up.json").read_text())
    return f"{information['url']}/pictures/{name}"


def test_up_says_what_to_type_in_a_second_terminal(up: Running) -> None:
    lines = [line.strip() for line in up.out.splitlines()]
    (command,) = (line for line in lines if line.endswith("-l seagull -l owl"))

    done = up.home.run(*command.split()[1:])

    assert done.status == 0
    title, first, *_ = done.out.splitlines()
    assert title == picture_url(up)
    assert first.split()[0] == "owl"


def test_only_the_user_can_read_up_s_log_and_secrets(up: Running) -> None:
    folder = up.home.folder / "data" / "nameshot"

    assert str(folder) in up.out
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "redis://" not in up.out + up.err


def test_a_user_s_program_reaches_up_with_the_settings_from_nameshot_env(up: Running) -> None:
    done = up.home.run("env")

    assert done.status == 0
    settings = dict(line.removeprefix("export ").split("=", 1) for line in done.out.splitlines())
    with Client(settings["NAMESHOT_BROKER_URL"], settings["NAMESHOT_RESULT_BACKEND"]) as client:
        assert client.queue_depths() == {"high": 0, "default": 0, "bulk": 0}


def test_on_a_terminal_with_graphics_local_files_are_shown(up: Running) -> None:
    command: list[object] = [NAMESHOT, "classify", FOLDER / "owl.png", *OWL]
    kitty = {"TERM": "xterm-kitty"}

    status, shown = on_a_terminal(up.home, command, kitty)

    assert status == 0
    assert shown.count(b"\x1b_Ga=T,") == 1
    assert "\N{FULL BLOCK}".encode() in shown.partition(b"\x1b8")[2]
    assert b"\x1b_G" not in on_a_terminal(up.home, [*command, "--json"], kitty)[1]


def test_local_files_can_be_classified(up: Running) -> None:
    (up.home.folder / "my owl #1.png").write_bytes((FOLDER / "owl.png").read_bytes())

    done = up.home.run("classify", "my owl #1.png", FOLDER / "car.jpg", *OWL, "--json")

    assert done.status == 0
    first, second = done.json_lines
    assert first["url"] == "my owl #1.png"
    assert first["result"]["ranking"][0]["label"] == "owl"
    assert second["result"]["image"]["format"] == "JPEG"


def test_a_failed_image_is_reported_in_one_sentence_and_the_others_are_answered(up: Running) -> None:
    missing = picture_url(up, "no-such.png")

    done = up.home.run("classify", missing, picture_url(up), "http://127.0.0.1:22/ssh", *OWL)

    assert done.status == 1
    first, second = done.err.splitlines()
    place = missing.partition("/pictures/")[0]
    assert first.startswith(f"nameshot: image 1, {place}/…: http_status: the server responded with status 404")
    assert second.startswith("nameshot: image 3, http://127.0.0.1:22/…: ")
    assert done.out.splitlines()[1].split()[0] == "owl"


def test_a_failed_image_as_json_has_its_code(up: Running) -> None:
    done = up.home.run("classify", picture_url(up, "no-such.png"), *OWL, "--json")

    assert done.status == 1
    assert done.json_lines[0]["error"]["code"] == "http_status"
    assert done.err == ""


def test_a_file_that_is_no_image_is_reported_in_one_sentence(up: Running) -> None:
    (up.home.folder / "page.html").write_text("<!doctype html><title>not an owl</title>")

    done = up.home.run("classify", "page.html", *OWL)

    assert done.status == 1
    assert done.sentence.startswith("page.html: unsupported_format: ")


def test_a_submitted_job_can_be_read_later(up: Running) -> None:
    job_id = up.home.run("submit", picture_url(up), *OWL, "--top-k", "1").out.strip()

    done = up.home.run("result", job_id, "--wait", "60")

    assert done.out.splitlines()[1].split()[0] == "owl"
    assert up.home.run("status", job_id).out == "succeeded\n"


def test_the_doctor_finds_nothing_broken(up: Running) -> None:
    done = up.home.run("doctor")

    assert done.status == 0, done.out
    assert f"process {up.process.pid}" in done.out
    assert "bundled, in `nameshot up`" in done.out


def test_commands_use_a_redis_from_the_environment_instead_of_up_s(up: Running) -> None:
    elsewhere = up.home.with_settings(NAMESHOT_BROKER_URL="redis://127.0.0.1:1/0")

    assert elsewhere.run("submit", picture_url(up), *OWL).sentence.startswith("Redis at redis://127.0.0.1:1/0")
    assert "the environment names another Redis" in elsewhere.run("doctor").out


def test_commands_recognise_up_in_a_shell_with_the_settings_from_nameshot_env(up: Running) -> None:
    named = [line.removeprefix("export ").partition("=") for line in up.home.run("env").out.splitlines()]
    shell = up.home.with_settings(**{name: shlex.split(value)[0] for name, _, value in named})

    said = shell.run("doctor").out

    assert "commands use it" in said
    assert "bundled, in `nameshot up`" in said
    assert shell.run("classify", FOLDER / "owl.png", *OWL).out.splitlines()[1].split()[0] == "owl"


def test_with_another_redis_a_local_file_is_refused_with_what_to_unset(up: Running, home: Home) -> None:
    for user, words in (
        (up.home, "names another Redis than that of the running `nameshot up`, so `unset NAMESHOT_BROKER_URL`"),
        (home, "run `nameshot up` in another terminal, and in this one `unset NAMESHOT_BROKER_URL`"),
    ):
        elsewhere = user.with_settings(NAMESHOT_BROKER_URL="redis://127.0.0.1:1/0")
        assert words in elsewhere.run("classify", FOLDER / "owl.png", *OWL).sentence


def test_a_second_up_is_refused(up: Running) -> None:
    done = up.home.run("up", "--port", "0")

    assert done.status == 1
    assert done.sentence.startswith(f"`nameshot up` is already running (process {up.process.pid}, http://127.0.0.1:")


def test_a_taken_port_is_reported_in_one_sentence(up: Running, home: Home) -> None:
    port = picture_url(up).split("/")[2].split(":")[1]

    done = home.run("up", "--port", port)

    assert done.status == 1
    assert done.sentence.startswith(f"port {port} on 127.0.0.1 cannot be used")
    home.assert_nothing_runs()


def test_a_taken_redis_port_is_reported_in_one_sentence(home: Home, valkey: ValkeyServer) -> None:
    done = home.run("up", "--port", "0", "--redis-port", valkey.port)

    assert done.status == 1
    assert done.err.splitlines()[-1] == (
        f"nameshot: port {valkey.port} on 127.0.0.1 is in use or not permitted; choose another with --redis-port."
    )
    home.assert_nothing_runs()


def test_a_model_that_cannot_be_loaded_is_reported_in_one_sentence(home: Home) -> None:
    """A relative path is relative to the user's working folder."""
    (home.folder / "empty").mkdir()

    done = home.with_settings(NAMESHOT_MODEL="./empty").run("up", "--port", "0")

    assert done.status == 1
    assert f"{home.folder}/empty' holds no config.json" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    home.assert_nothing_runs()


@pytest.mark.thorough  # in `make test`, tests/embedded restarts the server, and tests/delivery kills workers
def test_up_restarts_parts_that_die_and_its_data_survives_its_own_death(home: Home) -> None:
    with home.start("up", "--port", "0") as first:
        first.wait_for("Data and logs")
        settings = home.run("env").out
        job_id = home.run("submit", FOLDER / "owl.png", *OWL).out.strip()
        assert home.run("result", job_id, "--wait", "60").status == 0
        first.send(signal.SIGKILL)
        first.ended()
    home.assert_nothing_runs()
    assert home.run("status", job_id).status == 1

    with home.start("up", "--port", "0") as second:
        second.wait_for("Data and logs")
        assert home.run("env").out == settings
        assert home.run("status", job_id).out == "succeeded\n"

        os.kill(second.child("celery"), signal.SIGKILL)
        second.wait_for("the worker was killed by SIGKILL; starting it again in 1 s.")
        os.kill(second.child("valkey-server"), signal.SIGKILL)
        second.wait_for("Valkey runs again.")
        second.wait_for("the worker runs again.")
        assert home.run("classify", FOLDER / "owl.png", *OWL).status == 0
        assert home.run("status", job_id).out == "succeeded\n"

        second.send(signal.SIGINT)
        assert second.ended() == 0
        assert "Traceback" not in second.err
    home.assert_nothing_runs()
    assert not (home.folder / "data" / "nameshot" / "up.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_up_starts_leaves_nothing_behind(number: signal.Signals, home: Home) -> None:
    with home.start("up", "--port", "0") as running:
        running.wait_for("starting Valkey: ")

        running.send(number)

        assert running.ended() == (0 if number == signal.SIGINT else 128 + number)
        assert "Traceback" not in running.err
    home.assert_nothing_runs()


def test_up_keeps_no_data_in_the_checkout() -> None:
    assert not list(Path(__file__).parents[2].glob("appendonlydir"))
