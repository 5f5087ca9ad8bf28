"""Checkpoints of every family, small and random, made in a second: `python -m tests.model.checkpoints FAMILY FOLDER`.

The weights are drawn wide enough that different images and different labels get clearly different scores: with the
usual narrow ones every score is about the same, and a test would not notice if images or labels were mixed up.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.model import tokenizers_made_here as tokenizers

_SIDE, _PATCH = 32, 8
_SQUARE = {"height": _SIDE, "width": _SIDE}
_CROPPED = {"size": {"shortest_edge": _SIDE}, "crop_size": _SQUARE}
_TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
_VISION = {**_TOWER, "image_size": _SIDE, "patch_size": _PATCH}

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """What a small checkpoint is made of; all names are those of Transformers.

    Attributes:
        name: how the names of the configuration's and the model's classes begin.
        tokenizer: makes the tokenizer; it gets the folder because some tokenizers are written to a file of their own.
        processor: the class of the image processor, whose settings are `resize`.
        text: settings of the text tower, in addition to those of every tower and those that follow from the tokenizer.
        vision: settings of the image tower.
        whole: settings of the configuration that holds both towers.
        model: the model's class, where it is not `name` followed by "Model".
    """

    name: str
    tokenizer: Callable[[Path], Any]
    processor: str = "CLIPImageProcessorPil"
    resize: Settings = field(default_factory=lambda: _CROPPED)
    text: Settings = field(default_factory=dict)
    vision: Settings = field(default_factory=lambda: _VISION)
    whole: Settings = field(default_factory=lambda: {"projection_dim": 24})
    model: str | None = None

    def network(self, tokenizer: Any) -> Any:
        """Return the model as Transformers initialises it."""
        text = {
            **_TOWER,
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **self.text,
        }
        config = self.config(text)
        return _transformers(self.model or f"{self.name}Model")(config)

    def config(self, text: Settings) -> Any:
        """Return the configuration of both towers."""
        return _transformers(f"{self.name}Config")(text_config=text, vision_config=self.vision, **self.whole)


class _Blip2(Recipe):
    """A recipe for BLIP-2: the text goes through the Q-Former; the configured language model is never built."""

    def config(self, text: Settings) -> Any:
        queries = {
            **_TOWER,
            "vocab_size": text["vocab_size"],
            "encoder_hidden_size": 32,
            "use_qformer_text_input": True,
        }
        language = {"model_type": "opt", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
        return _transformers("Blip2Config")(
            vision_config=self.vision, qformer_config=queries, text_config=language, **self.whole
        )


class _TwoModels(Recipe):
    """A recipe that combines an image model and a text model of different families."""

    def config(self, text: Settings) -> Any:
        towers = _transformers("ViTConfig")(**self.vision), _transformers("BertConfig")(**text)
        return _transformers("VisionTextDualEncoderConfig").from_vision_text_configs(*towers, **self.whole)


class _FullSize(Recipe):
    """A recipe of a published size; only the special tokens are those of the small tokenizer."""

    def config(self, text: Settings) -> Any:
        ends = {name: text[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        return _transformers("CLIPConfig")(text_config={**self.text, **ends}, vision_config=self.vision, **self.whole)


def _tower(width: int, layers: int) -> Settings:
    """Return the settings of a transformer like CLIP's: heads of 64, and MLPs four times as wide as the model."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }


_BLIP_2 = {"num_query_tokens": 5, "image_text_hidden_size": 24}
_EFFICIENTNET = {
    "image_size": 30,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "kernel_sizes": [3, 5],
    "in_channels": [32, 16],
    "out_channels": [16, 24],
    "strides": [1, 2],
    "num_block_repeats": [1, 2],
    "expand_ratios": [1, 4],
    "hidden_dim": 24,
}
_EFFICIENTNET_IMAGES = {
    "size": {"height": 36, "width": 36},
    "crop_size": {"height": 31, "width": 31},
    "do_center_crop": True,
    "resample": 2,
    "rescale_factor": 1 / 127.5,
    "rescale_offset": True,
    "do_normalize": False,
    "include_top": False,
}
_FIXED: Settings = {"resize": {"size": _SQUARE}}

