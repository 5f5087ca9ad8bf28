"""What a job may contain. Client and worker check jobs with the same functions."""

import json
import weakref
from enum import Enum

import pytest

from producer.contract import strict_json
from producer.contract.job import MAX_TOP_K, ClassifyJob, ClassifyManyJob, Question
from producer.contract.labels import DEFAULT_TEMPLATE, check_candidate_labels, fill
from producer.errors import InvalidJob
from producer.messages.envelope import canonical_json
from tests.client.caseless import Caseless

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "bear", "seagull", "owl"]


def refusal(**kwargs: object) -> str:
    message: dict[str, object] = {"image": URL, "candidate_labels": LABELS, **kwargs}
    with pytest.raises(InvalidJob) as caught:
        ClassifyJob.from_message((), message)
    return str(caught.value)


def test_a_job_needs_an_image_and_labels_and_nothing_else() -> None:
    job = ClassifyJob.from_message((), {"image": URL, "candidate_labels": LABELS})

    assert job.image == URL
    assert job.question == Question(LABELS, [DEFAULT_TEMPLATE], None, None)


def test_a_job_read_from_its_message_is_the_same_job() -> None:
    job = ClassifyJob(URL, Question(["a", "b"], ["{}!", "a {}"], top_k=1, download_timeout=2.5))

    assert ClassifyJob.from_message((), job.to_kwargs()) == job


def test_defaults_are_left_out_of_the_message() -> None:
    assert ClassifyJob(URL, Question(["a"])).to_kwargs() == {"image": URL, "candidate_labels": ["a"]}


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(InvalidJob, match="by name"):
        ClassifyJob.from_message((URL, LABELS), {})


@pytest.mark.parametrize("missing", ["image", "candidate_labels"])
def test_a_missing_argument_is_named(missing: str) -> None:
    message = {"image": URL, "candidate_labels": LABELS}
    del message[missing]

    with pytest.raises(InvalidJob, match=f"the argument {missing} is missing"):
        ClassifyJob.from_message((), message)


def test_an_unknown_argument_is_named() -> None:
    assert "'labels'" in refusal(labels=["fox"])


@pytest.mark.parametrize("image", [None, 7, b"http://x", ["http://x"], {"url": "http://x"}])
def test_an_image_that_is_no_string_is_refused(image: object) -> None:
    assert "image must be a URL string" in refusal(image=image)


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ("fox", "must be a list"),
        (None, "must be a list"),
        ([], "1 to 1,000"),
        ([f"label {n}" for n in range(1001)], "not 1,001"),
        (["fox", 3], "candidate_labels[1] must be a string, not int"),
        (["fox", True], "not bool"),
        (["fox", None], "not null"),
        (["fox", ["owl"]], "not list"),
        (["fox", "  "], "candidate_labels[1] is blank"),
        (["fox", ""], "is blank"),
        (["x" * 201], "201 characters"),
        (["fox", "bear", " fox "], "the same label as candidate_labels[0]"),
        (["caf\u00e9", "cafe\u0301"], "the same label"),
        (["a\x00b"], "U+0000"),
        (["a\nb"], "U+000A"),
        (["a\u202eb"], "U+202E"),
        (["a\u200bb"], "U+200B"),
        (["a\ufeffb"], "U+FEFF"),
        (["a\ud800b"], "U+D800"),
        (["a\u180eb"], "U+180E"),
        (["owl\U000e0067\U000e0062"], "U+E0067"),
        (["\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in "readme") + "\U000e0020"], "U+E0072"),
        (["\u2800"], "is blank"),
        (["\u2800 \ufe0f"], "is blank"),
        (["\u200d"], "is blank"),
        (["\U000e0100"], "is blank"),
        (["é" * 200 + str(n) for n in range(90)], "characters"),
        ([f"{n:03d}" + "é" * 197 for n in range(90)], "bytes together"),
    ],
)
def test_wrong_labels_are_refused_in_one_sentence(labels: object, part: str) -> None:
    sentence = refusal(candidate_labels=labels)

    assert part in sentence
    assert "\n" not in sentence


def flag(code: str) -> str:
    """Return the emoji of the flag of a country's subdivision."""
    return "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in code) + "\U000e007f"


@pytest.mark.parametrize(
    "label",
    [
        "owl",
        " owl",
        "フクロウ",
        "🦉",
        "👩‍🚀",
        "❤️",
        "می‌خواهم",
        "naïve café",
        "{} {0.__class__}",
        "a" * 200,
        *(flag(code) for code in ("gbeng", "gbsct", "gbwls", "ustx")),
        "\u1820\u180b\u1820\u180d",  # Mongolian letters with variation selectors
        "\u1820\u182c\u180e\u1820",
        "\u845b\U000e0100",  # an ideograph with a variation selector
        "\u2801\u2800\u2803",  # Braille with a space
    ],
)
def test_labels_in_any_script_are_kept_exactly_as_given(label: str) -> None:
    job = ClassifyJob.from_message((), {"image": URL, "candidate_labels": [label]})

    assert job.question.candidate_labels == [label]


