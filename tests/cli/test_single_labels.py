"""The command warns of a single label, to which most models give 100 %."""

import pytest

from tests.cli.command import Home

URL = "https://images.example/owl.jpg"


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (["-l", "car,tree"], "for each of its parts, give -l car -l tree."),
        (["-l", "a, b, c c, d"], "for each of its parts, give -l a -l b -l 'c c' …."),
        (["-l", "car"], "give others to compare it with."),
    ],
)
def test_a_single_label_causes_a_warning(labels: list[str], advice: str, with_valkey: Home) -> None:
    done = with_valkey.run("submit", URL, *labels)

    assert done.status == 0
    assert f"is the only label, and most models give a single one 100 %; {advice}" in done.sentence


def test_several_labels_with_commas_cause_no_warning(with_valkey: Home) -> None:
    assert with_valkey.run("submit", URL, "-l", "red, white", "-l", "blue").err == ""
