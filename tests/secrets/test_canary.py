"""Signed URLs and Redis's password are secrets: after any success or failure, neither is found anywhere.

Exceptions are the message of a job that waits or runs, and the user's own output file of `nameshot bulk`.
"""

import asyncio
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from producer import AsyncClient, Client
from producer.contract.names import answer_key
from producer.errors import ERROR_CODES, NameshotError
from producer.settings import ProducerSettings, read_settings
from tests.acceptance.worker_process import Worker
from tests.cli.command import Home
from tests.delivery.conftest import COMMAND
from tests.eventually import eventually
from tests.jobs.test_messages import headers, message
from tests.secrets.leaks import everything_in, show_nothing_of, whole
from tests.secrets.places import CANARY, HOSTS, MAX_BYTES, MAX_PIXELS, PATH, SERVERS, UPLOAD_SECRET, served
from tests.valkey_server import ValkeyServer

PASSWORD = "PASS-CANARY-WORD"
LABELS = ["fox", "bear"]
TIMEOUT_S = 60
#: More failed jobs than open a host's circuit, which are ten.
TOO_OFTEN = 12
#: The job is due before the other jobs end.
SOON_S = 3


@dataclass
class Scene:
    """The worker, clients and servers that take part.

    Attributes:
        urls: the URLs, and the code with which each fails.
        redis_urls: the URLs of the broker and the result backend, with the password.
        hang: while this file exists, the device hangs.
        expired: a job that expired before the worker started.
    """

    worker: Worker
    client: Client
    plain: Celery
    valkey: ValkeyServer
    command: Home
    urls: dict[str, str | None]
    redis_urls: tuple[str, str]
    metrics_port: int
    hang: Path
    expired: Any

    def url(self, name: str) -> str:
        """Return the URL of one of the servers."""
        return list(self.urls)[list(SERVERS).index(name)]


@dataclass
class Aftermath:
    """The codes of all jobs, every text in which a secret may have been left, and the MACs of uploads' tokens."""

    codes: dict[str, set[str]]
    seen: dict[str, str]
    macs: set[str]


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    folder = tmp_path_factory.mktemp("canary")
    with ValkeyServer(folder) as valkey, served() as (urls, upload_url):
        with valkey.connect() as admin:
            admin.acl_setuser(
                "user", enabled=True, passwords=[f"+{PASSWORD}"], keys="*", channels="*", commands=["+@all"]
            )
        broker_url, result_backend = (
            url.replace("://", f"://user:{PASSWORD}@") for url in (valkey.url(0), valkey.url(1))
        )
        redis_urls = {"NAMESHOT_BROKER_URL": broker_url, "NAMESHOT_RESULT_BACKEND": result_backend}
        (folder / "home").mkdir()
        metrics_port = 9_000 + valkey.port % 500
        settings = {
            **redis_urls,
            "NAMESHOT_LOG_LEVEL": "DEBUG",
            "NAMESHOT_FETCH_ALLOW": "127.0.0.1/32:*",
            "NAMESHOT_FETCH_HOSTS": HOSTS,
            "NAMESHOT_FETCH_TIMEOUT": "30",
            "NAMESHOT_FETCH_COALESCE": "true",
            "NAMESHOT_EMBEDDING_CACHE_BYTES": "1000000",
            "NAMESHOT_HTTP_CACHE_BYTES": "100000",
            "NAMESHOT_SHARED_CACHE_BYTES": "1000000",
            "NAMESHOT_MODEL": "bundled",  # the null model runs, but the shared cache reads the checkpoint's files
            "NAMESHOT_UPLOAD_URL": upload_url,
            "NAMESHOT_UPLOAD_SECRET": UPLOAD_SECRET,
            "NAMESHOT_JOB_TIMEOUT": "4",
            "NAMESHOT_MAX_BYTES": str(MAX_BYTES),
            "NAMESHOT_MAX_PIXELS": str(MAX_PIXELS),
            "NAMESHOT_METRICS_PORT": str(metrics_port),
            "NULL_ERROR_TEXT": f"an error that quotes {CANARY}",
            "NULL_HANG": str(folder / "hang"),
        }
        with Client(broker_url, result_backend) as client, Celery(broker=broker_url) as plain:
            expired = client.submit(next(iter(urls)), LABELS, expires_in=0.01)
            poison = {f"poison-{number}": 3 for number in range(2)}
            with valkey.connect() as broker:
                broker.hset("nameshot:suspects", mapping={**poison, **{f"alone {job_id}": 3 for job_id in poison}})
            with Worker(folder, settings, (*COMMAND, "-n", "teller@%h", "-l", "DEBUG"), is_new=True) as worker:
                worker.wait_until_ready()
                yield _live(
                    Scene(
                        worker,
                        client,
                        plain,
                        valkey,
                        Home.make(folder / "home", **redis_urls),
                        urls,
                        (broker_url, result_backend),
                        metrics_port,
                        folder / "hang",
                        expired,
                    )
                )


