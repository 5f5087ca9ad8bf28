"""The families of zero-shot image models, with the properties in which they differ.

All names are those of Transformers. The functions only use objects that are passed to them, so this module imports
neither Transformers nor PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.model.interface import Scoring

#: A module of Transformers, which publishes no useful types for its attributes.
Network = Any
#: A PyTorch tensor.
Tensor = Any


def pooled_image(network: Network, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return a dual encoder's image vectors, (n, d), not normalised."""
    return network.get_image_features(**inputs).pooler_output


def pooled_text(network: Network, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return a dual encoder's text vectors, (k, d), not normalised."""
    return network.get_text_features(**inputs).pooler_output


def blip2_image(network: Network, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return BLIP-2's image vectors, (n, q, d), not normalised, one for each of the q queries."""
    patches = network.vision_model(**inputs).last_hidden_state
    queries = network.query_tokens.expand(patches.shape[0], -1, -1)
    states = network.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state
    return network.vision_projection(states.to(network.vision_projection.weight.dtype))


def blip2_text(network: Network, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return BLIP-2's text vectors, (k, d), not normalised; prompts contain no image tokens."""
    states = network.qformer(
        query_embeds=network.embeddings(input_ids=inputs["input_ids"]),
        query_length=0,
        attention_mask=inputs["attention_mask"],
    ).last_hidden_state[:, 0, :]
    return network.text_projection(states.to(network.text_projection.weight.dtype))


#: The parameters that `scale_and_bias` reads stay in float32: rounded to half precision, they alone change a SigLIP
#: checkpoint's scores by up to 0.011 in float16 and 0.029 in bfloat16.
EXACT_PARAMETERS: Final = ("logit_scale", "logit_bias", "temperature")


def scale_and_bias(network: Network) -> tuple[float, float]:
    """Return the factor and the summand that the model's own forward pass applies to the cosine.

    Raises:
        ValueError: one is not a finite number, so that every score would be NaN.
    """
    scale, bias = _scale_and_bias(network)
    if not (math.isfinite(scale) and math.isfinite(bias)):
        raise ValueError(f"the cosine's factor is {scale} and its summand {bias}; both must be finite numbers")
    return scale, bias


def _scale_and_bias(network: Network) -> tuple[float, float]:
    if hasattr(network, "temperature"):
        return 1.0 / (float(network.temperature.detach()) or math.nan), 0.0
    scale = float(network.logit_scale.detach().exp()) if hasattr(network, "logit_scale") else 1.0
    return scale, float(network.logit_bias.detach()) if hasattr(network, "logit_bias") else 0.0


@dataclass(frozen=True, slots=True)
class Family:
    """The properties that determine how a family is loaded and run.

    Attributes:
        architecture: the name of the family's class in Transformers.
        scoring: the function by which Transformers' pipeline turns logits into scores.
        pad_to: the number of tokens to which all prompts are padded; None pads the prompts of a pass to the longest.
        image_vectors: returns vectors, not yet normalised, for the network and its inputs.
        text_vectors: returns vectors, not yet normalised, for the network and tokens.
        text_config: the section of the configuration for the text tower.
        processor: the settings of an image processor for Pillow, if Transformers' only one needs torchvision.
    """

    architecture: str
    scoring: Scoring = "softmax"
    pad_to: int | None = None
    image_vectors: Callable[[Network, Mapping[str, Tensor]], Tensor] = pooled_image
    text_vectors: Callable[[Network, Mapping[str, Tensor]], Tensor] = pooled_text
    text_config: str = "text_config"
    processor: Mapping[str, Any] = field(default_factory=dict)


#: For model types that contain "siglip", Transformers' pipeline pads to 64 tokens and scores by a sigmoid.
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
    # Resample 2 is bilinear.
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
    # The pipeline's table lacks this family, but its forward pass is that of CLIP, with any two towers.
    "vision-text-dual-encoder": Family("VisionTextDualEncoderModel"),
}

#: AutoModelForZeroShotImageClassification lists these, but they do not classify images.
REFUSED: Final[Mapping[str, str]] = {
    "videoprism": "it classifies videos, not single images",
}
