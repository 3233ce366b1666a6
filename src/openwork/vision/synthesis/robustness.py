"""What a picture must survive: each is seen through draws of its own, so no fragile pattern of pixels is rewarded.

All of a view is one warp: shifts, scales and turns are composed and sampled once, and what lies outside is grey.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from openwork.errors import BadInput


class Views(ABC):
    """How pictures are shown to a network at each step."""

    count: int = 1
    """Views of each picture at a step."""

    @abstractmethod
    def draw(self, draws: Sequence[torch.Generator], steps: int) -> Float[Tensor, "row step number"]:
        """All that will be drawn for each picture, from its own generator."""

    @abstractmethod
    def views(
        self, pictures: Float[Tensor, "row channel y x"], drawn: Float[Tensor, "row number"], size: tuple[int, int]
    ) -> Float[Tensor, "view channel height width"]:
        """The views of this step, those of one picture together.

        Args:
            pictures: in [0, 1].
            drawn: what was drawn for this step.
            size: (height, width) of the views.
        """

    def disturbed(
        self, views: Float[Tensor, "view channel height width"], draws: Sequence[torch.Generator], share: float
    ) -> Float[Tensor, "view channel height width"]:
        """The views with noise, if there is any.

        Args:
            views: in [0, 1].
            draws: one generator a picture.
            share: of the steps that are done.
        """
        return views


@dataclass(frozen=True)
class Robustness(Views):
    """Shift, scale, turn, shift again.

    Args:
        jitter: the first shift, any whole number of pixels within half of this either way.
        scales: one of them is drawn.
        angles: one of them is drawn, in degrees.
        jitter_after: the second shift.
        flip: whether half of the views are mirrored.
        fill: what lies outside the picture.

    Source:
        Lucid, `standard_transforms`: pad 12 with grey, jitter 8, scale, rotate, jitter 4. Here padding has no end.
    """

    jitter: int = 8
    scales: tuple[int | float, ...] = tuple(1 + (i - 5) / 50 for i in range(11))
    angles: tuple[int | float, ...] = (*range(-10, 11), *(0,) * 5)
    jitter_after: int = 4
    flip: bool = False
    fill: float = 0.5

    def __post_init__(self) -> None:
        if self.jitter < 0 or self.jitter_after < 0 or not self.scales or min(self.scales) <= 0 or not self.angles:
            raise BadInput(f"expected shifts of at least 0, and some positive scales and angles; got {self}")

    def draw(self, draws: Sequence[torch.Generator], steps: int) -> Float[Tensor, "row step number"]:
        return torch.stack([torch.rand(steps, 7, generator=g) for g in draws])

    def views(
        self, pictures: Float[Tensor, "row channel y x"], drawn: Float[Tensor, "row number"], size: tuple[int, int]
    ) -> Float[Tensor, "view channel height width"]:
        drawn = drawn.to(pictures.device)
        first, last = ((drawn[:, a:b] * (2 * (j // 2) + 1)).floor() - j // 2 for a, b, j in self._shifts())
        scale = _chosen(drawn[:, 4], self.scales)
        angle = torch.deg2rad(_chosen(drawn[:, 5], self.angles))
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], -1).reshape(-1, 2, 2)
        matrix = turn / scale[:, None, None]
        if self.flip:
            sign = torch.where(drawn[:, 6] < 0.5, -1.0, 1.0)
            matrix = matrix * torch.stack([torch.ones_like(sign), sign], -1)[:, None]
        return warped(pictures, matrix, first + torch.einsum("rij,rj->ri", matrix, last), size, self.fill)

    def _shifts(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        return (0, 2, self.jitter), (2, 4, self.jitter_after)


@dataclass(frozen=True)
class Still(Views):
    """The pictures as they are."""

    def draw(self, draws: Sequence[torch.Generator], steps: int) -> Float[Tensor, "row step number"]:
        return torch.zeros(len(draws), steps, 0)

    def views(
        self, pictures: Float[Tensor, "row channel y x"], drawn: Float[Tensor, "row number"], size: tuple[int, int]
    ) -> Float[Tensor, "view channel height width"]:
        return pictures if tuple(pictures.shape[-2:]) == size else shrunk(pictures, size)


@dataclass(frozen=True)
class Crops(Views):
    """Square crops at random, each brought to the size that the network reads, with noise.

    Args:
        count: crops of each picture at a step.
        centre: standard deviation of where they are centred, as a share of the picture.
        box: the smallest and the largest side of a crop, as shares of the picture.
        noise: standard deviation of the noise at the first and at the last step, in pixels of [0, 1].
        fill: what lies outside the picture.

    Source:
        Fel et al. 2023, MACO; Horama (six crops around the middle, sd 0.15, noise 0.05). There a crop of a picture of
        1280 pixels is 1.4 to 1.7 times as large as what the network reads; here too, with twice the network's size.
    """

    count: int = 6
    centre: float = 0.15
    box: tuple[float, float] = (0.5, 0.85)
    noise: tuple[float, float] = (0.05, 0.05)
    fill: float = 0.5

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.box[0] <= self.box[1] <= 1 or min(self.noise) < 0:
            raise BadInput(f"expected a crop or more, boxes within (0, 1], and noise of at least 0; got {self}")

    def draw(self, draws: Sequence[torch.Generator], steps: int) -> Float[Tensor, "row step number"]:
        drawn = []
        for g in draws:
            centres = torch.randn(steps, self.count, 2, generator=g)
            drawn.append(torch.cat([centres, torch.rand(steps, self.count, 1, generator=g)], -1).flatten(1))
        return torch.stack(drawn)

    def views(
        self, pictures: Float[Tensor, "row channel y x"], drawn: Float[Tensor, "row number"], size: tuple[int, int]
    ) -> Float[Tensor, "view channel height width"]:
        numbers = drawn.to(pictures.device).reshape(-1, 3)
        side = self.box[0] + (self.box[1] - self.box[0]) * numbers[:, 2]
        pixels = torch.tensor(pictures.shape[-2:]).to(numbers)
        room = (1 - side)[:, None] / 2  # a crop that reaches over the edge would show grey
        centre = (self.centre * numbers[:, :2]).clamp(-room, room) * pixels
        matrix = torch.diag_embed(side[:, None] * pixels / torch.tensor(size).to(numbers))
        return warped(pictures.repeat_interleave(self.count, 0), matrix, centre, size, self.fill)

    def disturbed(
        self, views: Float[Tensor, "view channel height width"], draws: Sequence[torch.Generator], share: float
    ) -> Float[Tensor, "view channel height width"]:
        first, last = self.noise
        sd = first * (last / first) ** share if min(self.noise) > 0 else first + (last - first) * share
        if not sd:
            return views
        each = (self.count, *views.shape[1:])
        noise = torch.cat([torch.randn(each, generator=g) for g in draws]).to(views)
        noisy = views + sd * noise
        # pixels outside [0, 1] do not exist, but their gradients must not be lost
        return noisy + (noisy.detach().clamp(0, 1) - noisy.detach())


LUCID = Robustness()


def warped(
    pictures: Float[Tensor, "view channel y x"],
    matrix: Float[Tensor, "view 2 2"],
    shift: Float[Tensor, "view 2"],
    size: tuple[int, int],
    fill: float,
) -> Float[Tensor, "view channel height width"]:
    """Pictures sampled at ``matrix @ (y, x) + shift``, in pixels from their middle, for each pixel of the view.

    Args:
        pictures: what is sampled, bilinearly.
        matrix: from (y, x) of the view, from its middle, to (y, x) of the picture.
        shift: in pixels of the picture.
        size: (height, width) of the views.
        fill: what lies outside.
    """
    half_view = torch.tensor(size).to(pictures) / 2
    half = torch.tensor(pictures.shape[-2:]).to(pictures) / 2
    unit = matrix * half_view / half[:, None]
    theta = torch.cat([unit, (shift / half)[..., None]], -1)
    theta = theta.flip(1)[:, :, [1, 0, 2]]  # torch counts x before y
    grid = F.affine_grid(theta.to(pictures), [len(pictures), pictures.shape[1], *size], align_corners=False)
    return F.grid_sample(pictures - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + fill


def shrunk(
    pictures: Float[Tensor, "row channel y x"], size: tuple[int, int]
) -> Float[Tensor, "row channel height width"]:
    """Pictures at another size, without aliasing."""
    return F.interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)


def _chosen(share: Float[Tensor, " row"], among: Sequence[int | float]) -> Float[Tensor, " row"]:
    index = (share * len(among)).long().clamp_max(len(among) - 1)
    return torch.tensor(among, dtype=share.dtype, device=share.device)[index]


def unseen(pictures: Float[Tensor, "row channel y x"], count: int, seed: int) -> Float[Tensor, "view row channel y x"]:
    """Views of kinds that no method here optimises through: sheared, stretched, and of other contrast and brightness.

    Args:
        pictures: in [0, 1]; all of them are changed in the same ways.
        count: how many views.
        seed: of the draws.
    """
    draws = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        shear, stretch, contrast, light = (2 * torch.rand(4, generator=draws) - 1).tolist()
        matrix = torch.tensor([[math.exp(0.1 * stretch), 0.0], [0.15 * shear, math.exp(-0.1 * stretch)]])
        some = warped(
            pictures, matrix.expand(len(pictures), 2, 2).to(pictures), torch.zeros(len(pictures), 2).to(pictures),
            (pictures.shape[-2], pictures.shape[-1]), 0.5,
        )  # fmt: skip
        rows.append(((some - 0.5) * (1 + 0.2 * contrast) + 0.5 + 0.05 * light).clamp(0, 1))
    return torch.stack(rows)
