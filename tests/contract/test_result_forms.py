"""The forms in which a web app passes on a result: a dictionary, JSON, a pydantic model, a FastAPI response."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from nameshot import BulkOutcome, JobFailed, Outcome, Result, Score
from producer.contract.result import ImageInfo, Timings

RESULT = Result(
    [Score("owl", 0.9), Score("fox", 0.1)],
    "a-model",
    None,
    ImageInfo("ab" * 32, 640, 480, "JPEG", 1_000),
    8,
    Timings(1.0, 2.0, 3.0, 4.0, 5.0),
)
FAILED = JobFailed("too_large", "the body is too large.", False)
RANKING = [{"label": "owl", "score": 0.9}, {"label": "fox", "score": 0.1}]


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda: RESULT.to_dict(), id="to_dict"),
        pytest.param(lambda: json.loads(json.dumps(asdict(RESULT))), id="asdict"),
        pytest.param(lambda: TypeAdapter(Result).dump_python(RESULT, mode="json"), id="pydantic"),
        pytest.param(lambda: json.loads(TypeAdapter(Result).dump_json(RESULT)), id="pydantic's JSON"),
    ],
)
def test_each_score_is_an_object_of_label_and_score_in_every_form(form: Any) -> None:
    assert form()["ranking"] == RANKING
    assert form() == RESULT.to_dict()


def test_pydantic_reads_what_it_wrote() -> None:
    adapter = TypeAdapter(Result)

    assert adapter.validate_json(adapter.dump_json(RESULT)) == RESULT
    assert adapter.validate_python(RESULT) is RESULT


def test_an_outcome_is_written_with_its_result_or_its_error() -> None:
    good, bad = Outcome("http://x/1.png", result=RESULT), BulkOutcome("http://x/2.png", error=FAILED, index=1)

    assert good.to_dict() == {"image": "http://x/1.png", "result": RESULT.to_dict()}
    assert bad.to_dict() == {"image": "http://x/2.png", "error": FAILED.to_dict()}
    error = TypeAdapter(BulkOutcome).dump_python(bad, mode="json")["error"]
    assert error == {"code": "too_large", "message": "the body is too large.", "retryable": False}
    read = TypeAdapter(BulkOutcome).validate_python({"image": "http://x/2.png", "error": error, "index": 1})
    assert isinstance(read.error, JobFailed)
    assert read.error.args == FAILED.args


def test_fastapi_returns_results_as_json_objects_with_a_schema() -> None:
    app = FastAPI()

    @app.get("/result")
    def result() -> Result:
        return RESULT

    @app.get("/outcomes")
    def outcomes() -> list[Outcome]:
        return [Outcome("http://x/1.png", result=RESULT), Outcome("http://x/2.png", error=FAILED)]

    with TestClient(app) as client:
        assert client.get("/result").json() == RESULT.to_dict()
        assert [each["error"] for each in client.get("/outcomes").json()] == [None, FAILED.to_dict()]
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Score"]["properties"]) == {"label", "score"}
    assert schemas["Result"]["properties"]["ranking"]["items"]["$ref"].endswith("/Score")


def test_a_score_can_be_unpacked_and_compared_and_its_repr_is_that_of_the_readme() -> None:
    label, score = RESULT.best

    assert (label, score) == ("owl", 0.9)
    assert Score("owl", 0.9) == RESULT.best
    assert len({Score("owl", 0.9), RESULT.best}) == 1
    assert repr(RESULT.best) == "Score(label='owl', score=0.9)"


def test_a_schema_describes_the_public_fields_and_nothing_internal() -> None:
    shown = json.dumps(TypeAdapter(Result).json_schema() | TypeAdapter(BulkOutcome).json_schema())

    assert "One candidate label and its score" in shown
    for internal in ("frozen", "SENT_AT", "_HEADER"):
        assert internal not in shown
