"""`nameshot doctor` reports what is right, what is wrong, and what to do about it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from producer.cli.doctor import checks_local
from tests.cli.command import Finished, Home
from tests.valkey_server import ValkeyServer


def findings(done: Finished) -> dict[str, dict[str, Any]]:
    (report,) = done.json_lines
    assert report["ok"] is (done.status == 0)
    return {finding["subject"]: finding for finding in report["findings"]}


def test_without_redis_the_doctor_says_so(home: Home) -> None:
    done = home.with_settings(
        NAMESHOT_BROKER_URL="redis://127.0.0.1:1/0", NAMESHOT_RESULT_BACKEND="redis://127.0.0.1:1/1"
    ).run("doctor", "--json")

    found = findings(done)
    assert done.status == 1
    assert found["broker"]["state"] == found["result backend"]["state"] == "broken"
    assert "start it, or correct NAMESHOT_BROKER_URL" in found["broker"]["text"]


def test_without_a_worker_the_doctor_says_how_to_start_one(with_valkey: Home) -> None:
    with_valkey.run("submit", "http://example.com/a.png", "-l", "fox")

    done = with_valkey.run("doctor", "--json")

    found = findings(done)
    assert done.status == 1
    assert found["broker"]["state"] == "ok"
    assert "Valkey" in found["broker"]["text"]
    assert "default 1," in found["queues"]["text"]
    assert found["workers"]["state"] == "broken"
    assert "`nameshot worker`" in found["workers"]["advice"]


@pytest.mark.parametrize(
    ("leases", "unserved"),
    [
        (["a-host/1 takes high,bulk"], True),
        (["a-host/1 takes high", "b-host/1 takes nothing: its device hangs"], True),
        (["a-host/1 takes high", "b-host/1 takes default,bulk"], False),
        (["a-host/1 takes high", "b-host/1"], False),
    ],
)
def test_a_queue_that_no_worker_takes_from_is_broken_while_messages_wait_in_it(
    leases: list[str], unserved: bool, with_valkey: Home, valkey: ValkeyServer
) -> None:
    with_valkey.run("submit", "http://example.com/a.png", "-l", "fox")
    with valkey.connect() as broker:
        for number, lease in enumerate(leases):
            broker.sadd("nameshot:workers", f"a-host/1/n0{number}")
            broker.set(f"nameshot:lease:a-host/1/n0{number}", lease)

    done = with_valkey.run("doctor", "--json")

    (report,) = done.json_lines
    workers = [finding for finding in report["findings"] if finding["subject"] == "workers"]
    broken = [finding for finding in workers if "takes jobs from" in finding["text"]]
    assert [finding["text"] for finding in broken] == (
        ["no worker takes jobs from nameshot.default, which holds 1 waiting message"] if unserved else []
    )
    assert all("add_consumer nameshot.default" in finding["advice"] for finding in broken)
    hosts = sorted(lease.partition(" ")[0] for lease in leases)
    assert workers[0]["text"] == f"{len(leases)} running: {', '.join(hosts)}"
    if unserved:
        assert done.status == 1


def test_the_doctor_counts_the_messages_that_dead_workers_hold(with_valkey: Home, valkey: ValkeyServer) -> None:
    with_valkey.run("submit", "http://example.com/a.png", "-l", "fox")
    with valkey.connect() as broker:
        broker.sadd("nameshot:workers", "a-host/1/n00")
        for number in range(3):
            broker.hset("nameshot:in-flight:a-host/1/n00", f"tag-{number}", "nameshot.default\n{}")

    found = findings(with_valkey.run("doctor", "--json"))

    assert found["queues"]["text"] == (
        "waiting messages: high 0, default 1, bulk 0; held by workers: 0; held by dead workers: 3"
    )
    assert found["queues"]["numbers"] == {
        "waiting": {"high": 0, "default": 1, "bulk": 0},
        "postponed": 0,
        "in_hand": 0,
        "in_dead_hands": 3,
        "workers": 0,
        "total": 4,
    }


@pytest.mark.parametrize(
    "name", ["mine-nameshot.default", "mine-nameshot.bulk\x06\x165", "nameshot.high:12", "nameshot.default|3"]
)
def test_a_misnamed_queue_that_no_worker_serves_is_reported(name: str, home: Home, valkey: ValkeyServer) -> None:
    with valkey.connect() as broker:
        broker.lpush(name, "{}")
        broker.lpush("nameshot.high:rung", "{}")
        broker.lpush("nameshot.high:5", "{}")
        broker.lpush("nameshot.hightower", "{}")
    everything = home.with_settings(NAMESHOT_BROKER_URL=valkey.url(0), NAMESHOT_RESULT_BACKEND=valkey.url(1))

    (report,) = everything.run("doctor", "--json").json_lines

    (warning,) = (each for each in report["findings"] if each["subject"] == "queues" and each["state"] == "warning")
    assert warning["text"] == f"messages wait in the list {name!r}, which no worker serves"
    assert "global_keyprefix" in warning["advice"]


@pytest.mark.parametrize(("queue", "meant"), [(None, "default"), ("default", "default"), ("bulk", "bulk")])
def test_jobs_that_a_plain_client_sent_to_no_queue_of_ours_are_reported(
    queue: str | None, meant: str, home: Home, valkey: ValkeyServer
) -> None:
    everything = home.with_settings(NAMESHOT_BROKER_URL=valkey.url(0), NAMESHOT_RESULT_BACKEND=valkey.url(1))
    with valkey.connect() as broker, Celery(broker=valkey.url(0)) as plain:
        plain.send_task("another.task", queue=queue)
        broker.hset("high", "key", "of another application")
        (before,) = everything.run("doctor", "--json").json_lines
        plain.send_task("nameshot.classify", kwargs={"image": "http://x", "candidate_labels": ["owl"]}, queue=queue)

    (report,) = everything.run("doctor", "--json").json_lines

    assert not [each for each in before["findings"] if "wait in the list" in each["text"]]
    (warning,) = (each for each in report["findings"] if each["subject"] == "queues" and each["state"] == "warning")
    assert (
        warning["text"] == f"jobs of nameshot.classify wait in the list {queue or 'celery'!r}, which no worker serves"
    )
    assert warning["advice"].endswith(f"send_task(…, queue='nameshot.{meant}')")


def test_without_json_each_finding_is_a_line_of_text(with_valkey: Home) -> None:
    done = with_valkey.run("doctor")

    assert done.err == ""
    assert done.out.splitlines()[0].startswith("ok       versions        Python 3.")
    assert any(line.startswith("broken   workers ") for line in done.out.splitlines())
    assert "→ start one with `nameshot worker`" in done.out


def test_a_broker_that_would_drop_jobs_is_reported(home: Home, own_valkey: ValkeyServer) -> None:
    with own_valkey.connect() as connection:
        connection.config_set("maxmemory", "64mb")
        connection.config_set("maxmemory-policy", "allkeys-lru")
        connection.config_set("appendonly", "no")
    here = home.with_settings(
        NAMESHOT_BROKER_URL=own_valkey.broker_url, NAMESHOT_RESULT_BACKEND=own_valkey.result_backend
    )

    found = findings(here.run("doctor", "--json"))

    assert found["memory"]["state"] == "broken"
    assert found["memory"]["advice"] == "set maxmemory-policy to noeviction"
    assert found["persistence"]["state"] == "warning"


def test_a_result_backend_that_would_drop_answers_is_reported(
    home: Home, own_valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ValkeyServer(tmp_path_factory.mktemp("answers"), ("--maxmemory", "64mb")) as answers:
        with answers.connect() as connection:
            connection.config_set("maxmemory-policy", "allkeys-lru")
            connection.config_set("appendonly", "no")
        settings = {"NAMESHOT_BROKER_URL": own_valkey.broker_url, "NAMESHOT_RESULT_BACKEND": answers.result_backend}
        (report,) = home.with_settings(**settings).run("doctor", "--json").json_lines

    keeping = [each for each in report["findings"] if each["subject"] in ("memory", "persistence")]
    assert [each["state"] for each in keeping] == ["ok", "ok", "broken", "warning"]
    assert "would evict answers" in keeping[2]["text"]
    assert keeping[3]["text"].endswith("loses answers")


@pytest.mark.parametrize(
    ("variable", "value", "state", "text"),
    [
        ("NAMESHOT_MAXBATCH", "8", "warning", "no setting is called NAMESHOT_MAXBATCH"),
        ("NAMESHOT_MAX_BATCH", "many", "broken", "NAMESHOT_MAX_BATCH is 'many' and cannot be used; it should be"),
        ("NAMESHOT_DEVICE", "gpu", "broken", "it should be auto, cpu, cuda, or one of several GPUs as in cuda:1"),
        ("NAMESHOT_FETCH_PORTS", "http", "broken", "NAMESHOT_FETCH_PORTS has the entry 'http'; write ports from 1"),
        ("NAMESHOT_FETCH_ALLOW", "10.0.0.1", "broken", "has the entry '10.0.0.1'; write CIDR:PORT or CIDR:*"),
        ("NAMESHOT_FETCH_HOSTS", "http://a.com", "broken", "has the entry 'http://a.com'; write host names or globs"),
        ("NAMESHOT_SHARED_CACHE_URL", "http://a.com", "broken", "NAMESHOT_SHARED_CACHE_URL must be one redis://"),
        ("NAMESHOT_MAX_BATCH", "8", "ok", "NAMESHOT_MAX_BATCH"),
    ],
)
def test_settings_are_checked_by_name_and_value(
    variable: str, value: str, state: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    (found,) = checks_local.environment()

    assert found.state == state
    assert text in found.text


def test_checking_the_settings_loads_no_torch() -> None:
    code = (
        "import sys; from producer.cli.doctor import checks_local; list(checks_local.environment());"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("model", "state", "text"),
    [
        (".", "broken", "holds no config.json"),
        ("no such/model/at all", "broken", "neither a folder nor a Hub id"),
        ("somebody/some-model", "ok", "the worker downloads it at its start"),
        ("bundled", "ok", "bundled"),
    ],
)
def test_the_model_is_found_without_being_loaded(
    model: str, state: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NAMESHOT_MODEL", model)
    monkeypatch.chdir(tmp_path)

    (found,) = checks_local.model(None)

    assert found.state == state
    assert text in found.text


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An `nvidia-smi`, first on the PATH, that names a GPU, while PyTorch sees none."""
    import torch

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("fake_gpu")
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("wanted", ["auto", "cuda", "cuda:1"])
def test_a_gpu_that_torch_cannot_use_is_broken_unless_the_cpu_was_chosen(
    deep: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMESHOT_DEVICE", wanted)
    (found,) = checks_local.device(deep=deep)
    assert found.state == "broken"
    assert "finds no CUDA device" in found.text

    monkeypatch.setenv("NAMESHOT_DEVICE", "cpu")
    (found,) = checks_local.device(deep=deep)
    assert found.state == "ok"
    assert found.text == "NVIDIA H100 80GB HBM3, 81559 MiB; not used, because NAMESHOT_DEVICE is cpu"


@pytest.mark.parametrize(
    ("deep", "text"),
    [(False, "no NVIDIA GPU here: the CPU is used"), (True, "a worker here runs on cpu (NAMESHOT_DEVICE is auto)")],
)
def test_a_machine_without_a_gpu_is_ok(deep: bool, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    (found,) = checks_local.device(deep=deep)

    assert (found.state, found.text) == ("ok", text)
