"""What the command does before it connects to Redis: help, versions, and refusals of wrong usage."""

import subprocess
import sys

import pytest

from producer.cli import system
from producer.cli.failures import sentence
from producer.errors import BrokerUnavailable, NameshotError
from tests.cli.command import NAMESHOT, Home

COMMANDS = (
    *("demo", "up", "env", "worker", "serve", "classify", "submit", "bulk", "evaluate", "compare", "verify"),
    *("status", "result", "wait", "cancel", "forget", "purge", "doctor", "acl", "dead-letters", "keys"),
)

#: Modules that a command must not load to print its help.
HEAVY = (
    *("celery", "kombu", "redis", "torch", "transformers", "PIL", "pydantic_settings", "worker"),
    *("fastapi", "starlette", "uvicorn", "prometheus_client"),
)


def test_help_lists_every_command(home: Home) -> None:
    done = home.run("--help")

    assert (done.status, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.partition("Commands:\n")[2].splitlines()[: len(COMMANDS)]] == list(
        COMMANDS
    )


def test_the_bare_command_prints_its_help(home: Home) -> None:
    assert home.run().out == home.run("--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, home: Home) -> None:
    done = home.run(command, "-h")

    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"Usage: nameshot {command}")


def test_help_takes_little_cpu_time(home: Home) -> None:
    home.run("--help")  # the first run writes Python's compiled files

    assert min(home.run("--help").cpu_s for _ in range(3)) < 0.4


