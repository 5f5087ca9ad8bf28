"""Text towers of any kind beside an image tower: the worker measures how many tokens each one reads."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from producer.errors import InvalidJob
from tests.model import tokenizers_made_here as tokenizers
from tests.model.checkpoints import widen
from worker.model import load_model
from worker.model.interface import ModelError, ModelLoadError
from worker.model.refusals import quiet
from worker.trial.scoring import Scorer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SIDE = {"height": 32, "width": 32}
ROWS = 40

# By class: its settings, and how many tokens such a tower with 40 positions reads.
TOWERS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "Albert": ({"embedding_size": 32}, 40),
    "Bert": ({}, 40),
    "CLIPText": ({}, 40),
    "Camembert": ({}, 38),
    "Data2VecText": ({}, 38),
    "Ernie": ({}, 40),
    "IBert": ({}, 38),
    "Longformer": ({"attention_window": 8}, 38),
    "MPNet": ({}, 38),
    "Roberta": ({}, 38),
    "RobertaPreLayerNorm": ({}, 38),
    "XLMRoberta": ({}, 38),
    "XLMRobertaXL": ({}, 38),
    "Xmod": ({"languages": ["en_XX"], "default_language": "en_XX"}, 38),
}
LABELS = ["a fox", "two cats sleeping on a large red table", "bear"]


def make(folder: Path, text_class: str, settings: Mapping[str, Any], tokenizer: Any) -> Path:
    """Write a checkpoint of a small ViT and this text tower."""
    import torch

    parts: Any = importlib.import_module("transformers")
    text = getattr(parts, f"{text_class}Config")(
        **SIZES,
        vocab_size=len(tokenizer),
        max_position_embeddings=ROWS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **settings,
    )
    image = parts.ViTConfig(**SIZES, image_size=32, patch_size=8)
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(0)
        config = parts.VisionTextDualEncoderConfig.from_vision_text_configs(image, text, projection_dim=24)
        network = parts.VisionTextDualEncoderModel(config)
        widen(network)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        parts.ViTImageProcessorPil(size=SIDE).save_pretrained(folder)
    return folder


def configure_tokenizer(folder: Path, settings: Mapping[str, Any]) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return tokenizers.xlm_roberta(tmp_path)


@pytest.mark.parametrize("tower", TOWERS)
def test_a_tower_reads_as_many_tokens_as_its_positions_allow_and_scores_as_transformers_does(
    tower: str, tokenizer: Any, tmp_path: Path
) -> None:
    import torch

    settings, longest = TOWERS[tower]
    folder = make(tmp_path / tower, tower, settings, tokenizer)
    model = load_model(str(folder), device="cpu")
    assert model.max_tokens == longest

    prompt = "fox" + "," * (longest - model.count_tokens(["fox"])[0])
    assert model.count_tokens([prompt]) == [longest]
    assert np.isfinite(model.embed_texts([prompt, "owl"])).all()
    with pytest.raises(ModelError, match=f"{longest + 1} tokens.*{longest}"):
        model.embed_texts([prompt + ","])

    parts: Any = importlib.import_module("transformers")
    network = parts.VisionTextDualEncoderModel.from_pretrained(folder)
    picture = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 20).convert("RGB")
    inputs = parts.VisionTextDualEncoderProcessor(parts.ViTImageProcessorPil(size=SIDE), tokenizer)(
        images=picture, text=[*LABELS, prompt], return_tensors="pt", padding=True
    )
    with torch.inference_mode():
        theirs = network(**inputs).logits_per_image[0].numpy()
    [image] = model.embed_images([model.prepare(picture)])
    assert model.logits(image, model.embed_texts([*LABELS, prompt])) == pytest.approx(theirs, rel=0, abs=2e-5)


@pytest.mark.parametrize("settings", [{"padding_side": "left"}, {"model_input_names": ["input_ids"]}])
def test_a_tower_whose_vector_of_a_label_changes_with_longer_labels_in_the_batch_is_refused(
    settings: Mapping[str, Any], tokenizer: Any, tmp_path: Path
) -> None:
    folder = make(tmp_path / "bert", "Bert", {}, tokenizer)
    configure_tokenizer(folder, settings)
    with pytest.raises(ModelLoadError, match="a different vector for a label when a longer label is in the batch"):
        load_model(str(folder), device="cpu")


def test_a_tokenizer_without_a_padding_token_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "bert", "Bert", {}, tokenizer)
    configure_tokenizer(folder, {"pad_token": None})
    with pytest.raises(ModelLoadError, match=r"padding token"):
        load_model(str(folder), device="cpu")


def test_a_tower_without_a_pooled_vector_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "electra", "Electra", {}, tokenizer)
    with pytest.raises(ModelLoadError, match=r"the text tower of .*pooler_output"):
        load_model(str(folder), device="cpu")


def test_a_tokenizer_with_tokens_that_the_model_lacks_is_reported_when_the_model_is_loaded(
    tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path / "bert", "Bert", {}, tokenizer)
    tokenizer.add_tokens(["sku123"])
    tokenizer.save_pretrained(folder)

    model = load_model(str(folder), device="cpu")

    assert "has 1 tokens without an embedding in the model (first 'sku123')" in caplog.text
    assert np.isfinite(model.embed_texts(["owl"])).all()
    with pytest.raises(ModelError, match="not in the model's vocabulary"):
        model.embed_texts(["sku123"])
    with pytest.raises(InvalidJob, match="cannot process one of the labels: the tokenizer produces a token"):
        Scorer(model, ["owl", "sku123"], ["{}"])
