"""Streams of events: every caller sees each state that stands, in order, and then the end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from tests.client.stock_worker import StockWorker, result_for
from tests.client.test_aio import subscriptions
from tests.eventually import TIMEOUT_S, eventually
from tests.valkey_server import ValkeyServer
from tests.web.keyring import Keys
from tests.web.serving import LABELS, Server, serving


class Event(NamedTuple):
    """One event as a browser would see it."""

    name: str
    data: Any
    id: str


class Stream:
    """An open stream, read event by event."""

    def __init__(self, response: requests.Response) -> None:
        self.response = response
        self._lines = response.iter_lines(decode_unicode=True)

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                yield Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                fields = {}

    def next(self, name: str) -> Event:
        """The next event of this name."""
        return next(event for event in self if event.name == name)


@contextmanager
def watching(server: Server, path: str, **options: Any) -> Iterator[Stream]:
    with server.get(path, stream=True, **options) as response:
        yield Stream(response)


def test_a_stream_tells_each_state_and_the_end(server: Server, worker: StockWorker) -> None:
    job_id = server.submit()
    with watching(server, f"/v1/jobs/{job_id}/events") as stream:
        headers = stream.response.headers
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert headers["Cache-Control"] == "no-cache, no-transform"
        assert headers["X-Accel-Buffering"] == "no"
        queued = stream.next("state")
        worker.take()
        worker.start(job_id)
        running = stream.next("state")
        worker.succeed(job_id, result_for(LABELS))
        last, *rest = stream

    assert [(event.id, event.data["status"]) for event in (queued, running, last)] == [
        *(("1", "queued"), ("2", "running"), ("3", "succeeded"))
    ]
    assert last.data == server.get(f"/v1/jobs/{job_id}").json()
    assert [event.name for event in rest] == ["end"]


def test_a_stream_tells_how_many_are_still_before_a_job(server: Server, worker: StockWorker) -> None:
    jobs = [server.submit() for _ in range(3)]
    with watching(server, f"/v1/jobs/{jobs[2]}/events") as stream:
        assert stream.next("state").data["position"] == 2
        worker.take()
        moved = stream.next("position")

    assert moved.data["id"] == jobs[2]
    assert moved.data["position"] == 1
    assert moved.id == ""


@pytest.mark.parametrize("path", ["/v1/jobs/never-sent/events", "/v1/jobs/a.b/events"])
def test_there_is_no_stream_of_an_unknown_job(server: Server, path: str) -> None:
    refused = server.get(path)

    assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")
    assert server.send("HEAD", path, None, {}).status_code == 405


def test_a_caller_who_comes_back_gets_only_what_is_later(server: Server, worker: StockWorker) -> None:
    job_id = server.submit()
    path = f"/v1/jobs/{job_id}/events"
    worker.take()
    worker.start(job_id)
    with watching(server, path, headers={"Last-Event-ID": "2"}) as stream:
        worker.succeed(job_id, result_for(LABELS))
        assert [event.id for event in stream] == ["3", ""]

    for last, seen in (("1", ["3", ""]), ("2", ["3", ""]), ("nonsense", ["3", ""])):
        with watching(server, path, headers={"Last-Event-ID": last}) as stream:
            assert [event.id for event in stream] == seen
    assert server.get(path, headers={"Last-Event-ID": "3"}).status_code == 204
    assert server.get(path, params={"last_event_id": "3"}).status_code == 204


def test_one_stream_watches_a_hundred_jobs(server: Server, valkey: ValkeyServer, worker: StockWorker) -> None:
    jobs = [server.submit() for _ in range(99)]

    def answer_all() -> None:
        for _ in jobs:
            worker.succeed(str(worker.take().headers["id"]), result_for(LABELS))

    answered = threading.Thread(target=answer_all)
    with watching(server, "/v1/events", params={"job": [*jobs, "never-sent"]}) as stream:
        missing = next(iter(stream))
        answered.start()
        events = list(stream)
    answered.join()

    assert (missing.name, missing.data) == ("missing", {"missing": ["never-sent"]})
    last = [event for event in events if event.name == "state" and event.data["status"] == "succeeded"]
    assert {event.id for event in last} == {f"{job_id}.3" for job_id in jobs}
    assert len(last) == 99
    assert events[-1].name == "end"
    eventually(lambda: subscriptions(valkey) == 0)


def test_an_answer_that_comes_while_its_stream_begins_is_not_missed(server: Server, worker: StockWorker) -> None:
    with ThreadPoolExecutor(1) as thread:
        for number in range(60):
            job_id = server.submit()
            worker.take()
            # The moments lie from before the subscription until after the look.
            answered = thread.submit(answer_after, number * 0.0003, worker, job_id)
            with watching(server, f"/v1/jobs/{job_id}/events") as stream:
                events = list(stream)
            answered.result()

            assert [event.data["status"] for event in events if event.name == "state"][-1] == "succeeded"
            assert events[-1].name == "end"


def answer_after(moment_s: float, worker: StockWorker, job_id: str) -> None:
    time.sleep(moment_s)
    worker.succeed(job_id, result_for(LABELS))


def test_the_states_of_a_job_whose_worker_died_never_fall(server: Server, worker: StockWorker) -> None:
    job_id = server.submit()
    with watching(server, f"/v1/jobs/{job_id}/events") as stream:
        worker.take()
        worker.start(job_id)
        seen = [stream.next("state").id, stream.next("state").id]
        worker.app.backend.store_result(job_id, None, "RETRY")
        worker.start(job_id)
        server.post(f"/v1/jobs/{job_id}/cancel")
        seen += [event.data["status"] for event in stream if event.name == "state"]

    assert seen in (["1", "2", "cancelled"], ["2", "cancelled"])


def test_streams_that_are_torn_leave_nothing(server: Server, valkey: ValkeyServer) -> None:
    jobs = [server.submit() for _ in range(30)]
    for job_id in jobs:
        with watching(server, f"/v1/jobs/{job_id}/events") as stream:
            stream.next("state")

    eventually(lambda: subscriptions(valkey) == 0)
    eventually(lambda: "nameshot_http_streams 0.0" in server.get("/metrics").text)


@pytest.mark.thorough
def test_a_stream_is_silent_for_no_longer_than_a_proxy_endures(server: Server, worker: StockWorker) -> None:
    job_id = server.submit()
    worker.take()
    worker.start(job_id)
    with watching(server, f"/v1/jobs/{job_id}/events") as stream:
        lines = stream.response.iter_lines(decode_unicode=True)
        assert next(line for line in lines if line.startswith(":")) == ": ping"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_streams_end_in_order_when_the_server_does(valkey: ValkeyServer, tmp_path: Path, processes: str) -> None:
    with serving(valkey, tmp_path / "log", "--processes", processes) as server:
        job_id = server.submit()

        def read(_: int) -> str:
            return server.get(f"/v1/jobs/{job_id}/events").text

        with ThreadPoolExecutor(20) as threads:
            texts = threads.map(read, range(20))
            eventually(lambda: open_streams(server) or processes == "2")
            eventually(lambda: subscriptions(valkey) >= 1)
            assert server.stop() == 0
            ended = [text for text in texts if text.endswith("retry: 500\n\n")]
    assert len(ended) >= (20 if processes == "1" else 1)
    assert "ERROR" not in (tmp_path / "log").read_text()


def open_streams(server: Server) -> bool:
    return "nameshot_http_streams 20.0" in server.get("/metrics").text


def test_streams_end_with_their_answers_although_redis_was_restarted(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    worker = StockWorker(own_valkey)
    with serving(own_valkey, tmp_path / "log") as server:
        jobs = [server.submit() for _ in range(10)]
        with watching(server, "/v1/events", params={"job": jobs}) as stream:
            for _ in jobs:
                stream.next("state")
            own_valkey.stop()
            eventually(lambda: server.get("/readyz").status_code == 503)
            assert server.get("/healthz").status_code == 200
            own_valkey.start()
            for job_id in jobs:
                worker.take()
                worker.succeed(job_id, result_for(LABELS))
            events = list(stream)
    worker.close()

    ended = {event.data["id"] for event in events if event.name == "state" and event.data["status"] == "succeeded"}
    assert ended == {*jobs}
    assert events[-1].name == "end"


def test_a_key_has_so_many_streams_and_a_process_too(valkey: ValkeyServer, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    mine, yours = keys.add("mine"), keys.add("yours")
    settings = {"NAMESHOT_WEB_KEYS_FILE": str(keys.file), "NAMESHOT_WEB_MAX_STREAMS": "33"}
    with serving(valkey, tmp_path / "log", **settings) as server:
        paths = {id(key): f"/v1/jobs/{server.submit(headers=key)}/events" for key in (mine, yours)}

        def opened(key: dict[str, str]) -> requests.Response:
            return requests.get(server.url + paths[id(key)], headers=key, stream=True, timeout=TIMEOUT_S)

        streams = [opened(mine) for _ in range(32)]
        refused = [opened(mine)]
        streams.append(opened(yours))
        refused.append(opened(yours))

        assert {stream.status_code for stream in streams} == {200}
        assert [(answer.status_code, answer.json()["code"]) for answer in refused] == 2 * [(429, "too_many_streams")]
        for stream in streams:
            stream.close()
        eventually(lambda: opened(mine).status_code == 200)
