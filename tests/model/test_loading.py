"""A checkpoint is loaded silently, or refused in one sentence that says what is wrong and what to do."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.model.checkpoints import SMALL
from worker.model import Model, load_model
from worker.model.families import FAMILIES, REFUSED
from worker.model.interface import Logits, ModelError, ModelLoadError


@pytest.fixture
def broken(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a copy of a working CLIP checkpoint for a test to break."""
    return Path(shutil.copytree(checkpoint("clip"), tmp_path / "broken"))


def refusal(model: str | Path, **settings: Any) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_model(str(model), **{"device": "cpu", **settings})
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 450
    return sentence


def test_a_model_has_its_name_revision_device_dtype_family_and_scoring(
    loaded: Callable[[str], Model], device: str
) -> None:
    clip, siglip = loaded("clip"), loaded("siglip2")
    assert (clip.name, clip.revision, clip.device, clip.dtype) == ("clip", None, device, "float32")
    assert (clip.family, clip.scoring) == ("clip", "softmax")
    assert (siglip.family, siglip.scoring) == ("siglip2", "sigmoid")


def test_every_family_of_the_pipeline_is_supported_or_refused_by_name() -> None:
    from transformers.models.auto import modeling_auto

    theirs = modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    ours = {name: family.architecture for name, family in FAMILIES.items() if name != "vision-text-dual-encoder"}
    assert ours == {name: theirs[name] for name in theirs if name not in REFUSED}
    assert set(REFUSED) <= set(theirs)


def test_loading_and_running_prints_nothing(checkpoint: Callable[[str], Path]) -> None:
    """In a process of its own, because there Transformers writes to the terminal as in any other program."""
    code = """
import sys
import torch
from worker.model import load_model
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    model = load_model(folder, device="cpu")
    model.warm_up()
    model.count_tokens(["far too long " * 300])
"""
    folders = [str(checkpoint(family)) for family in ("blip", "siglip", "align", "tipsv2")]
    program = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, check=True)
    assert (program.stdout, program.stderr) == (b"", b"")


def test_importing_the_package_loads_neither_pytorch_nor_transformers() -> None:
    code = "import sys, worker.model; print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"


@pytest.mark.parametrize("family", SMALL)
def test_bfloat16_gives_nearly_the_logits_of_float32(
    family: str, checkpoint: Callable[[str], Path], loaded: Callable[[str], Model], device: str
) -> None:
    half, full = load_model(str(checkpoint(family)), device=device, dtype="bfloat16"), loaded(family)
    assert half.dtype == "bfloat16"
    image = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 20).convert("RGB")
    logits = []
    for model in (half, full):
        [vector] = model.embed_images([model.prepare(image)])
        logits.append(model.logits(vector, model.embed_texts(["a fox", "two owls in a tree"])))
    assert logits[0].dtype == np.float32
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.5


def test_warm_up_refuses_a_checkpoint_whose_parts_do_not_fit(broken: Path, device: str) -> None:
    change(broken / "preprocessor_config.json", size={"shortest_edge": 40}, crop_size={"height": 40, "width": 40})
    model = load_model(str(broken), device=device)
    with pytest.raises(ModelLoadError, match=r"'broken' loads but does not run.*32\*32"):
        model.warm_up()


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer_config.json", {"model_max_length": "x"}),
        ("preprocessor_config.json", {"rescale_factor": "x"}),
    ],
)
def test_a_wrong_value_that_fails_only_in_use_is_refused_by_the_warm_up_at_the_latest(
    broken: Path, file: str, values: Any
) -> None:
    change(broken / file, **values)
    with pytest.raises(ModelLoadError, match=r"cannot be used|loads but does not run"):
        load_model(str(broken), device="cpu").warm_up()


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("/there/is/no/such/folder", "no folder '/there/is/no/such/folder'"),
        ("./nothing", "no folder './nothing'"),
        (" ", "no model is named"),
        ("openai/clip vit", "neither a folder here nor a possible Hub id"),
    ],
)
def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_refused(name: str, part: str) -> None:
    assert part in refusal(name)