def test_help_loads_no_library_it_does_not_need() -> None:
    code = f"""
import sys
from producer.cli import main
try:
    main(["--help"])
except SystemExit:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr == "[]\n"


def test_the_version_is_printed(home: Home) -> None:
    assert home.run("--version").out.startswith("nameshot 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clasify"], "No such command 'clasify'"),
        (["classify", "--labels"], "No such option: --labels"),
        (["classify", "-l", "fox"], "Missing argument"),
        (["classify", "http://example.com/a.png"], "there are no candidate labels; give each with -l"),
        (["classify", "http://example.com/a.png", "-l", "fox", "--top-k", "0"], "'--top-k'"),
        (["classify", "owl.png", "-l", "fox"], "'owl.png' is neither an http(s):// URL nor a file"),
        (["classify", "ftp://example.com/a.png", "-l", "fox"], "must be an absolute http:// or https:// URL"),
        (["classify", "http://example.com/a.png", "--labels-file", "none.txt"], "'none.txt' cannot be read"),
        (["submit", "http://a.com/a.png", "http://a.com/b.png", "-l", "fox", "--id", "x"], "--id names a single job"),
        (["bulk", "urls.txt", "-l", "fox", "--retry-failed"], "--retry-failed needs the file of an earlier run"),
        (["bulk", "urls.txt", "-l", "fox", "-o", "x", "--retry-failed", "--ordered"], "leave out --ordered"),
        (["worker", "--processes", "0"], "--processes"),
        (["worker", "--gpus", "0,one"], "--gpus 0,one is not `none`, `all`, or a list of numbers"),
        (["worker", "--gpus", "0,1,0"], "--gpus 0,1,0 names a GPU twice"),
        (["up", "--port", "99999"], "'--port'"),
        (["purge"], "Missing argument 'QUEUE'. Choose from: high, default, bulk (`nameshot purge --help` shows how)."),
    ],
)
def test_a_command_used_wrongly_says_so_in_one_sentence(arguments: list[str], words: str, home: Home) -> None:
    done = home.run(*arguments)

    assert (done.status, done.out) == (2, "")
    assert words in done.sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-l", "fox", "-l", "fox"], "label 2 of -l 'fox' is the same label as label 1 of -l"),
        (["-l", "fox", "--template", "a photo"], "--template 'a photo' must contain {} exactly once"),
        (["-l", "fox", "--template", "{}", "--template", "{"], "template 2 of --template '{' must contain {}"),
        (["-l", "fox", "--download-timeout", "0"], "--download-timeout must be more than 0 seconds"),
        (["-l", "fox", "--timeout", "5"], "--download-timeout"),
        (["-l", "fox", "--labels-file", "labels.txt"], "line 3 of labels.txt 'fox' is the same label as label 1 of -l"),
    ],
)
@pytest.mark.parametrize("command", [["classify", "http://example.com/a.png"], ["bulk", "urls.txt"]])
def test_impossible_labels_or_options_are_refused_before_anything_is_sent(
    command: list[str], arguments: list[str], words: str, home: Home
) -> None:
    """No Redis runs here, because the refusal does not need one."""
    (home.folder / "labels.txt").write_text("bear\n\nfox\n")

    done = home.run(*command, *arguments)

    assert done.status == 2
    assert words in done.sentence


@pytest.mark.parametrize("command", ["classify", "submit"])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            "ftp://user:secret@h.example/a.png?secret",
            "image 2, ftp://h.example/…: the image URL must be an absolute http:// or",
        ),
        ("owl.png", "image 2, owl.png: 'owl.png' is neither an http(s):// URL nor a file."),
    ],
)
def test_the_bad_one_of_several_images_is_named(command: str, bad: str, words: str, home: Home) -> None:
    done = home.run(command, "http://example.com/a.png", bad, "http://example.com/c.png", "-l", "fox")

    assert (done.status, done.out) == (2, "")
    assert done.sentence.startswith(words)
    assert "secret" not in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("classify", "http://example.com/a.png", "-l", "fox"),
        ("submit", "http://example.com/a.png", "-l", "fox"),
        ("status", "an-id"),
        ("result", "an-id"),
        ("cancel", "an-id"),
    ],
)
def test_without_redis_one_sentence_says_what_to_do(arguments: tuple[str, ...], home: Home) -> None:
    done = home.with_settings(
        NAMESHOT_BROKER_URL="redis://127.0.0.1:1/0", NAMESHOT_RESULT_BACKEND="redis://127.0.0.1:1/1"
    ).run(*arguments)

    assert (done.status, done.out) == (1, "")
    assert done.sentence.startswith("Redis at redis://127.0.0.1:1/")


def test_only_without_a_configured_redis_the_error_suggests_nameshot_up(monkeypatch: pytest.MonkeyPatch) -> None:
    error = BrokerUnavailable("Redis at redis://localhost:6379/0 cannot be reached.")
    assert sentence(error).endswith("run `nameshot up` in another terminal first.")

    monkeypatch.setenv("NAMESHOT_BROKER_URL", "redis://example.com/0")
    assert sentence(error) == str(error)


def test_an_impossible_setting_is_reported_in_one_sentence(home: Home) -> None:
    done = home.with_settings(NAMESHOT_BROKER_URL="amqp://example.com").run("status", "an-id")

    assert done.status == 1
    assert "NAMESHOT_BROKER_URL must be one redis://" in done.sentence


def test_the_option_all_gpus_without_a_gpu_is_refused_in_one_sentence(home: Home) -> None:
    done = home.with_settings(CUDA_VISIBLE_DEVICES="").run("worker", "--gpus", "all")

    assert done.status == 1
    assert done.sentence == (
        "--gpus all: PyTorch sees no GPU here (CUDA_VISIBLE_DEVICES is ''); use --gpus none for the CPU."
    )


def test_a_ready_file_for_several_workers_is_refused(home: Home) -> None:
    done = home.with_settings(NAMESHOT_READY_FILE="ready").run("worker", "--gpus", "0,1")

    assert done.status == 1
    assert done.sentence.startswith("NAMESHOT_READY_FILE describes a single worker, but --gpus 0,1 starts 2: ")


def test_without_the_worker_s_packages_the_command_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else name)

    with pytest.raises(
        NameshotError, match=r"\(torch is missing\).* folder with `pip install '\.\[worker,embedded\]'`"
    ):
        system.worker()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands(shell: str, home: Home) -> None:
    variables = {
        "_NAMESHOT_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "nameshot cl",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "nameshot cl",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }

    assert "classify" in home.with_settings(**variables).run().out


def test_a_reader_that_closes_its_pipe_early_causes_no_error(home: Home) -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", f"{NAMESHOT} --help | true; exit ${{PIPESTATUS[0]}}"],
        env=home.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode in (0, 1)
    assert done.stderr == ""


def test_a_terminal_that_supports_only_ascii_gets_ascii(home: Home) -> None:
    done = home.with_settings(PYTHONIOENCODING="ascii", PYTHONUTF8="0").run("classify", "梟.png", "-l", "梟")

    assert done.status == 2
    assert "'\\u689f.png' is neither" in done.sentence
