"""Batches of pictures that no package holds: moved, turned, recoloured, put on backgrounds, blurred, compressed."""

import io
import math
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

# Rendered at twice the model's side and averaged down: a picture made smaller would alias otherwise.
_OVERSAMPLE: Final = 2

# Luma of ITU-R BT.601, as JPEG uses it.
_LUMA: Final = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class Strength:
    """How far each change may go; 0 everywhere leaves the picture alone, on white."""

    turn_degrees: float = 25.0
    smallest: float = 0.45
    largest: float = 1.15
    stretch: float = 0.18
    shear: float = 0.15
    colour: float = 1.0
    # Shares of a batch.
    grey: float = 0.05
    blurred: float = 0.15
    noisy: float = 0.25
    erased: float = 0.25
    compressed: float = 0.15

    @classmethod
    def rising(cls, share: float) -> "Strength":
        """The full strength at 1, and hardly any change at 0: what is easy to tell apart is learnt first."""
        full = cls()
        bounds = {"smallest": 0.8 + (full.smallest - 0.8) * share, "largest": 1 + (full.largest - 1) * share}
        scaled = {name: value * (0.15 + 0.85 * share) for name, value in asdict(full).items() if name not in bounds}
        return cls(**bounds, **scaled)


def render(pixels: Tensor, side: int, strength: Strength, generator: torch.Generator) -> Tensor:
    """Draw a batch anew.

    Args:
        pixels: uint8 (n, h, w, 4), straight alpha.
        side: of the square result.
        strength: how far.
        generator: every random number comes from it.

    Returns:
        float32 (n, 3, side, side) in 0 to 1, which is what a PNG or JPEG of it would hold.
    """
    number = len(pixels)
    straight = pixels.permute(0, 3, 1, 2).float() / 255
    alpha = straight[:, 3:]
    # Alpha is multiplied in before anything is interpolated: the colour of a transparent pixel means nothing.
    layers = torch.cat([_recolour(straight[:, :3], strength, generator) * alpha, alpha], 1)
    grid = functional.affine_grid(
        _placement(number, strength, generator),
        [number, 4, side * _OVERSAMPLE, side * _OVERSAMPLE],
        align_corners=False,
    )
    moved = functional.avg_pool2d(functional.grid_sample(layers, grid, align_corners=False), _OVERSAMPLE)
    background = _backgrounds(number, side, strength.colour, generator)
    image = moved[:, :3] + background * (1 - moved[:, 3:])
    image = _spoil(image, strength, generator)
    return _compress(image.clamp_(0, 1), strength.compressed, generator)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low


def _chosen(generator: torch.Generator, share: float, number: int) -> Tensor:
    """bool (number,): each is true with the probability `share`."""
    return torch.rand(number, generator=generator) < share


def _placement(number: int, strength: Strength, generator: torch.Generator) -> Tensor:
    """float32 (number, 2, 3): from the place in the result to the place in the source, in -1 to 1."""
    angle = _uniform(generator, -1, 1, number) * math.radians(strength.turn_degrees)
    size = _uniform(generator, strength.smallest, strength.largest, number)
    stretch = (_uniform(generator, -1, 1, number) * strength.stretch).exp()
    shear = _uniform(generator, -1, 1, number) * strength.shear
    mirrored = 1 - 2 * _chosen(generator, 0.5, number).float()
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    zero = torch.zeros(number)
    across = mirrored / (size * stretch)
    down = stretch / size
    scale = torch.stack([torch.stack([across, shear * across], 1), torch.stack([zero, down], 1)], 1)
    inverse = scale @ turn
    # A small picture may stand anywhere; a large one may stick out by a tenth of the side.
    room = (1 - size).abs() + 0.1
    shift = _uniform(generator, -1, 1, number, 2) * room[:, None]
    return torch.cat([inverse, inverse @ -shift[:, :, None]], 2)


