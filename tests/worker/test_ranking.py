"""Logits become scores, and scores become a ranking."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.interface import Scoring
from worker.ranking import rank, scores

LABELS = ["fox", "bear", "owl"]


def test_softmax_scores_sum_to_one() -> None:
    values = scores(np.array([1, 2, 3], np.float32), "softmax")

    np.testing.assert_allclose(values, [0.09003057, 0.24472847, 0.66524096], rtol=1e-6)


def test_sigmoid_scores_are_independent_of_each_other() -> None:
    np.testing.assert_allclose(scores(np.array([-2, 0, 2], np.float32), "sigmoid"), [0.11920292, 0.5, 0.88079708])


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_extreme_logits_give_finite_scores(scoring: str) -> None:
    values = scores(np.array([-1e4, 0, 1e4], np.float32), scoring)  # type: ignore[arg-type]  # parametrised

    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (values <= 1).all()


def test_a_single_label_has_the_softmax_score_one() -> None:
    assert scores(np.array([-7], np.float32), "softmax").tolist() == [1.0]


def test_a_ranking_is_in_descending_order_of_scores() -> None:
    ranking = rank(LABELS, np.array([0.1, 0.7, 0.2]), None)

    assert [(item.label, item.score) for item in ranking] == [("bear", 0.7), ("owl", 0.2), ("fox", 0.1)]


def test_labels_with_equal_scores_keep_their_order() -> None:
    ranking = rank(["a", "b", "c", "d"], np.array([0.25, 0.25, 0.4, 0.25]), None)

    assert [item.label for item in ranking] == ["c", "a", "b", "d"]


@given(logits=st.lists(st.floats(-60, 60, width=32), min_size=2, max_size=40), top_k=st.integers(1, 40))
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_a_ranking_descends_keeps_the_order_of_equal_labels_and_top_k_takes_its_beginning(
    scoring: Scoring, logits: list[float], top_k: int
) -> None:
    values = scores(np.array(logits, np.float32), scoring)

    ranking = rank([str(number) for number in range(len(logits))], values, None)

    shown = [(-item.score, int(item.label)) for item in ranking]
    assert shown == sorted(shown)
    assert rank([item.label for item in ranking], np.array([item.score for item in ranking]), top_k) == ranking[:top_k]


def test_labels_whose_scores_would_be_equal_in_float32_are_ranked_by_their_exact_scores() -> None:
    ranking = rank(["a", "b"], scores(np.array([17.5, 25.0], np.float32), "sigmoid"), 1)

    assert [item.label for item in ranking] == ["b"]


def test_top_k_keeps_the_best_labels_with_their_scores_among_all_labels() -> None:
    ranking = rank(LABELS, scores(np.array([1, 2, 3], np.float32), "softmax"), 1)

    assert [item.label for item in ranking] == ["owl"]
    assert ranking[0].score == pytest.approx(0.66524096)
