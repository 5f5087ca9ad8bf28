"""`submit`, `status`, `result` and `cancel` with a real Valkey, without a worker."""

import base64
import json
import signal

import pytest

from producer import Client
from producer.contract.names import answer_key
from tests.cli.command import Home
from tests.valkey_server import ValkeyServer

URL = "http://example.com/owl.png"
ANSWER = (
    b'{"status": "SUCCESS", "result": {"ranking": [{"label": "owl", "score": 0.75}, {"label": "fox", "score": 0.25}],'
    b' "model": "m", "revision": null, "image": {"sha256": "0", "width": 1, "height": 1, "format": "PNG", "bytes": 9},'
    b' "batch_size": 2, "timings_ms": {"queued": 1.5, "fetch": 22.2, "decode": 3, "wait": 0, "forward": 1234}},'
    b' "traceback": null, "children": [], "task_id": "an-id"}'
)


def test_submit_prints_the_ids_of_the_jobs_it_queued(with_valkey: Home, valkey: ValkeyServer) -> None:
    done = with_valkey.run("submit", URL, f"{URL}?2", "-l", "fox", "-l", "owl")

    assert (done.status, done.err) == (0, "")
    ids = done.out.split()
    assert len(set(ids)) == 2
    with Client(valkey.broker_url, valkey.result_backend) as client:
        assert [client.job(job_id).status() for job_id in ids] == ["queued", "queued"]
        assert client.queue_depths() == {"high": 0, "default": 2, "bulk": 0}


def test_submit_with_json_prints_each_id_with_its_url(with_valkey: Home) -> None:
    (line,) = with_valkey.run("submit", URL, "-l", "fox", "--id", "an-id", "--queue", "high", "--json").json_lines

    assert line == {"url": URL, "id": "an-id", "is_new": True}


def test_submitting_an_id_again_queues_nothing_and_another_payload_is_refused(
    with_valkey: Home, valkey: ValkeyServer
) -> None:
    first, again = (with_valkey.run("submit", URL, "-l", "fox", "--id", "an-id") for _ in range(2))
    assert first.out == again.out == "an-id\n"
    assert "existed already" not in first.err
    assert "nameshot: the job an-id existed already, so nothing was queued.\n" in again.err
    [line] = with_valkey.run("submit", URL, "-l", "fox", "--id", "an-id", "--json").json_lines
    assert line["is_new"] is False
    with Client(valkey.broker_url, valkey.result_backend) as client:
        assert client.queue_depths()["default"] == 1

    done = with_valkey.run("submit", URL, "-l", "owl", "--id", "an-id")

    assert done.status == 1
    assert "was already used with another payload" in done.sentence


@pytest.mark.parametrize(
    ("option", "value"),
    [("--id", "ÿ"), ("--id", "a b"), ("--id", ""), ("--expires-in", "nan"), ("--expires-in", "0")],
)
def test_an_impossible_option_is_wrong_usage_and_is_named(
    option: str, value: str, with_valkey: Home, valkey: ValkeyServer
) -> None:
    done = with_valkey.run("submit", URL, "-l", "fox", option, value)

    assert (done.status, done.out) == (2, "")
    assert done.sentence.startswith(f"{option} must be ")
    with valkey.connect() as connection:
        assert not connection.exists("nameshot.default")


def test_labels_can_come_from_a_file(with_valkey: Home, valkey: ValkeyServer) -> None:
    (with_valkey.folder / "labels.txt").write_text("# animals\nfox\n\n \n  # more of them\nsnow owl #2\n")

    with_valkey.run("submit", URL, "-l", "#bear", "--labels-file", "labels.txt")

    with valkey.connect() as connection:
        message = json.loads(connection.lindex("nameshot.default", 0))
    _, arguments, _ = json.loads(base64.b64decode(message["body"]))
    assert arguments["candidate_labels"] == ["#bear", "fox", "snow owl #2"]


def test_status_prints_one_word(with_valkey: Home) -> None:
    with_valkey.run("submit", URL, "-l", "fox", "--id", "an-id")

    assert with_valkey.run("status", "an-id").out == "queued\n"
    assert with_valkey.run("status", "an-id", "--json").json_lines == [{"id": "an-id", "status": "queued"}]


def test_an_unknown_id_has_the_status_unknown(with_valkey: Home) -> None:
    done = with_valkey.run("status", "nobody")

    assert (done.status, done.out) == (1, "unknown\n")


def test_the_result_of_a_waiting_job_is_refused_with_its_state(with_valkey: Home) -> None:
    with_valkey.run("submit", URL, "-l", "fox", "--id", "an-id")

    done = with_valkey.run("result", "an-id")

    assert (done.status, done.out) == (75, "")
    assert done.sentence == "job an-id is queued and has no answer yet; wait for it with `nameshot wait an-id`."


def test_a_result_is_a_table_with_bars_and_times(with_valkey: Home, valkey: ValkeyServer) -> None:
    with valkey.connect(1) as connection:
        connection.set(answer_key("an-id"), ANSWER)

    done = with_valkey.run("result", "an-id")

    assert (done.status, done.err) == (0, "")
    assert done.out.split("\n") == [
        "an-id",
        f"  owl  {'█' * 24:<32}  75.0 %",
        f"  fox  {'█' * 8:<32}  25.0 %",
        "  ms: queued 1.5 · fetch 22 · decode 3.0 · wait 0.0 · forward 1,234 · batch of 2",
        "",
        "",
    ]