def test_a_wrong_name_is_refused_before_pytorch_is_loaded() -> None:
    program = """
import sys
from worker.model import load_model
from worker.model.interface import ModelLoadError
try:
    load_model("/there/is/no/such/folder")
except ModelLoadError:
    assert not {"torch", "transformers"} & set(sys.modules)
else:
    raise AssertionError("it was loaded")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_file_in_place_of_a_folder_is_refused(broken: Path) -> None:
    assert "is a file" in refusal(broken / "config.json")


def test_a_revision_for_a_folder_is_refused(broken: Path) -> None:
    assert "'v1'" in refusal(broken, revision="v1")


@pytest.mark.parametrize(
    ("missing", "part"),
    [
        ("config.json", "holds no config.json"),
        ("model.safetensors", "the weights of model"),
        ("tokenizer.json", "the checkpoint lacks its tokenizer files"),
        ("preprocessor_config.json", "the image processor of model"),
    ],
)
def test_a_folder_without_one_of_its_files_is_refused(broken: Path, missing: str, part: str) -> None:
    (broken / missing).unlink()
    assert part in refusal(broken)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_damaged_file_is_refused(broken: Path, file: str) -> None:
    (broken / file).write_bytes((broken / file).read_bytes()[:100])
    assert str(broken) in refusal(broken)


def test_a_checkpoint_that_lacks_weights_is_refused(broken: Path) -> None:
    """Transformers would draw the missing weights at random, warn, and classify."""
    weights = load_file(broken / "model.safetensors")
    del weights["text_projection.weight"], weights["visual_projection.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 2 of the weights of a CLIPModel (first 'text_projection.weight')" in refusal(broken)


def test_weights_of_another_shape_are_refused(broken: Path) -> None:
    change(broken / "config.json", projection_dim=12)
    assert "weights" in refusal(broken)


@pytest.mark.parametrize(
    ("model_type", "part"),
    [
        ("videoprism", "it classifies videos, not single images"),
        (
            "bert",
            "type 'bert', which does not classify images zero-shot: choose a model of one of the types align, altclip",
        ),
        ("nonsense", "`nonsense`"),
    ],
)
def test_a_model_that_does_not_classify_images_zero_shot_is_refused(broken: Path, model_type: str, part: str) -> None:
    (broken / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert part in refusal(broken)


def test_code_in_a_checkpoint_is_never_run(broken: Path) -> None:
    trace = broken / "it-ran"
    (broken / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Config: pass\n")
    everything = dict.fromkeys(("AutoConfig", "AutoTokenizer", "AutoImageProcessor"), "evil.Config")
    (broken / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": everything}))
    assert "configuration" in refusal(broken)
    assert not trace.exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "mps", ""])
def test_an_unknown_device_is_refused(broken: Path, device: str) -> None:
    assert f"no device {device!r}: use auto, cpu, cuda or cuda:N" in refusal(broken, device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_this_machine_lacks_is_refused(broken: Path, device: str) -> None:
    import torch

    if torch.cuda.is_available():
        device = f"cuda:{torch.cuda.device_count()}"
    assert repr(device) in refusal(broken, device=device)


def test_an_unknown_dtype_is_refused(broken: Path) -> None:
    assert "no dtype 'int8': use auto, float32, float16, bfloat16" in refusal(broken, dtype="int8")


@pytest.mark.parametrize("parameter", ["logit_scale", "logit_bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_scale_or_bias_that_makes_every_score_nan_is_refused(
    parameter: str, value: float, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(checkpoint("siglip"), folder)
    weights = load_file(folder / "model.safetensors")
    weights[parameter] = np.full_like(weights[parameter], value)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    assert "both must be finite numbers" in refusal(folder)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["clip", "siglip", "align"])
def test_the_scale_and_the_bias_stay_exact_in_half_precision(
    family: str, dtype: str, checkpoint: Callable[[str], Path]
) -> None:
    exact, half = (load_model(str(checkpoint(family)), device="cpu", dtype=each).logits for each in ("float32", dtype))

    assert (half.scale, half.bias) == (exact.scale, exact.bias)


def test_logits_that_overflow_are_an_error_instead_of_nan() -> None:
    with pytest.raises(ModelError, match="not finite"):
        Logits(3e38, 0.0)(np.ones(4, np.float32), np.ones((2, 4), np.float32))