RECIPES: Mapping[str, Recipe] = {
    "align": Recipe("Align", tokenizers.bert, "EfficientNetImageProcessorPil", _EFFICIENTNET_IMAGES, {}, _EFFICIENTNET),
    "altclip": Recipe("AltCLIP", tokenizers.xlm_roberta, text={"project_dim": 32, "max_position_embeddings": 102}),
    "blip": Recipe("Blip", tokenizers.bert, "BlipImageProcessorPil", text={"encoder_hidden_size": 32}, **_FIXED),
    "blip-2": _Blip2(
        "Blip2", tokenizers.bert, "BlipImageProcessorPil", whole=_BLIP_2, model="Blip2ForImageTextRetrieval", **_FIXED
    ),
    # Such a checkpoint expects its own processor to put image tokens before the text.
    "blip-2-image-token": _Blip2(
        "Blip2",
        tokenizers.bert,
        "BlipImageProcessorPil",
        whole={**_BLIP_2, "image_token_index": 4},
        model="Blip2ForImageTextRetrieval",
        **_FIXED,
    ),
    "chinese_clip": Recipe("ChineseCLIP", tokenizers.bert, "ChineseCLIPImageProcessorPil"),
    "clip": Recipe("CLIP", tokenizers.clip),
    # As in OpenAI's own checkpoints: the end token's number is wrong, and the text tower looks for the highest token.
    "clip-legacy-eos": Recipe("CLIP", tokenizers.clip, text={"eos_token_id": 2}),
    "clip-vit-b32": _FullSize("CLIP", tokenizers.clip, resize={}, vision={}, whole={}),
    "clip-vit-l14": _FullSize(
        "CLIP",
        tokenizers.clip,
        resize={},
        text={**_tower(768, 12), "projection_dim": 768},
        vision={**_tower(1024, 24), "patch_size": 14, "projection_dim": 768},
        whole={"projection_dim": 768},
    ),
    "clipseg": Recipe("CLIPSeg", tokenizers.clip, "ViTImageProcessorPil", **_FIXED),
    "metaclip_2": Recipe("MetaClip2", tokenizers.xlm_roberta),
    "siglip": Recipe("Siglip", tokenizers.siglip, "SiglipImageProcessorPil", whole={}, **_FIXED),
    # SigLIP 2 of a fixed size is a SigLIP with Gemma's tokenizer.
    "siglip-gemma": Recipe("Siglip", tokenizers.gemma, "SiglipImageProcessorPil", whole={}, **_FIXED),
    "siglip2": Recipe(
        "Siglip2",
        tokenizers.gemma,
        "Siglip2ImageProcessorPil",
        {"patch_size": _PATCH, "max_num_patches": 16},
        vision={**_TOWER, "patch_size": _PATCH, "num_patches": 16},
        whole={},
    ),
    "tipsv2": Recipe(
        "Tipsv2",
        tokenizers.tips,
        "",
        text={"hidden_act": "relu"},
        vision={name: value for name, value in _VISION.items() if name != "intermediate_size"},
        whole={},
    ),
    "vision-text-dual-encoder": _TwoModels("VisionTextDualEncoder", tokenizers.bert, "ViTImageProcessorPil", **_FIXED),
}

# All recipes but those of full size.
SMALL = sorted(set(RECIPES) - {"clip-vit-b32", "clip-vit-l14"})


def make_checkpoint(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Write a random checkpoint with its tokenizer and image processor.

    Args:
        family: a key of `RECIPES`: a model type, a variant of one, or `clip-vit-b32` and `clip-vit-l14`, which have the
            full size of OpenAI's ViT-B/32 (600 MB) and ViT-L/14 (1.7 GB).
        folder: where to write it; it is created if it does not exist.
        seed: different seeds give different weights.

    Returns:
        The folder.
    """
    import torch

    from worker.model.refusals import quiet

    recipe = RECIPES[family]
    folder.mkdir(parents=True, exist_ok=True)
    with quiet(), torch.random.fork_rng():
        tokenizer = recipe.tokenizer(folder)
        torch.manual_seed(seed)
        network = recipe.network(tokenizer)
        widen(network)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        processor = _transformers(recipe.processor)(**recipe.resize) if recipe.processor else pillow_tips_processor()
        processor.save_pretrained(folder)
    return folder


def pillow_tips_processor() -> Any:
    """Return TIPSv2's image processor with Pillow as its backend: Transformers has it for torchvision only."""
    from transformers.image_processing_backends import PilBackend

    class Tipsv2ImageProcessorPil(PilBackend):
        resample = 2
        size = _SQUARE
        do_resize = True
        do_rescale = True
        do_normalize = False
        do_convert_rgb = True

    return Tipsv2ImageProcessorPil()


def widen(network: Any) -> None:
    """Draw weights that keep the spread of a layer's inputs, and biases that keep a layer from returning only zeros."""
    from torch import nn, no_grad

    with no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                gain = 1.3 if isinstance(module, nn.Linear) else 3.0
                nn.init.normal_(module.weight, std=gain * module.weight[0].numel() ** -0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                nn.init.normal_(module.running_mean, std=0.1)
            if isinstance(getattr(module, "bias", None), nn.Parameter):
                nn.init.normal_(module.bias, std=0.1)
        for name, parameter in network.named_parameters():
            if name.endswith(("class_embedding", "query_tokens", "cls_token", "probe")):
                nn.init.normal_(parameter)
        for name, value in (("logit_scale", 2.0), ("logit_bias", -1.5), ("temperature", 0.1)):
            if hasattr(network, name):
                getattr(network, name).fill_(value)


def _transformers(name: str) -> Any:
    return getattr(importlib.import_module("transformers"), name)


if __name__ == "__main__":
    print(make_checkpoint(sys.argv[1], Path(sys.argv[2])))