def _live(scene: Scene) -> Aftermath:
    """Make everything happen once that can happen to a job."""
    worker, client, plain, valkey, command = scene.worker, scene.client, scene.plain, scene.valkey, scene.command
    urls, picture_url, stall_url = scene.urls, scene.url("picture"), scene.url("stall")
    codes: dict[str, set[str]] = {}
    seen: dict[str, str] = {"exceptions": "", "reprs": ""}

    def note(url: str, error: BaseException | None) -> None:
        codes.setdefault(url, set()).add(getattr(error, "code", type(error).__name__) if error else "")
        seen["exceptions"] += whole(error)

    def end(job: Any, url: str) -> None:
        try:
            seen["reprs"] += repr(job) + repr(job.result(timeout=TIMEOUT_S))
        except NameshotError as error:
            note(url, error)
        else:
            note(url, None)

    # A plain Celery client, because nameshot's client would refuse some of these.
    kwargs = [{"image": url, "candidate_labels": LABELS, "timeout": 2} for url in urls]
    sent = [plain.send_task("nameshot.classify", kwargs=each, queue="nameshot.default").id for each in kwargs]
    many = plain.send_task(
        "nameshot.classify_many",
        kwargs={"images": list(urls), "candidate_labels": LABELS, "timeout": 2},
        queue="nameshot.bulk",
    ).id
    postponed = plain.send_task("nameshot.classify", kwargs=kwargs[0], queue="nameshot.default", countdown=SOON_S).id
    poisoned = [client.submit(picture_url, LABELS, job_id=f"poison-{number}") for number in range(2)]
    malformed: list[dict[str, Any]] = [
        {"headers": headers(id="broken"), "body": [[], {"image": f"http://h{PATH}"}, {"chain": [CANARY]}]},
        {"headers": headers(id="late", eta=CANARY)},
        {"headers": headers(id="far", eta="2999-01-01T00:00:00+00:00"), "body": [[], kwargs[0], None]},
        {"headers": headers(id="stranger", task=f"stranger.{CANARY}", argsrepr=CANARY)},
        {"headers": headers(id="announced"), "content_type": CANARY},
        {"headers": headers(id="argument"), "body": [[CANARY], {}, {}]},
    ]
    for bad in malformed:
        with valkey.connect() as broker:
            broker.lpush("nameshot.default", message(**bad), CANARY.encode())
    bulk_file = command.folder / "urls.txt"
    bulk_file.write_text("\n".join(urls))
    commands = [
        command.run(
            "bulk", bulk_file, "-l", "fox", "-l", "bear", "--download-timeout", "2", "-o", command.folder / "out.jsonl"
        ),
        command.run("doctor"),
        command.run("dead-letters", "list"),
        command.run("classify", f"http://10.0.0.1{PATH}", "-l", "fox"),
        command.run("classify", f"ftp://user:CANARY@h.example{PATH}", "-l", "fox"),
        command.run("result", poisoned[0].id),
    ]
    with valkey.connect(1) as answers:
        eventually(
            lambda: all(answers.exists(answer_key(job_id)) for job_id in (*sent, many, postponed)),
            lambda: "a job is not begun",
        )
        end(client.job(postponed), picture_url)
        for url, job_id in zip(urls, sent, strict=True):
            end(client.job(job_id), url)
        eventually(lambda: b"outcomes" in answers.get(answer_key(many)), lambda: "the bulk job has no answer")
        for url, outcome in zip(urls, json.loads(answers.get(answer_key(many)))["result"]["outcomes"], strict=True):
            codes[url].add(outcome.get("error", {}).get("code", ""))
    for job in poisoned:
        end(job, "poisoned")
    end(scene.expired, "expired")
    slow = client.submit(stall_url, LABELS, queue="high")
    eventually(lambda: slow.status() == "running", lambda: "the job does not run")
    slow.cancel()
    end(slow, "cancelled")
    overdue = client.submit(stall_url, LABELS)
    end(overdue, "overdue")
    scene.hang.touch()
    end(client.submit(scene.url("a picture that is new each time"), LABELS), "behind a device that hangs")
    scene.hang.unlink()
    for job in client.submit_many([(scene.url("hang-up"), LABELS)] * TOO_OFTEN):
        with suppress(NameshotError):
            job.result(timeout=TIMEOUT_S)
    end(client.submit(scene.url("hang-up"), LABELS), "of a host that failed too often")
    for outcome in client.classify_many(list(urls)[:3], LABELS):
        seen["reprs"] += repr(outcome)
    seen["reprs"] += asyncio.run(_asynchronously(list(urls)[:3], scene.redis_urls, note))
    listed = command.run("dead-letters", "list", "--json")
    commands += [listed, *(command.run("dead-letters", "show", each["letter"]) for each in listed.json_lines[:2])]

    writer = client._config.writer
    submission = writer.single(f"http://h{PATH}", LABELS)
    seen["reprs"] += repr(submission) + repr(client) + repr(vars(client)) + repr(vars(client._link)) + repr(writer)
    seen["reprs"] += repr(read_settings(ProducerSettings, broker_url=f"redis://u:{PASSWORD}@h/0"))
    with urllib.request.urlopen(f"http://127.0.0.1:{scene.metrics_port}/metrics") as answer:
        seen["metrics"] = answer.read().decode()
    with valkey.connect() as broker:
        eventually(lambda: not broker.keys("nameshot:in-flight:*"), lambda: "a message is still held")
    seen["answers"] = everything_in(valkey, 1)
    seen["broker"] = everything_in(valkey, 0)
    command_line = Path(f"/proc/{worker.process.pid}/cmdline")
    seen["ps"] = command_line.read_text() if command_line.exists() else ""
    worker.stop()
    seen["log"] = worker.log
    seen["commands"] = "".join(done.err + done.out for done in commands)
    macs = {url.rpartition(".")[2] for url in urls if url.startswith("upload:v1.")}
    return Aftermath(codes, seen, macs)


