"""Pictures in terminals: what each kind of terminal shows, and that other outputs get only text."""

import base64
import io
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from producer.cli.thumbnail import COLUMNS, ROWS, draw, drawing_method
from producer.demo.gallery import FOLDER
from producer.errors import UsageError
from tests.cli.command import Home
from tests.cli.terminal import QUESTION, on_a_terminal, sixel_pixels

#: Prints an answer as `nameshot classify` does, without a worker.
PROGRAM = """
import sys
from producer.cli import output
from producer.cli.show import print_result
from producer.cli.thumbnail import draw, drawing_method
from producer.contract.result import ImageInfo, Result, Score, Timings

show = {"": None, "--show": True, "--no-show": False}[sys.argv[2]]
scores = [Score("owl", 0.75), Score("fox", 0.25)]
result = Result(scores, "m", None, ImageInfo("0", 1, 1, "PNG", 9), 1, Timings(None, 1, 2, 3, 4))
console = output.console()
method = drawing_method(console, [sys.argv[1]], show=show)
print_result(console, "the title", result, draw(console, sys.argv[1], method) if method else None)
"""
XTERM = {"TERM": "xterm"}
SIXEL = b"\x1b[?62;4;9;22c"
NO_GRAPHICS = b"\x1b[?6c"
#: The bytes with which a picture begins in each protocol.
BEGINNINGS = {"kitty": b"\x1b_G", "iterm": b"\x1b]1337;File=", "sixel": b"\x1bP"}
OWL = FOLDER / "owl.png"


def shown(
    home: Home, *, image: object = OWL, option: str = "", attributes: bytes | None = NO_GRAPHICS, **environment: str
) -> bytes:
    command = [sys.executable, "-c", PROGRAM, str(image), option]
    variables = {"TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}
    status, shown = on_a_terminal(home, command, variables, attributes=attributes)
    assert status == 0, shown
    assert b"the title" in shown
    return shown


def drawn(output: bytes) -> list[str]:
    return [name for name, beginning in BEGINNINGS.items() if beginning in output] + ["blocks"] * (
        "▀" in output.decode()
    )


@pytest.mark.parametrize(
    ("protocol", "environment", "attributes"),
    [
        ("kitty", {"TERM": "xterm-kitty"}, None),
        ("kitty", {"TERM": "xterm-ghostty"}, None),
        ("iterm", {"TERM_PROGRAM": "iTerm.app"}, None),
        ("iterm", {"TERM_PROGRAM": "WezTerm"}, None),
        ("iterm", {"LC_TERMINAL": "iTerm2"}, None),
        ("sixel", {}, SIXEL),
        ("sixel", {"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/default,1,0", "TERM_PROGRAM": "iTerm.app"}, SIXEL),
        ("sixel", {}, b"x" + SIXEL),
    ],
)
def test_a_terminal_with_graphics_shows_the_picture_beside_the_bars(
    protocol: str, environment: dict[str, str], attributes: bytes | None, home: Home
) -> None:
    output = shown(home, attributes=attributes, **environment)

    assert drawn(output) == [protocol]
    # The command queries a terminal only if the terminal's name does not imply its protocol.
    assert (QUESTION in output) is (protocol == "sixel")
    before, _, rest = output.partition(f"\x1b[{ROWS}A\x1b7".encode() + BEGINNINGS[protocol])
    assert before.replace(QUESTION, b"").replace(attributes or b"", b"") == b"\r\n" * ROWS
    text = rest.partition(b"\x1b8")[2].split(b"\r\n")
    assert all(line.startswith(f"\r\x1b[{COLUMNS + 2}C".encode()) for line in text[:4])
    assert text[4:] == [b""] * (ROWS - 4 + 2)


@pytest.mark.parametrize(
    ("attributes", "environment"),
    [(NO_GRAPHICS, {}), (None, {}), (b"\x1b[?1;2;44c", {}), (SIXEL, {"TERM": "dumb"}), (SIXEL, {"CI": "true"})],
)
def test_a_terminal_without_graphics_gets_text_and_blocks_only_with_the_option_show(
    attributes: bytes | None, environment: dict[str, str], home: Home
) -> None:
    began_s = time.monotonic()

    output = shown(home, attributes=attributes, **environment)

    assert drawn(output) == []
    assert time.monotonic() - began_s < 30
    assert (QUESTION in output) is (not environment)
    asked_for = shown(home, option="--show", attributes=attributes, **environment)
    assert drawn(asked_for) == ([] if environment else ["blocks"])


def test_with_no_show_the_command_neither_queries_the_terminal_nor_draws(home: Home) -> None:
    output = shown(home, option="--no-show", attributes=SIXEL)

    assert drawn(output) == []
    assert QUESTION not in output


def test_a_url_or_a_file_that_is_no_picture_is_not_drawn(home: Home) -> None:
    (home.folder / "no picture.png").write_text("no picture")

    assert QUESTION not in shown(home, image="http://example.com/owl.png", option="--show", attributes=SIXEL)
    assert drawn(shown(home, image="no picture.png", option="--show", attributes=SIXEL)) == []


def test_text_that_the_user_typed_meanwhile_is_left_for_the_shell(home: Home) -> None:
    program = f'"$0" -c "$1" {OWL} ""; read line; echo "the shell got $line"'
    bash = shutil.which("bash")
    assert bash

    _, output = on_a_terminal(
        home, [bash, "-c", program, sys.executable, PROGRAM], XTERM, attributes=SIXEL, typed=b"ls -l\n"
    )

    assert b"the shell got ls -l" in output


def test_the_terminal_does_not_stop_a_command_in_the_background(home: Home) -> None:
    bash = shutil.which("bash")
    assert bash

    status, output = on_a_terminal(
        home,
        [bash, "-mc", f'"$0" -c "$1" {OWL} "" & wait $!', sys.executable, PROGRAM],
        XTERM,
        attributes=SIXEL,
    )

    assert (status, drawn(output), QUESTION in output) == (0, [], False)
    assert b"the title" in output


def test_a_pipe_gets_text_whatever_the_environment_says(home: Home) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, OWL, "--show"],
        env={**home.environment, "TERM": "xterm-kitty", "TERM_PROGRAM": "iTerm.app", "FORCE_COLOR": "1"},
        capture_output=True,
        check=True,
    )

    assert drawn(done.stdout) == []


