"""The JSON that jobs share is checked and written once, and each message is the same as if it were written alone."""

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
    # Labels that look like the place of the image.
    Question(['"image":null', '\\"image":null', '"images":null', '{"image":null,'], ['{},"image":null']),
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_form_filled_with_an_image_is_the_json_of_the_job_s_arguments(question: Question) -> None:
    one, many = ClassifyJob(URL, question), ClassifyManyJob([URL, "http://x"], question)

    assert QuestionJson.blank(question, "image").filled(one.image) == canonical_json(one.to_kwargs())
    assert QuestionJson.blank(question, "images").filled(many.images) == canonical_json(many.to_kwargs())


def test_equal_questions_share_one_form() -> None:
    first = question_json_of_one(["fox", "owl"], "a {}", 1, 2.5)

    assert question_json_of_one(["fox", "owl"], "a {}", 1, 2.5) is first
    assert question_json_of_one(["owl", "fox"], "a {}", 1, 2.5) != first


def test_a_question_with_a_caller_s_own_strings_keeps_their_text() -> None:
    for labels, template in ((["Fox", "Owl"], "A {}"), (["FOX", "OWL"], "a {}")):
        form = question_json_of_one(list(map(Caseless, labels)), Caseless(template), 1, 2.5)

        assert form == QuestionJson.blank(Question(labels, [template], top_k=1, download_timeout=2.5), "image")


@pytest.mark.parametrize("template", [None, 7, {"a {}"}, b"a {}"])
def test_a_template_of_a_wrong_type_is_refused_by_name(template: object) -> None:
    with pytest.raises(InvalidJob, match="hypothesis_template"):
        question_json_of_one(["fox"], template, None, None)
