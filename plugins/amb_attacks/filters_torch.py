"""The filters of a deployed model: images (n, 3, height, width) in [0, 1] to such images, answers to rounded answers."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Jpeg:
    """As a JPEG file and back, through 8-bit pixels; it has no gradient."""

    quality: int

    def __call__(self, images: Tensor) -> Tensor:
        from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

        pixels = (images.detach() * 255).round().clamp(0, 255).to("cpu", torch.uint8)
        files = [encode_jpeg(image, quality=self.quality) for image in pixels]
        decoded = torch.stack([decode_jpeg(file, mode=ImageReadMode.RGB) for file in files])
        return decoded.to(images.device, images.dtype) / 255


@dataclass(frozen=True)
class Blur:
    """Convolution with a Gaussian that is cut off behind three standard deviations; edges are mirrored."""

    sigma: float

    def __call__(self, images: Tensor) -> Tensor:
        from torchvision.transforms.functional import gaussian_blur

        radius = min(math.ceil(3 * self.sigma), min(images.shape[-2:]) - 1)  # no more than can be mirrored
        if radius == 0:
            return images
        blurred: Tensor = gaussian_blur(images, [2 * radius + 1] * 2, [self.sigma] * 2)
        return blurred.clamp(0, 1)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise drawn from the image itself and a seed, so that no other image of the batch has a say in it."""

    sigma: float
    seed: int

    def __call__(self, images: Tensor) -> Tensor:
        if self.sigma == 0:
            return images
        noise = torch.stack([self._draw_noise(image) for image in images.detach().float().cpu()])
        return (images + self.sigma * noise.to(images)).clamp(0, 1)

    def _draw_noise(self, image: Tensor) -> Tensor:
        digest = hashlib.sha256(self.seed.to_bytes(8, "big") + image.contiguous().numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.randn(image.shape, generator=generator)


@dataclass(frozen=True)
class Flip:
    """Left to right."""

    def __call__(self, images: Tensor) -> Tensor:
        return images.flip(-1)


@dataclass(frozen=True)
class Posterise:
    """Pixels rounded to so many levels, 0 and 1 among them."""

    levels: int

    def __call__(self, images: Tensor) -> Tensor:
        top = self.levels - 1
        return (images * top).round() / top


@dataclass(frozen=True)
class Rounded:
    """Answers with so many decimals."""

    decimals: int

    def __call__(self, answers: Tensor) -> Tensor:
        return answers.round(decimals=self.decimals)
