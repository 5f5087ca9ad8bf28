"""The label cache embeds each prompt once, in whichever jobs it occurs."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from producer.contract.job import Question
from producer.errors import JobFailed
from tests.chaos.null_model import NullModel
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.embeddings.label_cache import LabelCache
from worker.embeddings.reading import MAX_REQUESTED, Matrix
from worker.engine.batch_queue import BatchResult
from worker.engine.interface import Engine
from worker.engine.local import LocalEngine

Vector = NDArray[np.float32]


class Tower:
    """A text tower that turns a prompt into a unit vector, and records the prompts."""

    max_tokens = 10
    keeps_suspects_apart = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held: list[tuple[str, Future[BatchResult[Vector]]]] = []
        self.hold = False

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:  # noqa: ARG002 - the interface has it
        return [len(prompt.split()) + 2 for prompt in prompts]

    def embed_prompt(self, prompt: str, scope: CancelScope) -> Future[BatchResult[Vector]]:  # noqa: ARG002 - the interface has it
        self.asked.append(prompt)
        future: Future[BatchResult[Vector]] = Future()
        if self.hold:
            self.held.append((prompt, future))
        else:
            future.set_result(result(prompt))
        return future

    def answer_from_now_on(self) -> None:
        self.hold = False
        while self.held:
            prompt, future = self.held.pop()
            if future.set_running_or_notify_cancel():
                future.set_result(result(prompt))


def labels_of(tower: Tower) -> LabelCache:
    """Return a label cache with the tower as its engine, of which it uses no other part."""
    return LabelCache(cast(Engine, tower))


def vector(prompt: str) -> Vector:
    values = np.random.default_rng(list(prompt.encode())).normal(size=8).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values))


def result(prompt: str) -> BatchResult[Vector]:
    return BatchResult(vector(prompt), batch_size=1, wait_ms=0.0, run_ms=0.0)


def soon() -> CancelScope:
    return CancelScope(time.monotonic() + 10)


def ask(cache: LabelCache, question: Question) -> Matrix:
    """Return the matrix of a job with a deadline of ten seconds."""
    with cache.request(question, soon()) as matrix:
        return matrix()


def test_the_matrix_has_one_row_per_label_in_order() -> None:
    matrix = ask(labels_of(Tower()), Question(["owl", "fox"], ["a {}"]))

    np.testing.assert_array_equal(matrix, [vector("a owl"), vector("a fox")])


def test_a_prompt_is_embedded_once_for_all_jobs() -> None:
    tower = Tower()
    cache = labels_of(tower)

    ask(cache, Question(["owl", "fox"]))
    ask(cache, Question(["fox", "bear"]))
    ask(cache, Question(["owl", "fox"]))

    assert tower.asked == [f"This is a photo of {label}." for label in ("owl", "fox", "bear")]


def test_two_simultaneous_jobs_share_the_embedding_of_a_prompt() -> None:
    tower = Tower()
    tower.hold = True
    cache = labels_of(tower)

    with cache.request(Question(["owl"]), soon()) as first, cache.request(Question(["owl"]), soon()) as second:
        [(prompt, future)] = tower.held
        future.set_result(result(prompt))

        np.testing.assert_array_equal(first(), second())


def test_a_template_ensemble_is_the_normalised_mean_of_the_normalised_embeddings() -> None:
    matrix = ask(labels_of(Tower()), Question(["owl", "fox"], ["a {}", "the {}", "{}!"]))

    mean = np.mean([vector("a fox"), vector("the fox"), vector("fox!")], axis=0)
    np.testing.assert_allclose(matrix[1], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_label_that_is_too_long_for_the_model_is_refused_with_its_length_and_the_maximum() -> None:
    with pytest.raises(JobFailed) as caught:
        ask(labels_of(Tower()), Question(["owl", "a b c d e f g"], ["this is {}."]))

    assert caught.value.code == "invalid_job"
    assert "'a b c d e f g'" in caught.value.message
    assert "11 tokens" in caught.value.message
    assert "reads 10" in caught.value.message


def test_no_prompt_of_a_refused_job_reaches_the_tower() -> None:
    tower = Tower()

    with pytest.raises(JobFailed):
        ask(labels_of(tower), Question([*map(str, range(MAX_REQUESTED)), "a b c d e f g h i"]))

    assert tower.asked == []


def test_a_deadline_for_labels_fails_its_job_but_no_other_job_with_the_same_labels() -> None:
    tower = Tower()
    tower.hold = True
    cache = labels_of(tower)
    scope = soon()
    with cache.request(Question(["owl"]), scope) as late, cache.request(Question(["owl"]), soon()) as in_time:
        scope.deadline_s = time.monotonic()
        with pytest.raises(JobFailed, match="deadline_exceeded"):
            late()
        prompt, future = tower.held[0]
        future.set_result(result(prompt))

        np.testing.assert_array_equal(in_time(), [vector("This is a photo of owl.")])


def test_a_failed_embedding_is_not_cached() -> None:
    tower = Tower()
    tower.hold = True
    cache = labels_of(tower)
    with cache.request(Question(["owl"]), soon()) as failed:
        tower.held[0][1].set_exception(JobFailed("out_of_memory", "x"))

        with pytest.raises(JobFailed, match="out_of_memory"):
            failed()
    with cache.request(Question(["owl"]), soon()):
        pass

    assert len(tower.asked) == 2


def test_the_number_of_waiting_prompts_of_a_large_ensemble_is_bounded() -> None:
    tower = Tower()
    tower.hold = True
    question = Question([str(number) for number in range(50)], [f"{number} {{}}" for number in range(50)])

    with labels_of(tower).request(question, soon()) as matrix:
        assert len(tower.asked) == MAX_REQUESTED
        tower.answer_from_now_on()
        rows = matrix()

    assert len(tower.asked) == 50 * 50
    mean = np.mean([vector(f"{number} 49") for number in range(50)], axis=0)
    np.testing.assert_allclose(rows[49], mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("end", ["cancelled", "over its deadline", "without its image"])
def test_the_waiting_prompts_of_a_job_that_ends_are_withdrawn_unless_another_job_needs_them(end: str) -> None:
    tower = Tower()
    tower.hold = True
    cache = labels_of(tower)
    scope = soon()
    many = Question(["fox", *map(str, range(2 * MAX_REQUESTED))])

    with cache.request(Question(["owl", "fox"]), soon()) as others:
        with suppress(Cancelled, JobFailed), cache.request(many, scope) as matrix:
            if end == "cancelled":
                scope.cancel()
            if end == "over its deadline":
                scope.deadline_s = time.monotonic()
            if end == "without its image":
                raise JobFailed("http_status", "404")
            matrix()
        waiting = [prompt for prompt, future in tower.held if not future.cancelled()]
        assert waiting[:3] == ["This is a photo of owl.", "This is a photo of fox."]
        tower.answer_from_now_on()

        assert others().shape == (2, 8)
    assert len(tower.asked) == 1 + MAX_REQUESTED  # "fox" is embedded once for both jobs


def test_a_withdrawn_prompt_is_requested_again_for_a_later_job() -> None:
    tower = Tower()
    tower.hold = True
    cache = labels_of(tower)
    with cache.request(Question(["owl"]), soon()):
        pass
    tower.hold = False

    np.testing.assert_array_equal(ask(cache, Question(["owl"])), [vector("This is a photo of owl.")])


def test_a_prompt_s_embedding_does_not_keep_its_batch_in_memory() -> None:
    engine = LocalEngine(NullModel(), max_batch=8, on_device_lost=lambda: None)

    assert engine.embed_prompt("owl").result(10).output.base is None
    engine.close()
