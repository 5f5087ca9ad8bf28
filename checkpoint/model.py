"""The shape of the small CLIP, and its folder on disk."""

import json
from pathlib import Path
from typing import Any, Final

import torch

# 36 patches: enough to see an owl's eyes, few enough for two processor cores.
SIDE: Final = 48
_PATCH: Final = 8
_WIDTH: Final = 192
# CLIP's own, so that a prompt of 77 tokens is accepted here as there.
CONTEXT: Final = 77
# CLIP's own statistics of the pixels, so that the image processor is CLIP's but for the size.
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
SPREAD: Final = (0.26862954, 0.26130258, 0.27577711)


def build(tokenizer: Any) -> Any:
    """A CLIP of 3.7 million parameters, freshly drawn from PyTorch's generator."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": _WIDTH, "intermediate_size": 4 * _WIDTH, "num_attention_heads": 3, "projection_dim": _WIDTH}
    numbers = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config={**tower, **numbers, "num_hidden_layers": 2, "max_position_embeddings": CONTEXT},
        vision_config={**tower, "num_hidden_layers": 5, "image_size": SIDE, "patch_size": _PATCH},
        projection_dim=_WIDTH,
    )
    return CLIPModel(config)


def whiten(model: Any, images: torch.Tensor) -> None:
    """Start the vision tower from what patches look like, not from noise: it leaves the starting line far sooner.

    The patch embedding becomes the principal components of the patches of `images`, float32 (n, 3, SIDE, SIDE) in 0
    to 1, each at about the same spread, so that edges count beside plain colour; the positions become waves of a
    size to be noticed next to that.
    """
    vision = model.vision_model
    kernel = vision.embeddings.patch_embedding.weight
    patches = (
        torch.nn.functional.unfold(normalised(images), _PATCH, stride=_PATCH).transpose(1, 2).reshape(-1, 3 * _PATCH**2)
    )
    spread, components = torch.linalg.eigh(patches.T @ patches / len(patches))
    # The finest components are noise: below a thousandth of the largest they are not blown up any further.
    scaled = components / (spread + 1e-3 * spread.max()).sqrt()
    with torch.no_grad():
        kernel.copy_(scaled.T.reshape(-1, *kernel.shape[1:])[: kernel.shape[0]])
        vision.embeddings.position_embedding.weight[1:].copy_(_waves(SIDE // _PATCH, kernel.shape[0]))


def _waves(rows: int, width: int) -> torch.Tensor:
    """Sines and cosines of the row and of the column, float32 (rows * rows, width)."""
    place = torch.arange(rows).float()
    angles = place[:, None] * torch.pi / rows * 2 ** torch.linspace(-1, 2, width // 4)
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    both = torch.cat([waves[:, None].expand(-1, rows, -1), waves[None].expand(rows, -1, -1)], 2)
    return 0.5 * both.reshape(rows * rows, width)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write everything that `from_pretrained` reads; the weights as float16, half the size at no loss that shows.

    The configuration names float32, so a plain `from_pretrained` computes in it: CPUs are slow at float16.
    """
    import transformers

    library: Any = transformers  # much of it is untyped
    folder.mkdir(parents=True, exist_ok=True)
    library.logging.disable_progress_bar()
    halved = library.CLIPModel(model.config)
    halved.load_state_dict(model.state_dict())
    halved.half().save_pretrained(folder)
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text("utf-8"))
    config["dtype"] = "float32"
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    tokenizer.save_pretrained(folder)
    library.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_mean=MEAN, image_std=SPREAD
    ).save_pretrained(folder)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """What the image processor makes of float32 (n, 3, SIDE, SIDE) in 0 to 1."""
    mean, spread = (torch.tensor(values)[:, None, None] for values in (MEAN, SPREAD))
    return (images - mean) / spread


def image_features(model: Any, pixels: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
    """Unit vectors, float32 (n, projection); with `kept`, int64 (n, k), each picture shows only those patches.

    Hiding patches makes a step cheaper and keeps the model from learning single strokes of single drawings by heart.
    """
    vision = model.vision_model
    hidden = vision.embeddings(pixels)
    if kept is not None:
        # Patch p is token p + 1; token 0 is the class token, which stays.
        tokens = torch.cat([torch.zeros(len(kept), 1, dtype=torch.long), kept + 1], 1)
        hidden = hidden.gather(1, tokens[:, :, None].expand(-1, -1, hidden.shape[2]))
    hidden = vision.encoder(inputs_embeds=vision.pre_layrnorm(hidden)).last_hidden_state
    return torch.nn.functional.normalize(model.visual_projection(vision.post_layernorm(hidden[:, 0])), dim=1)


def text_features(model: Any, tokenizer: Any, captions: list[str]) -> torch.Tensor:
    """Unit vectors, float32 (n, projection)."""
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    pooled = model.text_model(**tokens).pooler_output
    return torch.nn.functional.normalize(model.text_projection(pooled), dim=1)