def test_jobs_with_equal_labels_share_the_strings() -> None:
    first, second = (check_candidate_labels(json.loads('["a fox at night", "an owl at night"]')) for _ in range(2))

    assert first == second
    assert first is not second
    assert all(one is other for one, other in zip(first, second, strict=True))


def test_a_label_of_a_subclass_of_str_is_kept_as_its_plain_text() -> None:
    class Animal(str, Enum):  # noqa: UP042 - programs from before StrEnum write it so
        FOX = "fox of an enumeration"

    labels = check_candidate_labels([Animal.FOX])

    assert labels == ["fox of an enumeration"]
    assert type(labels[0]) is str


class Lazy:
    """An object that claims to be a string and equals one, but is none."""

    def __init__(self, text: str) -> None:
        self._text = text

    __class__ = str  # type: ignore[assignment]  # what proxies of other libraries do

    def __eq__(self, other: object) -> bool:
        return other == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def test_labels_of_a_caller_s_own_string_class_keep_their_text() -> None:
    assert check_candidate_labels([Caseless("Red Fox"), Caseless("Owl")]) == ["Red Fox", "Owl"]
    assert check_candidate_labels([Caseless("RED FOX"), Caseless("OWL")]) == ["RED FOX", "OWL"]


def test_a_caller_s_own_string_objects_are_not_kept_alive() -> None:
    label = Caseless("a fox of passing fame")
    alive = weakref.ref(label)

    check_candidate_labels([label])
    del label

    assert alive() is None


def test_an_object_that_only_equals_a_known_label_is_refused() -> None:
    check_candidate_labels(["a known fox"])

    for text in ("a known fox", "an unknown fox"):
        with pytest.raises(InvalidJob, match=r"candidate_labels\[0\] must be a string, not Lazy"):
            check_candidate_labels([Lazy(text)])


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("no placeholder", "exactly once, not 0"),
        ("{} and {}", "not 2"),
        ("", "blank"),
        (None, "string"),
        ([], "1 to 100"),
        (["{}", "nothing"], "hypothesis_template[1]"),
        (["{}", 1], "hypothesis_template[1]"),
    ],
)
def test_wrong_templates_are_refused(template: object, part: str) -> None:
    assert part in refusal(hypothesis_template=template)


def test_a_template_is_filled_by_replacement_and_not_as_a_format_string() -> None:
    assert fill("a {} of {0.__class__} {{", "{}") == "a {} of {0.__class__} {{"


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "3", True, [1]])
def test_a_top_k_that_is_no_positive_whole_number_is_refused(top_k: object) -> None:
    assert "top_k" in refusal(top_k=top_k)


def test_top_k_above_the_number_of_labels_means_all_of_them() -> None:
    assert Question.checked(LABELS, top_k=99).kept_scores == len(LABELS)


@pytest.mark.parametrize("top_k", [10**20, 10**4_500, -(10**4_500)], ids=["21 digits", "4501", "-4501"])
def test_a_top_k_that_no_worker_could_read_is_refused_in_a_short_sentence(top_k: int) -> None:
    sentence = refusal(top_k=top_k)

    assert sentence == "top_k must be 1 or more and less than 10**20, not a number of more than 20 digits."


def test_a_worker_can_read_the_largest_permitted_top_k() -> None:
    kwargs = ClassifyJob(URL, Question.checked(LABELS, top_k=MAX_TOP_K)).to_kwargs()

    assert strict_json.loads(canonical_json(kwargs).encode()) == kwargs
    with pytest.raises(strict_json.NotStrictJson):
        strict_json.loads(canonical_json({**kwargs, "top_k": MAX_TOP_K + 1}).encode())


@pytest.mark.parametrize("timeout", [0, -1, "3", True, float("nan"), float("inf"), 10**400])
def test_a_timeout_that_is_no_positive_number_of_seconds_is_refused(timeout: object) -> None:
    assert "timeout" in refusal(timeout=timeout)


@pytest.mark.parametrize("images", [[], "http://x", None, ["http://x", 3], [URL] * 65])
def test_a_bulk_message_without_1_to_64_urls_is_refused(images: object) -> None:
    with pytest.raises(InvalidJob, match="images"):
        ClassifyManyJob.from_message((), {"images": images, "candidate_labels": LABELS})


def test_a_bulk_message_whose_answer_would_be_too_large_is_refused_with_the_advice_to_set_top_k() -> None:
    message: dict[str, object] = {"images": [URL] * 64, "candidate_labels": [str(n) for n in range(1000)]}

    with pytest.raises(InvalidJob, match="set top_k"):
        ClassifyManyJob.from_message((), message)
    assert ClassifyManyJob.from_message((), {**message, "top_k": 5}).question.kept_scores == 5
