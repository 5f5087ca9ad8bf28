"""From logits to a ranking."""

import numpy as np
import pytest

from worker.ranking import rank, scores

LABELS = ["fox", "bear", "owl"]


def test_softmax_scores_sum_to_one() -> None:
    values = scores(np.array([1, 2, 3], np.float32), "softmax")

    np.testing.assert_allclose(values, [0.09003057, 0.24472847, 0.66524096], rtol=1e-6)


def test_sigmoid_scores_stand_for_themselves() -> None:
    np.testing.assert_allclose(scores(np.array([-2, 0, 2], np.float32), "sigmoid"), [0.11920292, 0.5, 0.88079708])


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_extreme_logits_give_finite_scores(scoring: str) -> None:
    values = scores(np.array([-1e4, 0, 1e4], np.float32), scoring)  # type: ignore[arg-type]  # parametrised

    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (values <= 1).all()


def test_one_label_gets_the_whole_softmax() -> None:
    assert scores(np.array([-7], np.float32), "softmax").tolist() == [1.0]


def test_the_ranking_is_descending() -> None:
    ranking = rank(LABELS, np.array([0.1, 0.7, 0.2]), None)

    assert [(item.label, item.score) for item in ranking] == [("bear", 0.7), ("owl", 0.2), ("fox", 0.1)]


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    ranking = rank(["a", "b", "c", "d"], np.array([0.25, 0.25, 0.4, 0.25]), None)

    assert [item.label for item in ranking] == ["c", "a", "b", "d"]


def test_top_k_keeps_the_best_with_scores_over_all_labels() -> None:
    ranking = rank(LABELS, scores(np.array([1, 2, 3], np.float32), "softmax"), 1)

    assert [item.label for item in ranking] == ["owl"]
    assert ranking[0].score == pytest.approx(0.66524096)