def test_without_pillow_only_the_option_show_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)

    assert drawing_method(Console(), [str(OWL)], show=None) is None
    with pytest.raises(UsageError, match=r"^--show needs Pillow; install nameshot\[images\]\.$"):
        drawing_method(Console(), [str(OWL)], show=True)


def drawing(image: Path, method: str) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=100)
    thumbnail = draw(console, str(image), method)  # type: ignore[arg-type]  # a parameter of the test
    assert thumbnail
    return thumbnail.drawing


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """A wide picture whose left half is red and whose right half is blue."""
    image = Image.new("RGB", (64, 32), (255, 0, 0))
    image.paste((0, 0, 255), (32, 0, 64, 32))
    image.save(tmp_path / "halves.png")
    return tmp_path / "halves.png"


def test_each_protocol_carries_the_picture(halves: Path) -> None:
    kitty = drawing(halves, "kitty")
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty)
    assert "".join(f"\x1b_G{options};{data}\x1b\\" for options, data in parts) == kitty
    assert parts[0][0] == f"a=T,f=100,q=2,C=1,c={COLUMNS},m={int(len(parts) > 1)}"
    beginning = rf"\x1b\]1337;File=inline=1;width={COLUMNS};height={ROWS // 2}:"
    iterm = re.fullmatch(rf"{beginning}(.*)\a", drawing(halves, "iterm"))
    assert iterm
    for data in ("".join(data for _, data in parts), iterm[1]):
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (160, 80)
            assert (image.getpixel((10, 10)), image.getpixel((150, 70))) == ((255, 0, 0), (0, 0, 255))
    sixel = sixel_pixels(drawing(halves, "sixel"))
    assert (sixel[10, 10], sixel[150, 70], len(sixel)) == ((100, 0, 0), (0, 0, 100), 160 * 80)


def test_blocks_have_an_upper_and_a_lower_colour(tmp_path: Path) -> None:
    image = Image.new("RGB", (COLUMNS, 2 * ROWS), (255, 0, 0))
    image.paste((0, 0, 255), (0, 1, COLUMNS, 2))
    image.save(tmp_path / "stripes.png")

    first, *others = drawing(tmp_path / "stripes.png", "blocks").split("\n")[:ROWS]

    assert first.count("\x1b[38;2;255;0;0;48;2;0;0;255m▀") == COLUMNS
    assert [line.count("\x1b[38;2;255;0;0;48;2;255;0;0m▀") for line in others] == [COLUMNS] * (ROWS - 1)


def test_a_picture_in_many_colours_survives_sixel() -> None:
    pixels = sixel_pixels(drawing(FOLDER / "owl.png", "sixel"))
    with Image.open(FOLDER / "owl.png") as image:
        small = image.convert("RGB").resize((160, 160))

    errors = [
        abs(share * 2.55 - value)
        for (x, y), shares in pixels.items()
        for share, value in zip(shares, small.getpixel((x, y)), strict=True)  # type: ignore[arg-type]  # RGB
    ]

    assert sum(errors) / len(errors) < 8
