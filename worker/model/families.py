"""The families of zero-shot image models, one line each; whatever is special about one stands here only.

All names are those of Transformers. The functions below are called with its objects, so that this file needs
neither Transformers nor PyTorch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.model.interface import Scoring

# Modules and tensors of Transformers and PyTorch, which publish no useful types for these attributes.
Network = Any
Tensor = Any


def pooled_image(network: Network, inputs: Mapping[str, Tensor]) -> Tensor:
    """(n, d), not normalised, of any dual encoder."""
    return network.get_image_features(**inputs).pooler_output


def pooled_text(network: Network, inputs: Mapping[str, Tensor]) -> Tensor:
    """(k, d), not normalised, of any dual encoder."""
    return network.get_text_features(**inputs).pooler_output


def blip2_image(network: Network, inputs: Mapping[str, Tensor]) -> Tensor:
    """(n, q, d): the image seen through each of the q queries; the best of them counts."""
    seen = network.vision_model(**inputs).last_hidden_state
    queries = network.query_tokens.expand(seen.shape[0], -1, -1)
    states = network.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
    return network.vision_projection(states.to(network.vision_projection.weight.dtype))


def blip2_text(network: Network, inputs: Mapping[str, Tensor]) -> Tensor:
    """(k, d). The prompts carry no image tokens, so there are none to cut off (`image_token_index`)."""
    states = network.qformer(
        query_embeds=network.embeddings(input_ids=inputs["input_ids"]),
        query_length=0,
        attention_mask=inputs["attention_mask"],
    ).last_hidden_state[:, 0, :]
    return network.text_projection(states.to(network.text_projection.weight.dtype))


def scale_and_bias(network: Network) -> tuple[float, float]:
    """What the cosine is multiplied by, and what is added to it, as the model's own forward pass does it."""
    if hasattr(network, "temperature"):
        return 1.0 / float(network.temperature), 0.0
    scale = float(network.logit_scale.exp()) if hasattr(network, "logit_scale") else 1.0
    return scale, float(network.logit_bias) if hasattr(network, "logit_bias") else 0.0


@dataclass(frozen=True, slots=True)
class Family:
    """How one family is loaded and run.

    Attributes:
        architecture: class of Transformers that the zero-shot pipeline runs for this family.
        scoring: how the pipeline turns logits into scores.
        pad_to: prompts are always padded to this many tokens; None pads to the longest one.
        image_vectors: network and inputs to vectors, not yet normalised.
        text_vectors: network and tokens to vectors, not yet normalised.
        text_config: name of the part of the configuration that describes the text tower.
        processor: settings of the image processor, for a family whose own needs torchvision.
    """

    architecture: str
    scoring: Scoring = "softmax"
    pad_to: int | None = None
    image_vectors: Callable[[Network, Mapping[str, Tensor]], Tensor] = pooled_image
    text_vectors: Callable[[Network, Mapping[str, Tensor]], Tensor] = pooled_text
    text_config: str = "text_config"
    processor: Mapping[str, Any] = field(default_factory=dict)


# The pipeline asks whether "siglip" is in the model type: those two are padded to 64 tokens and scored by a sigmoid.
FAMILIES: Final[Mapping[str, Family]] = {
    "align": Family("AlignModel"),
    "altclip": Family("AltCLIPModel"),
    "blip": Family("BlipModel"),
    "blip-2": Family(
        "Blip2ForImageTextRetrieval",
        image_vectors=blip2_image,
        text_vectors=blip2_text,
        text_config="qformer_config",
    ),
    "chinese_clip": Family("ChineseCLIPModel"),
    "clip": Family("CLIPModel"),
    "clipseg": Family("CLIPSegModel"),
    "metaclip_2": Family("MetaClip2Model"),
    "siglip": Family("SiglipModel", scoring="sigmoid", pad_to=64),
    "siglip2": Family("Siglip2Model", scoring="sigmoid", pad_to=64),
    # Transformers has only a torchvision processor for it; resample 2 is bilinear.
    "tipsv2": Family(
        "Tipsv2Model",
        processor={
            "resample": 2,
            "size": {"height": 448, "width": 448},
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": False,
            "do_convert_rgb": True,
        },
    ),
    # Not in the pipeline's own table, but its forward pass is that of CLIP, with any two towers.
    "vision-text-dual-encoder": Family("VisionTextDualEncoderModel"),
}

# In the table of AutoModelForZeroShotImageClassification, and yet no image classifier.
REFUSED: Final[Mapping[str, str]] = {
    "videoprism": "it classifies videos, not single images",
}


# Text towers whose first position comes after the padding token's own, so that their table is that much longer.
POSITIONS_AFTER_PADDING: Final = frozenset({"altclip_text_model", "camembert", "roberta", "xlm-roberta"})


def longest_prompt(family: Family, config: Any) -> int:
    """Tokens of the longest prompt that a checkpoint with this configuration reads, special tokens included."""
    text_config = getattr(config, family.text_config)
    length = int(text_config.max_position_embeddings)
    if text_config.model_type in POSITIONS_AFTER_PADDING:
        length -= int(text_config.pad_token_id) + 1
    return length if family.pad_to is None else min(length, family.pad_to)
