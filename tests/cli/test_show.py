"""How a terminal shows scores, times and texts from outside."""

import io

import pytest
from rich.console import Console

from producer.cli.failures import printable
from producer.cli.show import BAR_CELLS, MAX_ROWS, bar, percent, print_result
from producer.contract.result import ImageInfo, Result, Score, Timings


def shown(*scores: Score, batch_size: int = 1) -> list[str]:
    image = ImageInfo("0", 1, 1, "PNG", 9)
    result = Result(list(scores), "m", None, image, batch_size, Timings(None, 1, 2, 3, 4))
    text = io.StringIO()
    print_result(Console(file=text, width=80), "owl.png", result)
    return text.getvalue().splitlines()


@pytest.mark.parametrize(
    ("score", "text"), [(1.0, "100.0 %"), (0.1234, "12.3 %"), (0.0005, "0.1 %"), (0.0004, "<0.1 %"), (0.0, "0.0 %")]
)
def test_a_score_above_zero_is_never_shown_as_zero(score: float, text: str) -> None:
    assert percent(score) == text


def test_bars_are_exact_to_an_eighth_of_a_cell() -> None:
    assert bar(1, unicode=True) == "█" * BAR_CELLS
    assert bar(0.5 / BAR_CELLS, unicode=True) == "▌"
    assert bar(0, unicode=True) == ""
    assert bar(0.5, unicode=False) == "#" * (BAR_CELLS // 2)


def test_a_long_ranking_is_shortened_with_a_note() -> None:
    lines = shown(*(Score(f"label {number}", 0.01) for number in range(100)))

    assert sum("label" in line for line in lines) == MAX_ROWS
    assert "  … and 85 more (--json prints all)" in lines


def test_without_a_send_time_no_time_in_the_queue_is_shown() -> None:
    assert "  ms: fetch 1.0 · decode 2.0 · wait 3.0 · forward 4.0 · batch of 1" in shown(Score("owl", 1))


def test_an_answer_without_a_forward_pass_is_marked_as_a_known_picture() -> None:
    assert shown(Score("owl", 1), batch_size=0)[-2].endswith(" · known picture")


def test_labels_are_text_and_never_markup() -> None:
    assert any(line.startswith("  [red]owl[/red]  ") for line in shown(Score("[red]owl[/red]", 1)))


def test_control_characters_in_texts_never_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c"
