"""What jobs share is checked and written once, and each message is as if it had been written alone."""

import pytest

from producer import ClassifyJob, Question
from producer.contract.job import ClassifyManyJob
from producer.errors import InvalidJob
from producer.messages.envelope import canonical_json
from producer.messages.forms import QuestionJson, question_json_of_one
from tests.client.caseless import Caseless

URL = 'https://images.example/a"b\\c/フクロウ.jpg?image=null'
QUESTIONS = [
    Question(["fox"]),
    Question(["fox", "フクロウ", 'a "quoted" \\ label'], ["a {}", 'the "{}"'], top_k=1, download_timeout=2.5),
    # Labels that look like the place where the image goes.
    Question(['"image":null', '\\"image":null', '"images":null', '{"image":null,'], ['{},"image":null']),
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_filled_form_is_the_jobs_own_arguments(question: Question) -> None:
    one, many = ClassifyJob(URL, question), ClassifyManyJob([URL, "http://x"], question)

    assert QuestionJson.blank(question, "image").filled(one.image) == canonical_json(one.to_kwargs())
    assert QuestionJson.blank(question, "images").filled(many.images) == canonical_json(many.to_kwargs())


def test_an_equal_question_is_written_once() -> None:
    first = question_json_of_one(["fox", "owl"], "a {}", 1, 2.5)

    assert question_json_of_one(["fox", "owl"], "a {}", 1, 2.5) is first
    assert question_json_of_one(["owl", "fox"], "a {}", 1, 2.5) != first


def test_a_question_in_a_callers_own_strings_is_written_as_they_are() -> None:
    for labels, template in ((["Fox", "Owl"], "A {}"), (["FOX", "OWL"], "a {}")):
        form = question_json_of_one(list(map(Caseless, labels)), Caseless(template), 1, 2.5)

        assert form == QuestionJson.blank(Question(labels, [template], top_k=1, download_timeout=2.5), "image")


@pytest.mark.parametrize("template", [None, 7, {"a {}"}, b"a {}"])
def test_what_is_no_template_is_named(template: object) -> None:
    with pytest.raises(InvalidJob, match="hypothesis_template"):
        question_json_of_one(["fox"], template, None, None)
