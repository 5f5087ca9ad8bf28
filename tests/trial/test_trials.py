"""Trials without a queue: `nameshot compare` compares two checkpoints, `nameshot verify` one with the pipeline."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from producer.demo.gallery import FOLDER
from producer.errors import InvalidJob, UsageError
from tests.cli.command import Home
from tests.model.conftest import checkpoint
from worker.trial.trials import Choice, rankings, verdicts

__all__ = ["checkpoint"]

FILES = [FOLDER / "owl.png", FOLDER / "car.jpg"]
LABELS = ["a fox", "an owl", "a car"]
TEMPLATE = "This is a photo of {}."


def choice(model: Path) -> Choice:
    return Choice(str(model), None, "cpu", 50_000_000)


def test_two_checkpoints_rank_the_same_labels_by_different_scores(checkpoint: Callable[[str], Path]) -> None:
    first, second = (
        rankings(choice(checkpoint(family)), "float32", FILES, LABELS, [TEMPLATE]) for family in ("clip", "siglip")
    )

    for one, other in zip(first, second, strict=True):
        assert {label for label, _ in one} == {label for label, _ in other} == set(LABELS)
        assert [score for _, score in one] == sorted((score for _, score in one), reverse=True)
    assert first != second


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_checkpoint_equals_the_pipeline_in_float32_and_nearly_in_half_precision(
    family: str, checkpoint: Callable[[str], Path]
) -> None:
    exact, half = verdicts(choice(checkpoint(family)), FILES, LABELS, TEMPLATE, ["float32", "bfloat16"])

    assert exact.is_equal
    assert (exact.pictures, exact.scores) == (2, 6)
    assert exact.difference < half.difference < 0.2


def test_the_verdict_is_not_equal_for_a_picture_that_the_pipeline_decodes_differently(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    # The pipeline sees white where a pixel of 16 bits is above 255; see docs/equal-scores.md.
    Image.linear_gradient("L").convert("I").point(lambda value: value * 257).convert("I;16").save(tmp_path / "grey.png")

    (verdict,) = verdicts(choice(checkpoint("clip")), [tmp_path / "grey.png"], LABELS, TEMPLATE, ["float32"])

    assert not verdict.is_equal


def test_code_inside_a_checkpoint_is_not_run_and_the_user_is_not_asked_to_allow_it(
    home: Home, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint("clip"), tmp_path / "own-code")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    for name, kinds in (
        ("config.json", ("AutoConfig", "AutoModel", "AutoModelForZeroShotImageClassification")),
        ("preprocessor_config.json", ("AutoImageProcessor", "AutoProcessor")),
        ("tokenizer_config.json", ("AutoTokenizer",)),
    ):
        file = folder / name
        values = json.loads(file.read_text())
        values["auto_map"] = {kind: [None, "own.Own"] if kind == "AutoTokenizer" else "own.Own" for kind in kinds}
        file.write_text(json.dumps(values))

    user = home.with_settings(NAMESHOT_MODEL=str(folder), NAMESHOT_DEVICE="cpu")
    verified = user.run("verify", "-l", "an owl", "-l", "a car", "--json", input_text="y\n" * 9)

    assert "custom code" not in verified.out + verified.err
    assert not (tmp_path / "ran").exists()


def test_an_unusable_picture_checkpoint_or_label_is_reported_in_one_sentence(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    clip = choice(checkpoint("clip"))
    (tmp_path / "text.png").write_text("no picture")

    with pytest.raises(UsageError, match=r"is not a JPEG"):
        rankings(clip, "float32", [tmp_path / "text.png"], LABELS, [TEMPLATE])
    with pytest.raises(UsageError, match=r"cannot be read: No such file"):
        rankings(clip, "float32", [tmp_path / "missing.png"], LABELS, [TEMPLATE])
    with pytest.raises(UsageError, match=r"no-model"):
        rankings(choice(tmp_path / "no-model"), "float32", FILES, LABELS, [TEMPLATE])
    with pytest.raises(InvalidJob, match=r"tokens, but .* reads"):
        rankings(clip, "float32", FILES, ["fox " * 200], [TEMPLATE])


@pytest.mark.timeout(300)
def test_verify_prints_json_and_compare_prints_a_table(home: Home, checkpoint: Callable[[str], Path]) -> None:
    user = home.with_settings(NAMESHOT_MODEL=str(checkpoint("clip")), NAMESHOT_DEVICE="cpu")

    verified = user.run("verify", "--images", FOLDER, "-l", "an owl", "-l", "a car", "--json")
    compared = user.run("compare", checkpoint("clip"), checkpoint("siglip"), FILES[0], "-l", "an owl", "-l", "a car")

    assert (verified.status, [line["dtype"] for line in verified.json_lines]) == (0, ["float32", "bfloat16", "float16"])
    assert verified.json_lines[0]["equal"] is True
    assert compared.status == 0
    assert str(FILES[0]) in compared.out
    assert "(1)" in compared.out
    assert "Traceback" not in verified.err + compared.err


@pytest.mark.thorough  # loads two checkpoints in four processes
@pytest.mark.timeout(300)
def test_verify_and_compare_name_a_file_that_is_no_picture_and_leave_it_out(
    home: Home, checkpoint: Callable[[str], Path]
) -> None:
    user = home.with_settings(NAMESHOT_MODEL=str(checkpoint("clip")), NAMESHOT_DEVICE="cpu")
    folder = home.folder / "pictures"
    folder.mkdir()
    (folder / "a.png").write_text("no picture")
    (folder / "owl.png").write_bytes(FILES[0].read_bytes())
    labels = ("-l", "an owl", "-l", "a car", "--json")

    verified = user.run("verify", "--images", folder, *labels)
    models = (checkpoint("clip"), checkpoint("siglip"))
    compared = user.run("compare", *models, folder / "a.png", folder / "owl.png", "missing.png", *labels)

    assert (verified.status, verified.json_lines[0]["pictures"]) == (0, 1)
    assert verified.sentence.startswith(f"left out: '{folder}/a.png': the body is not a JPEG")
    assert (compared.status, [line["file"] for line in compared.json_lines]) == (0, [f"{folder}/owl.png"])
    assert (
        compared.err.splitlines()[1] == "nameshot: left out: 'missing.png' cannot be read: No such file or directory."
    )


def test_without_a_usable_picture_compare_is_refused_before_a_checkpoint_is_loaded(home: Home) -> None:
    done = home.run("compare", "no-model", "bundled", "a.png", "b.png", "-l", "an owl", "-l", "a car")

    assert done.status == 2
    assert done.err.splitlines()[-1] == "nameshot: none of the 2 pictures can be used."
    assert home.run("compare", "no-model", "bundled", "a.png", "-l", "x", "-l", "y").sentence == (
        "'a.png' cannot be read: No such file or directory."
    )


def test_verify_refuses_an_empty_and_a_missing_folder(home: Home) -> None:
    (home.folder / "empty").mkdir()

    assert "holds no pictures" in home.run("verify", "--images", "empty").sentence
    assert "is not a folder" in home.run("verify", "--images", "missing").sentence