def _recolour(colours: Tensor, strength: Strength, generator: torch.Generator) -> Tensor:
    """Other brightness, contrast, saturation and hue; float32 (n, 3, h, w) in 0 to 1, before and after."""
    number, amount = len(colours), strength.colour
    luma = torch.tensor(_LUMA)
    contrast = 1 + _uniform(generator, -0.35, 0.35, number) * amount
    brightness = _uniform(generator, -0.2, 0.2, number) * amount
    saturation = 1 + _uniform(generator, -0.6, 0.5, number) * amount
    saturation = torch.where(_chosen(generator, strength.grey, number), 0.0, saturation)
    # Half of the batch keeps its hues: what is red matters for an apple. The rest turns by up to 20 degrees.
    hue = _uniform(generator, -0.35, 0.35, number) * amount * _chosen(generator, 0.5, number)
    grey = luma.expand(3, 3)
    axis = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    # Rodrigues: a rotation of the colour cube around its grey diagonal.
    cosine, sine = hue.cos()[:, None, None], hue.sin()[:, None, None]
    rotation = cosine * torch.eye(3) + (1 - cosine) * axis + sine * cross
    mix = saturation[:, None, None] * torch.eye(3) + (1 - saturation[:, None, None]) * grey
    matrix = contrast[:, None, None] * (mix @ rotation)
    flat = torch.bmm(matrix, colours.flatten(2)).view_as(colours)
    offset = 0.5 * (1 - contrast) + brightness
    return (flat + offset[:, None, None, None]).clamp_(0, 1)


def _backgrounds(number: int, side: int, strong: float, generator: torch.Generator) -> Tensor:
    """float32 (number, 3, side, side): plain, gradients, clouds or halves, many near white."""
    first, second = (torch.rand(number, 3, 1, 1, generator=generator) for _ in range(2))
    pale = _chosen(generator, 1 - 0.6 * strong, number)[:, None, None, None]
    first = torch.where(pale, 1 - 0.15 * first, first)
    second = torch.where(pale, 1 - 0.25 * second, second)
    angle = _uniform(generator, 0, 2 * math.pi, number)
    line = torch.linspace(-0.7, 0.7, side)
    across = angle.cos()[:, None, None] * line[None, None, :] + angle.sin()[:, None, None] * line[None, :, None]
    coarse = torch.rand(number, 1, 5, 5, generator=generator)
    clouds = functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)
    halves = (across[:, None] > _uniform(generator, -0.5, 0.5, number, 1, 1, 1)).float()
    kinds = torch.stack([torch.zeros_like(clouds), across[:, None] + 0.5, clouds, halves])
    blend = kinds[torch.randint(len(kinds), (number,), generator=generator), torch.arange(number)].clamp(0, 1)
    return torch.lerp(first.expand(-1, -1, side, side), second.expand(-1, -1, side, side), blend)


def _spoil(image: Tensor, strength: Strength, generator: torch.Generator) -> Tensor:
    """Blur, noise and covered patches, each for a share of the batch."""
    number, _, side, _ = image.shape
    blurred = _chosen(generator, strength.blurred, number)
    if blurred.any():
        factor = int(torch.randint(2, 4, (), generator=generator))
        small = functional.interpolate(image[blurred], scale_factor=1 / factor, mode="area")
        image[blurred] = functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    noisy = _chosen(generator, strength.noisy, number)
    spread = _uniform(generator, 0.0, 0.08, number)[:, None, None, None] * noisy[:, None, None, None]
    image = image + spread * torch.randn(image.shape, generator=generator)
    covered = _chosen(generator, strength.erased, number).nonzero().flatten().tolist()
    for row in covered:
        height, width = torch.randint(side // 8, side // 3, (2,), generator=generator).tolist()
        top, left = torch.randint(side - side // 3, (2,), generator=generator).tolist()
        image[row, :, top : top + height, left : left + width] = torch.rand(3, 1, 1, generator=generator)
    return image


def _compress(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Through JPEG and back, for a share of the batch."""
    for row in _chosen(generator, share, len(image)).nonzero().flatten().tolist():
        quality = int(torch.randint(30, 90, (), generator=generator))
        buffer = io.BytesIO()
        array = (image[row].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(array).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as decoded:
            image[row] = torch.from_numpy(np.array(decoded)).permute(2, 0, 1).float() / 255
    return image