def test_a_result_as_json_is_the_worker_s_answer(with_valkey: Home, valkey: ValkeyServer) -> None:
    with valkey.connect(1) as connection:
        connection.set(answer_key("an-id"), ANSWER)

    (line,) = with_valkey.run("result", "an-id", "--json").json_lines

    assert line["id"] == "an-id"
    assert line["result"]["ranking"][0] == {"label": "owl", "score": 0.75}


def test_a_cancelled_job_stays_cancelled(with_valkey: Home) -> None:
    with_valkey.run("submit", URL, "-l", "fox", "--id", "an-id")

    assert with_valkey.run("cancel", "an-id").out == "cancelled\n"

    assert with_valkey.run("status", "an-id").out == "cancelled\n"
    assert with_valkey.run("result", "an-id").sentence == "job an-id was cancelled."
    (line,) = with_valkey.run("result", "an-id", "--json").json_lines
    assert line["error"]["code"] == "cancelled"
    again = with_valkey.run("cancel", "an-id")
    assert again.status == 1
    assert "already has an answer" in again.sentence


@pytest.mark.parametrize("command", ["result", "cancel", "wait"])
def test_a_job_that_was_never_submitted_is_not_found(command: str, with_valkey: Home) -> None:
    done = with_valkey.run(command, "nobody")

    assert (done.status, done.out) == (1, "")
    assert done.sentence.startswith("there is no job nobody")


def test_a_malformed_job_id_is_refused(with_valkey: Home) -> None:
    assert with_valkey.run("status", "../../etc").status == 2


def test_without_a_worker_classify_ends_after_its_wait_and_names_the_job(with_valkey: Home) -> None:
    done = with_valkey.run("classify", URL, "-l", "fox", "-l", "owl", "--wait", "0.5")

    assert (done.status, done.out) == (1, "")
    assert "there is no answer yet, but the job continues; get its answer with `nameshot result " in done.sentence


def test_a_local_file_is_refused_if_no_up_runs(with_valkey: Home) -> None:
    (with_valkey.folder / "owl.png").write_bytes(b"")

    done = with_valkey.run("classify", "owl.png", "-l", "fox")

    assert done.status == 2
    assert "'owl.png' is a local file, and a worker fetches only http(s):// URLs; run `nameshot up`" in done.sentence


def test_result_can_wait_for_an_answer_without_a_limit(with_valkey: Home, valkey: ValkeyServer) -> None:
    with_valkey.run("submit", URL, "-l", "fox", "--id", "an-id")
    with with_valkey.start("result", "an-id", "--wait", "inf") as running, valkey.connect(1) as connection:
        while not connection.pubsub_channels(answer_key("an-id")):
            assert running.process.poll() is None, running.err
        with_valkey.run("cancel", "an-id")

        assert running.ended() == 1
        # On a busy machine the command may first say that no worker takes jobs.
        assert running.err.splitlines()[-1] == "nameshot: job an-id was cancelled."


def test_ctrl_c_ends_a_waiting_command_quietly(with_valkey: Home, valkey: ValkeyServer) -> None:
    with with_valkey.start("classify", URL, "-l", "fox") as running, valkey.connect() as connection:
        while not connection.llen("nameshot.default"):
            assert running.process.poll() is None

        running.send(signal.SIGINT)

        assert running.ended() == 130
        assert running.err.endswith("nameshot: stopped; cancelled 1 job that had no answer yet.\n")
        assert "Traceback" not in running.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_classify_that_is_stopped_cancels_the_jobs_that_have_no_answer(
    number: signal.Signals, status: int, with_valkey: Home, valkey: ValkeyServer
) -> None:
    with with_valkey.start("classify", URL, f"{URL}?2", "-l", "fox", "-l", "owl") as running:
        running.wait_for("no worker takes jobs")
        with valkey.connect() as connection:
            ids = [json.loads(message)["headers"]["id"] for message in connection.lrange("nameshot.default", 0, -1)]
        running.send(number)
        assert running.ended() == status

    assert running.err.splitlines()[1:] == ["nameshot: stopped; cancelled 2 jobs that had no answer yet."]
    with Client(valkey.broker_url, valkey.result_backend) as client:
        assert [client.job(job_id).status() for job_id in ids] == ["cancelled"] * 2


@pytest.mark.parametrize("command", [("submit",), ("classify", "--wait", "0")])
def test_the_number_of_retries_is_sent_with_the_job(
    command: tuple[str, ...], with_valkey: Home, valkey: ValkeyServer
) -> None:
    with_valkey.run(*command, URL, "-l", "fox", "-l", "owl", "--retries", "3")

    with valkey.connect() as connection:
        message = json.loads(connection.lindex("nameshot.default", 0))
    assert message["headers"]["nameshot_retries"] == 3


@pytest.mark.parametrize("command", ["submit", "classify"])
def test_retries_beyond_the_limit_are_wrong_usage(command: str, with_valkey: Home) -> None:
    done = with_valkey.run(command, URL, "-l", "fox", "-l", "owl", "--retries", "11")

    assert (done.status, done.out) == (2, "")
    assert "'--retries': Input should be less than or equal to 10" in done.sentence
