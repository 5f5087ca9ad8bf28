"""A warning names unused weights; a checkpoint that lacks weights, or holds an adapter, is refused."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from worker.model import load_model
from worker.model.interface import ModelLoadError

ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "x"}


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a copy of a working CLIP checkpoint."""
    return Path(shutil.copytree(checkpoint("clip"), tmp_path / "clip"))


def change_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def add_adapter(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    weights = {"base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": np.ones((2, 32))}
    save_file(weights, folder / "adapter_model.safetensors")


def refusal(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_model(str(folder), device="cpu")
    return str(caught.value)


def test_an_adapter_beside_its_base_model_is_refused(folder: Path) -> None:
    add_adapter(folder)
    assert "holds an adapter (adapter_config.json), which a worker does not apply: merge it" in refusal(folder)


def test_an_adapter_without_its_base_model_is_refused(tmp_path: Path) -> None:
    add_adapter(tmp_path / "adapter")
    assert "holds an adapter (adapter_config.json), which a worker does not apply: merge it" in refusal(
        tmp_path / "adapter"
    )


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors"])
def test_an_adapter_without_its_configuration_is_refused(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"weights")
    assert f"holds an adapter ({name})" in refusal(folder)


def test_adapter_weights_among_the_model_s_own_weights_are_refused(folder: Path) -> None:
    key = "text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"
    change_weights(folder, lambda weights: weights.update({key: np.ones((2, 32), np.float32)}))
    assert f"has weights of an adapter beside its own (first {key!r}, 1 in all)," in refusal(folder)


def test_one_warning_names_unused_weights(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    surplus = {f"classifier.{name}": np.ones(3, np.float32) for name in ("weight", "bias")}
    change_weights(folder, lambda weights: weights.update(surplus))
    with caplog.at_level(logging.WARNING, "worker"):
        load_model(str(folder), device="cpu")
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder} has 2 weights that a CLIPModel does not use (first 'classifier.bias'): its scores are "
        "computed without them"
    ]


@pytest.mark.parametrize("key", ["logit_scale", "text_model.embeddings.position_embedding.weight"])
def test_a_missing_weight_is_refused(key: str, folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop(key))
    assert f"lacks 1 of the weights of a CLIPModel (first {key!r})" in refusal(folder)


def test_a_renamed_weight_is_refused_as_missing(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update(scale=weights.pop("logit_scale")))
    assert "lacks 1 of the weights of a CLIPModel (first 'logit_scale')" in refusal(folder)


def test_a_checkpoint_that_overflows_float16_is_refused_in_float16_and_runs_in_float32(folder: Path) -> None:
    key = "vision_model.encoder.layers.0.mlp.fc1.bias"
    change_weights(folder, lambda weights: weights.update({key: weights[key] + np.float32(60_000)}))
    load_model(str(folder), device="cpu", dtype="float32").warm_up()
    with pytest.raises(ModelLoadError, match="numbers that are not finite in float16"):
        load_model(str(folder), device="cpu", dtype="float16").warm_up()


def test_a_text_tower_that_overflows_float16_is_refused_in_float16(folder: Path) -> None:
    key = "text_model.encoder.layers.0.mlp.fc1.bias"
    change_weights(folder, lambda weights: weights.update({key: weights[key] + np.float32(60_000)}))
    with pytest.raises(ModelLoadError, match="numbers that are not finite in float16"):
        load_model(str(folder), device="cpu", dtype="float16").warm_up()
