"""Turning and mirroring of kernels, maps and images, and which kernels are turned copies of one another.

Source: Olah et al. 2020, Naturally occurring equivariance in neural networks (Distill).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from openwork.errors import BadInput
from openwork.vision.circuits.kernels import Kernels


@dataclass(frozen=True)
class Turn:
    """A mirroring from left to right, or none, and then a rotation.

    Args:
        angle: in degrees, counter-clockwise as one sees the image.
        mirrored: whether it is mirrored first.
    """

    angle: float = 0.0
    mirrored: bool = False

    def __str__(self) -> str:
        return f"{self.angle:g}°" + (" mirrored" if self.mirrored else "")


def turns(angles: int, mirrors: bool) -> tuple[Turn, ...]:
    """Rotations by even steps of a full turn, the first by nothing; and the same after mirroring."""
    if angles < 2:
        raise BadInput(f"expected at least two angles of a full turn; got {angles}")
    steps = [360 * i / angles for i in range(angles)]
    return tuple(Turn(angle, mirrored) for mirrored in (False, True)[: 1 + mirrors] for angle in steps)


def turned(
    values: Float[Tensor, "item channel y x"],
    turn: Turn,
    centre: tuple[float, float] | None = None,
    beyond: str = "zeros",
) -> Float[Tensor, "item channel y x"]:
    """Turn maps or images about a point, by bicubic interpolation.

    Args:
        values: what to turn.
        turn: how.
        centre: (y, x) in places; the middle unless given.
        beyond: what lies outside: ``zeros``, or ``reflection`` at the edges.
    """
    height, width = values.shape[-2:]
    cy, cx = ((height - 1) / 2, (width - 1) / 2) if centre is None else centre
    angle = math.radians(turn.angle)
    y = torch.arange(height, dtype=torch.float64) - cy
    x = torch.arange(width, dtype=torch.float64) - cx
    down, right = torch.meshgrid(y, x, indexing="ij")
    # rows count downwards, so a turn that one sees as counter-clockwise takes (right, down) back by this
    from_right = math.cos(angle) * right - math.sin(angle) * down
    from_down = math.sin(angle) * right + math.cos(angle) * down
    from_right = -from_right if turn.mirrored else from_right
    spots = torch.stack(
        (2 * (from_right + cx) / max(width - 1, 1) - 1, 2 * (from_down + cy) / max(height - 1, 1) - 1), -1
    )
    spots = spots.to(values)[None].expand(len(values), -1, -1, -1)
    return F.grid_sample(values, spots, mode="bicubic", padding_mode=beyond, align_corners=True)


def disc(height: int, width: int, radius: float | None = None) -> Bool[Tensor, "y x"]:
    """The places within a distance of the middle; by default those that stay in the frame however it is turned."""
    radius = (min(height, width) - 1) / 2 + 0.5 if radius is None else radius
    y, x = (torch.arange(n) - (n - 1) / 2 for n in (height, width))
    return (y[:, None] ** 2 + x[None] ** 2) <= radius**2


def framed(found: Kernels) -> Float[Tensor, "out_unit in_unit y x"]:
    """Kernels in a square frame with the place under the out unit in its middle."""
    reach = max(max(abs(d) for d in found.dy), max(abs(d) for d in found.dx))
    out = found.values.new_zeros(*found.values.shape[:2], 2 * reach + 1, 2 * reach + 1)
    top, left = found.dy[0] + reach, found.dx[0] + reach
    out[:, :, top : top + len(found.dy), left : left + len(found.dx)] = found.values
    return out.float()


def likeness(frames: Float[Tensor, "unit channel y x"], ways: Sequence[Turn]) -> Float[Tensor, "turn unit other"]:
    """Cosine of each unit's kernel after a turn with every other unit's as it is, within the disc.

    Args:
        frames: kernels in a square frame.
        ways: the turns.
    """
    mask = disc(*frames.shape[-2:]).to(frames)
    plain = F.normalize((frames * mask).flatten(1), dim=1)
    return torch.stack([F.normalize((turned(frames, way) * mask).flatten(1), dim=1) @ plain.T for way in ways])


def same_spectrum(
    frames: Float[Tensor, "unit channel y x"], generator: torch.Generator
) -> Float[Tensor, "unit channel y x"]:
    """Kernels with the same strength at every frequency and channel, and everything else at random.

    The phases of a unit's channels are shifted together, so that what its channels have in common stays.

    Source:
        Theiler et al. 1992, Testing for nonlinearity in time series: the method of surrogate data.
    """
    noise = torch.randn(len(frames), 1, *frames.shape[-2:], generator=generator)
    phases = torch.fft.rfft2(noise)
    phases = phases / phases.abs().clamp_min(1e-12)
    return torch.fft.irfft2(torch.fft.rfft2(frames) * phases.to(frames.device), s=frames.shape[-2:])


def agreement(
    before: Float[Tensor, "image unit y x"], after: Float[Tensor, "image unit y x"], radius: float
) -> Float[np.ndarray, "image unit other"]:
    """Correlation over places of each unit's map, which was turned, with every unit's map of the turned image.

    Args:
        before: maps of images, turned.
        after: maps of the turned images.
        radius: places farther from the middle are left out.
    """
    height, width = before.shape[-2:]
    held = disc(height, width, radius)

    def scaled(maps: Tensor) -> Tensor:
        flat = maps[:, :, held].double()
        flat = flat - flat.mean(-1, keepdim=True)
        size = flat.norm(dim=-1, keepdim=True)
        return torch.where(size > 1e-9, flat / size.clamp_min(1e-9), torch.zeros_like(flat))

    return torch.einsum("iap,ibp->iab", scaled(before), scaled(after)).numpy()