async def _asynchronously(urls: list[str], redis_urls: tuple[str, str], note: Callable[..., None]) -> str:
    """Return the representations of the asynchronous client and its objects, during and after use."""
    async with AsyncClient(*redis_urls) as client:
        job = await client.submit(urls[0], LABELS)
        seen = repr(client) + repr(vars(client)) + repr(vars(client._link)) + repr(job)
        seen += repr(await job.result(TIMEOUT_S)) + repr(await job.answer())
        for handle in await client.submit_many([(url, LABELS) for url in urls]):
            try:
                seen += repr(handle) + repr(await handle.result(TIMEOUT_S))
            except NameshotError as error:
                note("asynchronously", error)
        async for outcome in client.classify_many(urls, LABELS):
            seen += repr(outcome)
        for refused in (client.submit(f"ftp://user:{CANARY}@h{PATH}", LABELS), client.job("no-such-job").result()):
            try:
                await refused
            except NameshotError as error:
                note("asynchronously refused", error)
    return seen + repr(client)


@pytest.mark.parametrize("place", ["log", "exceptions", "reprs", "answers", "broker", "metrics", "commands", "ps"])
def test_no_secret_is_found_anywhere(aftermath: Aftermath, place: str) -> None:
    show_nothing_of(aftermath.seen[place], CANARY, PASSWORD, *aftermath.macs)


@pytest.mark.parametrize(
    "count", ["http_cache_hits", "http_cache_revalidated", "http_cache_misses", "shared_cache_misses"]
)
def test_the_scene_used_the_http_cache_and_the_shared_cache(aftermath: Aftermath, count: str) -> None:
    assert re.search(rf"^nameshot_{count}_total [1-9]", aftermath.seen["metrics"], re.MULTILINE)


def test_the_scene_fetched_an_upload_and_met_each_refusal_of_one(aftermath: Aftermath) -> None:
    had = [codes for url, codes in aftermath.codes.items() if url.startswith("upload:")]

    assert sorted(code for codes in had for code in codes) == ["", "http_status", *["invalid_url"] * 3]


def test_the_scene_produced_every_error_code_that_a_job_can_have(aftermath: Aftermath) -> None:
    differing = {url: codes for url, codes in aftermath.codes.items() if ":" in url and len(codes) > 1}
    assert not differing, "single and bulk agree"
    had = {code for codes in aftermath.codes.values() for code in codes}
    assert had >= set(ERROR_CODES) - {"invalid_job"}
    assert had >= {"", "JobCancelled", "JobExpired"}
