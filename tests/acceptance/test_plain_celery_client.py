"""Any Celery client can send jobs without our package: it needs JSON keyword arguments and the name of a queue."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear", "seagull", "owl"]
TIMEOUT_S = 60


@pytest.fixture(autouse=True)
def running(worker: Worker) -> None:
    """All tests here use the same ready worker."""


def ask(plain: Celery, task: str = "nameshot.classify", queue: str = "nameshot.default", **kwargs: Any) -> Any:
    return plain.send_task(task, kwargs=kwargs, queue=queue)


def failure(plain: Celery, **kwargs: Any) -> tuple[str, str, bool]:
    result = ask(plain, **kwargs)
    with pytest.raises(Exception, match=r"\w") as caught:
        result.get(TIMEOUT_S)
    assert result.state == "FAILURE"
    assert result.traceback is None
    code, message, retryable = caught.value.args
    assert type(caught.value).__name__ == "JobFailed"
    assert "\n" not in message
    assert "127.0.0.1" not in message
    return code, message, retryable


def test_the_ranking_is_exactly_that_of_the_transformers_pipeline(
    plain: Celery, origin: Origin, pipeline: Callable[[str], Any], tmp_path: Path
) -> None:
    picture = tmp_path / "owl.png"
    picture.write_bytes(origin.pages["/owl.png"][1])

    answer = ask(plain, image=origin.url("/owl.png"), candidate_labels=LABELS).get(TIMEOUT_S)

    expected = pipeline("clip")(str(picture), candidate_labels=LABELS)
    assert [item["label"] for item in answer["ranking"]] == [item["label"] for item in expected]
    assert [item["score"] for item in answer["ranking"]] == pytest.approx(
        [item["score"] for item in expected], abs=1e-5
    )


def test_an_answer_names_the_model_the_image_the_batch_size_and_the_timings(plain: Celery, origin: Origin) -> None:
    answer = ask(plain, image=origin.url("/car.jpg"), candidate_labels=["car"]).get(TIMEOUT_S)

    assert set(answer) == {"ranking", "model", "revision", "image", "batch_size", "timings_ms"}
    assert answer["model"] == "clip"
    assert answer["batch_size"] == 1
    assert {name: answer["image"][name] for name in ("width", "height", "format")} == {
        "width": 200,
        "height": 300,
        "format": "JPEG",
    }
    assert answer["image"]["bytes"] == len(origin.pages["/car.jpg"][1])
    assert set(answer["timings_ms"]) == {"queued", "fetch", "decode", "wait", "forward"}
    assert answer["timings_ms"]["queued"] is None, "a plain client does not send our header with the time"


@pytest.mark.parametrize("queue", ["high", "default", "bulk"])
def test_every_queue_is_served(plain: Celery, origin: Origin, queue: str) -> None:
    answer = ask(plain, queue=f"nameshot.{queue}", image=origin.url("/owl.png"), candidate_labels=LABELS).get(TIMEOUT_S)

    assert len(answer["ranking"]) == 4


def test_top_k_returns_the_best_labels_with_scores_computed_over_all_labels(plain: Celery, origin: Origin) -> None:
    everything = ask(plain, image=origin.url("/owl.png"), candidate_labels=LABELS).get(TIMEOUT_S)["ranking"]
    best = ask(plain, image=origin.url("/owl.png"), candidate_labels=LABELS, top_k=2).get(TIMEOUT_S)["ranking"]

    assert best == [
        {"label": item["label"], "score": pytest.approx(item["score"], abs=1e-6)} for item in everything[:2]
    ]


def test_a_bulk_message_has_one_outcome_per_image_in_order_and_only_bad_images_fail(
    plain: Celery, origin: Origin
) -> None:
    images = [origin.url("/owl.png"), origin.url("/gone.png"), "ftp://x.example/y", origin.url("/car.jpg")]

    answer = ask(plain, "nameshot.classify_many", images=images, candidate_labels=LABELS).get(TIMEOUT_S)

    owl, gone, ftp, car = answer["outcomes"]
    assert (owl["image"]["format"], car["image"]["format"]) == ("PNG", "JPEG")
    assert gone["error"]["code"] == "http_status"
    assert ftp["error"] == {"code": "scheme_not_allowed", "message": ftp["error"]["message"], "retryable": False}


def test_positional_arguments_are_an_invalid_job(plain: Celery, origin: Origin) -> None:
    result = plain.send_task("nameshot.classify", args=[origin.url("/owl.png"), LABELS], queue="nameshot.default")

    with pytest.raises(Exception, match="by name") as caught:
        result.get(TIMEOUT_S)
    assert caught.value.args[0] == "invalid_job"


@pytest.mark.parametrize(
    ("kwargs", "code"),
    [
        ({}, "invalid_job"),
        ({"candidate_labels": []}, "invalid_job"),
        ({"candidate_labels": ["a"], "colour": "red"}, "invalid_job"),
        ({"candidate_labels": ["word " * 40]}, "invalid_job"),
        ({"candidate_labels": ["a"], "image": "file:///etc/passwd"}, "scheme_not_allowed"),
        ({"candidate_labels": ["a"], "image": "data:image/png;base64,AAAA"}, "scheme_not_allowed"),
        ({"candidate_labels": ["a"], "image": "http://no-such-host.invalid/x.png"}, "dns_failed"),
        ({"candidate_labels": ["a"], "image": "http://10.0.0.1/x.png"}, "address_blocked"),
        ({"candidate_labels": ["a"], "image": "http://169.254.169.254/latest/"}, "address_blocked"),
        ({"candidate_labels": ["a"], "image": "http://93.184.216.34:22/x.png"}, "port_not_allowed"),
    ],
)
def test_invalid_jobs_and_images_that_cannot_be_downloaded_fail_with_a_code(
    plain: Celery, kwargs: dict[str, Any], code: str
) -> None:
    message = {"image": "http://x.example/y.png", **kwargs}

    assert failure(plain, timeout=3, **message)[0] == code


def test_a_label_that_is_too_long_is_refused_with_its_length_and_the_maximum(plain: Celery, origin: Origin) -> None:
    code, message, retryable = failure(plain, image=origin.url("/owl.png"), candidate_labels=["owl", "word " * 39])

    assert (code, retryable) == ("invalid_job", False)
    assert "word word" in message
    assert "77" in message


@pytest.mark.parametrize(
    ("path", "kind", "body", "code"),
    [
        ("/page", "text/html", b"<!doctype html><title>Not here</title>", "unsupported_format"),
        ("/nothing", "image/png", b"", "empty"),
        ("/drawing", "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
    ],
)
def test_a_file_that_is_no_picture_fails_with_its_code(
    plain: Celery, origin: Origin, path: str, kind: str, body: bytes, code: str
) -> None:
    origin.pages[path] = (kind, body)

    assert failure(plain, image=origin.url(path), candidate_labels=LABELS)[0] == code


def test_a_truncated_jpeg_is_undecodable(plain: Celery, origin: Origin) -> None:
    origin.pages["/half.jpg"] = ("image/jpeg", origin.pages["/car.jpg"][1][:900])

    assert failure(plain, image=origin.url("/half.jpg"), candidate_labels=LABELS)[0] == "undecodable"


def test_a_missing_image_fails_with_its_status_and_is_not_retryable(plain: Celery, origin: Origin) -> None:
    code, message, retryable = failure(plain, image=origin.url("/gone.png"), candidate_labels=LABELS)

    assert (code, retryable) == ("http_status", False)
    assert "404" in message


def test_the_failure_of_a_busy_server_is_retryable(plain: Celery, origin: Origin) -> None:
    origin.errors["/busy"] = 503

    assert failure(plain, image=origin.url("/busy"), candidate_labels=LABELS, timeout=1)[::2] == ("http_status", True)


def test_no_answer_contains_the_url_or_a_traceback(
    plain: Celery, origin: Origin, valkey_of_this_run: ValkeyServer
) -> None:
    url = origin.url("/gone-CANARY.png?X-Amz-Signature=CANARY")
    result = ask(plain, image=url, candidate_labels=LABELS)
    with pytest.raises(Exception, match="http_status"):
        result.get(TIMEOUT_S)

    with valkey_of_this_run.connect(1) as answers:
        stored = answers.get(f"celery-task-meta-{result.id}")
    assert isinstance(stored, bytes)
    assert b"CANARY" not in stored
    assert json.loads(stored)["traceback"] is None


def test_the_worker_logs_failures_without_tracebacks_and_paths(worker: Worker) -> None:
    assert "Traceback" not in worker.log
    assert "CANARY" not in worker.log
    assert "failed: http_status" in worker.log
