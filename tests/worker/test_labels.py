"""The label cache: each prompt is embedded once, whatever questions it appears in."""

import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import pytest
from numpy.typing import NDArray

from producer.contract import Question
from producer.errors import JobFailed
from tests.chaos.null_model import NullModel
from worker.cancel_scope import CancelScope
from worker.delivery.fairness import WEIGHTS
from worker.engine import LocalEngine
from worker.labels import LabelCache

Vector = NDArray[np.float32]


class Tower:
    """A text tower that turns a prompt into a unit vector, and remembers what it was asked."""

    max_tokens = 10

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held: list[tuple[str, Future[Vector]]] = []
        self.hold = False

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        return [len(prompt.split()) + 2 for prompt in prompts]

    def embed_prompt(self, prompt: str) -> Future[Vector]:
        self.asked.append(prompt)
        future: Future[Vector] = Future()
        if self.hold:
            self.held.append((prompt, future))
        else:
            future.set_result(vector(prompt))
        return future


def vector(prompt: str) -> Vector:
    values = np.random.default_rng(list(prompt.encode())).normal(size=8).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values))


def soon() -> CancelScope:
    return CancelScope(time.monotonic() + 10)


def test_the_matrix_has_one_row_per_label_in_order() -> None:
    cache = LabelCache(Tower())

    matrix = cache.request(Question(["owl", "fox"], ["a {}"]))(soon())

    np.testing.assert_array_equal(matrix, [vector("a owl"), vector("a fox")])


def test_a_prompt_is_embedded_once_for_all_questions() -> None:
    tower = Tower()
    cache = LabelCache(tower)

    cache.request(Question(["owl", "fox"]))(soon())
    cache.request(Question(["fox", "bear"]))(soon())
    cache.request(Question(["owl", "fox"]))(soon())

    assert tower.asked == [f"This is a photo of {label}." for label in ("owl", "fox", "bear")]


def test_two_jobs_that_ask_at_once_share_one_embedding() -> None:
    tower = Tower()
    tower.hold = True
    cache = LabelCache(tower)

    first, second = cache.request(Question(["owl"])), cache.request(Question(["owl"]))
    [(prompt, future)] = tower.held
    future.set_result(vector(prompt))

    np.testing.assert_array_equal(first(soon()), second(soon()))


def test_a_template_ensemble_is_the_normalised_mean_of_the_normalised_embeddings() -> None:
    matrix = LabelCache(Tower()).request(Question(["owl", "fox"], ["a {}", "the {}", "{}!"]))(soon())

    mean = np.mean([vector("a fox"), vector("the fox"), vector("fox!")], axis=0)
    np.testing.assert_allclose(matrix[1], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_label_longer_than_the_model_reads_is_refused_by_name_and_numbers() -> None:
    with pytest.raises(JobFailed) as caught:
        LabelCache(Tower()).request(Question(["owl", "a b c d e f g"], ["this is {}."]))

    assert caught.value.code == "invalid_job"
    assert "'a b c d e f g'" in caught.value.message
    assert "11 tokens" in caught.value.message
    assert "reads 10" in caught.value.message


def test_nothing_of_a_refused_question_reaches_the_tower() -> None:
    tower = Tower()

    with pytest.raises(JobFailed):
        LabelCache(tower).request(Question(["owl", "a b c d e f g h i"]))

    assert tower.asked == []


def test_labels_that_do_not_arrive_in_time_fail_the_job_not_the_cache() -> None:
    tower = Tower()
    tower.hold = True
    cache = LabelCache(tower)
    late = cache.request(Question(["owl"]))

    with pytest.raises(JobFailed, match="deadline_exceeded"):
        late(CancelScope(time.monotonic() - 1))
    prompt, future = tower.held[0]
    future.set_result(vector(prompt))

    np.testing.assert_array_equal(cache.request(Question(["owl"]))(soon()), [vector("This is a photo of owl.")])


def test_a_failed_embedding_is_not_remembered() -> None:
    tower = Tower()
    tower.hold = True
    cache = LabelCache(tower)
    failed = cache.request(Question(["owl"]))
    tower.held[0][1].set_exception(JobFailed("out_of_memory", "x"))

    with pytest.raises(JobFailed, match="out_of_memory"):
        failed(soon())
    cache.request(Question(["owl"]))

    assert len(tower.asked) == 2


def test_an_embedding_that_is_kept_does_not_keep_those_it_was_computed_with() -> None:
    engine = LocalEngine(NullModel(), max_batch=8, weights=WEIGHTS, on_device_lost=lambda: None)

    assert engine.embed_prompt("owl").result(10).base is None
    engine.close()
