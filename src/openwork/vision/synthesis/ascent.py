"""The ascent itself: many pictures at once, each on its own, through as much of the network as their units need."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from openwork.errors import BadInput
from openwork.network.image_format import needs_images
from openwork.network.inputs import Prepared
from openwork.network.run import called, eagerly
from openwork.network.session import Session, Stop, Visit
from openwork.pictures import ImageFormat
from openwork.vision.synthesis.colour import IMAGENET, Colour
from openwork.vision.synthesis.objective import Objective, Rows
from openwork.vision.synthesis.objectives import Objectives
from openwork.vision.synthesis.parameterisation import Fourier, Parameterisation, Shape
from openwork.vision.synthesis.redirected import RedirectedRelu
from openwork.vision.synthesis.robustness import LUCID, Views

if TYPE_CHECKING:
    from openwork.network import Network

CHECKED = 32
"""Steps between looks at whether a unit of its own, whatever else its objective holds, gets a gradient."""
COARSE = 8
"""Cells along a side of the random backgrounds behind transparent pictures."""
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Drawing:
    """How pictures are made.

    Args:
        image: what is optimised.
        colour: of the pictures.
        size: (height, width) of the pictures.
        views: how they are shown to the network.
        steps: of the optimiser.
        rate: of the optimiser.
        optimiser: ``adam``; ``nadam``; or ``ascent``: steps along the gradient over its mean absolute value.
        redirected: for how many steps silent ReLUs pass gradients.
        alpha: whether the pictures are transparent where nothing matters.
        fixed_view: (height, width) of the views; what the network reads unless given.
    """

    image: Parameterisation = field(default_factory=Fourier)
    colour: Colour = IMAGENET
    size: tuple[int, int] = (64, 64)
    views: Views = LUCID
    steps: int = 512
    rate: float = 0.05
    optimiser: Literal["adam", "nadam", "ascent"] = "adam"
    redirected: int = 16
    alpha: bool = False
    fixed_view: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Drawn:
    """Finished pictures.

    Args:
        pixels: in [0, 1].
        alpha: opacity, or None.
        gradient: the sum over steps of the gradients' absolute values, mean over colours: where the unit looked.
        alive: whether the unit itself ever got a gradient.
        course: the objective at each step.
    """

    pixels: Float[Tensor, "row channel y x"]
    alpha: Float[Tensor, "row y x"] | None
    gradient: Float[Tensor, "row y x"]
    alive: Bool[Tensor, " row"]
    course: Float[Tensor, "row step"]


def format_of(net: Network) -> ImageFormat:
    """What a network wants of an image.

    Raises:
        BadInput: if it reads no images, or it is not known how.
    """
    return needs_images(net)


def size_of(net: Network) -> tuple[int, int]:
    """(height, width) of the images that a network reads: the only ones, or those that it was opened with."""
    size = format_of(net).size
    if size is not None:
        return int(size[0]), int(size[1])
    sides = net.example[net.preparer.main].shape[-2:]
    return int(sides[0]), int(sides[1])


class Watching:
    """Runs a network as far as some sites need, with their values as parts of the graph. No hook outlives a call.

    Args:
        net: the network.
        sites: which.
    """

    def __init__(self, net: Network, sites: Sequence[str]):
        self.net, self.sites, self.format = net, tuple(sites), format_of(net)

    def __call__(self, pixels: Float[Tensor, "row channel y x"]) -> dict[str, Tensor]:
        """The values of the sites, one row a picture.

        Args:
            pixels: in [0, 1].

        Raises:
            BadInput: if the network cannot read them.
        """
        values = self.format.encode(pixels.to(self.net.device)).to(self.net.dtype)
        # convolutions on a CPU take half the time where channels lie together
        values = values.contiguous(memory_format=torch.channels_last)
        prepared: Prepared = self.net.preparer.prepare(values)
        seen: dict[str, Tensor] = {}
        with eagerly(self.net), Session(self.net.root, len(pixels)) as session:
            for site in self.sites:
                self.net.map.port(site).attach(session, self._keeping(seen, site), False)
            session.install()
            with contextlib.suppress(Stop):
                called(self.net, prepared)
        missing = [site for site in self.sites if site not in seen]
        if missing:
            raise BadInput(f"expected pictures to go through {missing[0]}; these do not")
        return seen

    def _keeping(self, seen: dict[str, Tensor], site: str) -> Visit:
        def visit(value: Tensor) -> None:
            seen[site] = value
            if len(seen) == len(self.sites):
                raise Stop

        return visit


def ascend(
    net: Network,
    objectives: Sequence[Objective],
    own: Sequence[Objective],
    units: Sequence[int],
    seeds: Sequence[int],
    drawing: Drawing,
    tick: Callable[[float], None],
) -> Drawn:
    """Make pictures that make objectives large, one each.

    Args:
        net: the network.
        objectives: one a picture.
        own: the same without what concerns the pictures themselves, to see whether anything reaches the unit.
        units: the number of each one's unit; those of one unit are variants.
        seeds: of all that is drawn for each.
        drawing: how.
        tick: told the share that is done.

    Raises:
        BadInput: if an objective is not finite.
    """
    rows = Rows(tuple(units))
    total, alone = Objectives(net, objectives, units), Objectives(net, own, units)
    watching = Watching(net, tuple(dict.fromkeys((*total.sites, *alone.sites))))
    channels = watching.format.channels
    shape = Shape(channels + drawing.alpha, *drawing.size)
    colour, device, view_size = drawing.colour.of(channels), net.device, drawing.fixed_view or size_of(net)
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    numbers = {k: v.to(device).requires_grad_() for k, v in drawing.image.start(draws, rows, shape).items()}
    drawn = drawing.views.draw(draws, drawing.steps).to(device)
    optimiser = _optimiser(drawing, list(numbers.values()))
    gradient = torch.zeros(len(seeds), *drawing.size, device=device)
    alive = torch.zeros(len(seeds), dtype=torch.bool, device=device)
    course = torch.zeros(len(seeds), drawing.steps, device=device)
    penalised, shortly = objectives is not own, drawing.steps <= drawing.redirected
    for step in range(drawing.steps):
        picture = _picture(drawing, numbers, rows, shape, colour)
        shown, faint = (picture[:, :channels], picture[:, channels]) if drawing.alpha else (picture, None)
        if faint is not None:
            shown = shown * faint[:, None] + (1 - faint[:, None]) * _backgrounds(draws, shown)
        redirects = step < drawing.redirected
        with RedirectedRelu() if redirects else contextlib.nullcontext(), torch.enable_grad():
            views = drawing.views.views(shown, drawn[:, step], view_size)
            views = drawing.views.disturbed(views, draws, step / max(1, drawing.steps - 1))
            seen = watching(views)
            values = _over_views(total, seen, picture[:, :channels], len(views) // len(seeds))
            goal = values if faint is None else values * (1 - faint.flatten(1).mean(1))
        if not bool(torch.isfinite(values).all()):
            wrong = [objectives[i] for i in torch.nonzero(~torch.isfinite(values)).flatten().tolist()]
            raise BadInput(f"expected finite activations; step {step} gave NaN or infinity for {str(wrong[0])[:200]}")
        if not goal.requires_grad:
            raise BadInput("expected units that depend on the image; nothing of these does")
        look = penalised and (step % CHECKED == drawing.redirected % CHECKED or step == drawing.steps - 1)
        if look and (shortly or not redirects):
            sole = _over_views(alone, seen, picture[:, :channels], len(views) // len(seeds))
            if sole.requires_grad:
                reached = torch.autograd.grad(sole.sum(), shown, retain_graph=True, allow_unused=True)[0]
                alive |= _any(reached, alive)
        grads = torch.autograd.grad(-goal.sum(), [*numbers.values(), shown], allow_unused=True)
        toward = grads[-1]
        if toward is not None:
            gradient += toward.abs().mean(1)
            if not penalised and (shortly or not redirects):
                alive |= _any(toward, alive)
        for number, grad in zip(numbers.values(), grads[:-1], strict=True):
            number.grad = torch.zeros_like(number) if grad is None else _direction(drawing, grad)
        optimiser.step()
        course[:, step] = values.detach()
        tick((step + 1) / drawing.steps)
    with torch.no_grad():
        picture = _picture(drawing, numbers, rows, shape, colour)
    alpha = picture[:, channels].cpu() if drawing.alpha else None
    return Drawn(picture[:, :channels].cpu(), alpha, gradient.cpu(), alive.cpu(), course.cpu())


def measured(
    net: Network, objectives: Sequence[Objective], units: Sequence[int], pixels: Float[Tensor, "row channel y x"]
) -> Float[Tensor, " row"]:
    """The objectives of pictures as they are."""
    total = Objectives(net, objectives, units)
    with torch.no_grad():
        return total(Watching(net, total.sites)(pixels), pixels).float().cpu()


def bytes_a_row(net: Network, sites: Sequence[str], views: int) -> int:
    """What one picture holds alive until its gradient is there, found by running one."""
    found: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in net.root.parameters()}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return value

    channels = format_of(net).channels
    pixels = torch.full((1, channels, *size_of(net)), 0.5, device=net.device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value), torch.enable_grad():
        held = Watching(net, sites)(pixels)
    total = sum(found.values()) + sum(value.untyped_storage().nbytes() for value in held.values())
    return views * (total + 8 * pixels.numel() * pixels.element_size())


def _picture(
    drawing: Drawing, numbers: Mapping[str, Tensor], rows: Rows, shape: Shape, colour: Colour
) -> Float[Tensor, "row channel y x"]:
    components = drawing.image.components(numbers, rows, shape)
    if not drawing.alpha:
        return colour.pixels(components)
    return torch.cat([colour.pixels(components[:, :-1]), torch.sigmoid(components[:, -1:])], 1)


def _over_views(total: Objectives, seen: Mapping[str, Tensor], pictures: Tensor, count: int) -> Float[Tensor, " row"]:
    if count == 1:
        return total(seen, pictures)
    each = [total({site: value[i::count] for site, value in seen.items()}, pictures) for i in range(count)]
    return torch.stack(each).mean(0)


def _backgrounds(draws: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Smooth random pictures."""
    coarse = torch.stack([torch.rand(like.shape[1], COARSE, COARSE, generator=g) for g in draws]).to(like)
    return F.interpolate(coarse, like.shape[-2:], mode="bilinear", align_corners=False)


def _optimiser(drawing: Drawing, numbers: list[Tensor]) -> torch.optim.Optimizer:
    if drawing.optimiser == "adam":
        return torch.optim.Adam(numbers, lr=drawing.rate)
    if drawing.optimiser == "nadam":
        return torch.optim.NAdam(numbers, lr=drawing.rate)
    return torch.optim.SGD(numbers, lr=drawing.rate)


def _direction(drawing: Drawing, grad: Tensor) -> Tensor:
    if drawing.optimiser != "ascent":
        return grad
    return grad / (grad.abs().flatten(1).mean(1).reshape(-1, *(1,) * (grad.ndim - 1)) + TINY)


def _any(grad: Tensor | None, like: Tensor) -> Bool[Tensor, " row"]:
    return torch.zeros_like(like) if grad is None else (grad != 0).flatten(1).any(1)
