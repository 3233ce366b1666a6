"""Whether the patches that interpreters drop are those that a network does not need, and what dropping them saves.

Source: Pan et al. 2021, IA-RED2, section 4 (against random and attention-ranked dropping).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from openwork.edit import Drop
from openwork.errors import BadInput
from openwork.evidence import wilson_interval
from openwork.pictures import Masked
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.vision.passes import encoded
from openwork.vision.tokens.interpreters import KEEP, Judges, Policy
from openwork.vision.tokens.own_class import own_class

if TYPE_CHECKING:
    from openwork.network import Network

Tick = Callable[[float], None]
RANDOM = "as many patches, by random scores"
SHOWN = 8
"""Images whose scores are drawn."""


@dataclass(frozen=True)
class Dropping:
    """How dropping is tested.

    Args:
        shares: of the patches that stay, besides what the interpreters themselves keep.
        batch: images that run at once.
        standard: what the claim must meet.
        seed: of the controls.
    """

    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    batch: int = 64
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < s < 1 for s in self.shares) or self.batch < 1:
            raise BadInput(f"expected shares between 0 and 1 and a batch of 1 or more; got {self}")


def drop_patches(
    net: Network,
    judges: Judges,
    pictures: Masked,
    method: Dropping = Dropping(),
    rows: Sequence[int] | None = None,
    *,
    tick: Tick = lambda share: None,
) -> Result:
    """Drop patches by the interpreters' scores on images that they have not seen.

    Args:
        net: the network.
        judges: see `openwork.vision.tokens.interpreters.learn_interpreters`.
        pictures: images with classes, not those learned from.
        method: how.
        rows: which images; all unless given.
        tick: told the share that is done.

    Returns:
        a table by ``image`` and place (``y``, ``x``): ``score`` of the first interpreter, ``depth`` (how many
        interpreters kept the patch); by ``share`` and ``order`` (interpreter, random, attention of the first token):
        ``accuracy`` with ends; and in its attributes, ``whole_accuracy``, ``policy_accuracy`` and
        ``policy_share`` of the interpreters' own choice with ``work`` (tokens times blocks, as a share). The finding:
        taking the patches of lowest score costs the true class less log-probability than taking those of highest score,
        beyond what the classes of other images gain by it; its controls are random scores.

    Raises:
        BadInput: for images without classes or judges of another network.
    """
    rows = list(range(len(pictures)) if rows is None else rows)
    stage = _Stage(net, judges, pictures, rows, method.batch)
    kept, scores, policy = stage.policy()
    orders = {"interpreter": scores, "attention": stage.attention()}
    tick(0.2)
    rng = np.random.default_rng(method.seed)
    orders["random"] = rng.random(scores.shape)
    whole = stage.log_probabilities(None)
    accuracy = np.zeros((len(method.shares), len(orders), 3))
    for s, share in enumerate(method.shares):
        for o, values in enumerate(orders.values()):
            right = stage.right(stage.log_probabilities(stage.lowest(values, share)))
            accuracy[s, o] = _share(right)
        tick(0.2 + 0.4 * (s + 1) / len(method.shares))
    claims = Claims(net, {"pictures": pictures.digest, "rows": rows}, _settings(method, judges), method.seed)
    finding = _claim(stage, claims, scores, whole, method, rng)
    tick(1.0)
    table = _table(net, stage, kept, scores, accuracy, list(orders), method)
    table.attrs.update(
        whole_accuracy=float(stage.right(whole).mean()), policy_accuracy=float(stage.right(policy).mean()),
        policy_share=float(kept[-1].mean()), work=stage.work(kept),
    )  # fmt: skip
    remarks = (
        f"{table.attrs['whole_accuracy']:.1%} right with all patches, {table.attrs['policy_accuracy']:.1%} with the "
        f"{table.attrs['policy_share']:.0%} that the interpreters leave, at {table.attrs['work']:.0%} of the work",
    )
    return Result("patch dropping", (finding,), table, claims.settings, remarks)


class _Stage:
    """The images of one call."""

    def __init__(self, net: Network, judges: Judges, pictures: Masked, rows: Sequence[int], batch: int):
        self.net, self.judges, self.pictures, self.rows, self.batch = net, judges, pictures, rows, batch
        self.labels = pictures.classes(rows).long().numpy()
        self.grid = net.grid("blocks.0.resid_pre")
        if judges.prefix != self.grid.prefix or max(judges.at) >= net.n_blocks:
            raise BadInput(f"expected interpreters of {net.name}; they look at blocks {sorted(judges.at)}")

    def _batches(self):
        for start in range(0, len(self.rows), self.batch):
            at = slice(start, start + self.batch)
            yield at, encoded(self.net, self.pictures.pixels(self.rows[at]))

    def policy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What stays by the interpreters, (group, image, patch); the first one's scores; and log-probabilities."""
        kept, scores, out = [], [], []
        for _, images in self._batches():
            seen: list[torch.Tensor] = []

            def choose(block: int, values: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
                seen.append(values)
                return values >= KEEP

            policy = Policy(self.net, self.judges.at, self.judges.prefix, choose)
            out.append(self.net.run(images, edits=policy.edits()).logits.float().log_softmax(-1).cpu())
            kept.append(torch.stack([policy.kept[b] for b in sorted(policy.kept)]).cpu())
            scores.append(seen[0].cpu())
        return torch.cat(kept, 1).numpy(), torch.cat(scores).numpy(), torch.cat(out).numpy()

    def attention(self) -> Float[np.ndarray, "image patch"]:
        """How much the first token looks at each patch in the first judged block, all heads together."""
        site = f"blocks.{min(self.judges.at)}.attn.pattern"
        first = self.grid.prefix
        if not first:
            raise BadInput(
                f"expected a token before the patches to rank them by its attention; {self.net.name} has none"
            )
        rows = [self.net.run(images, keep=site, until=site)[site] for _, images in self._batches()]
        return np.concatenate([r[:, :, 0, first:].mean(1).float().cpu().numpy() for r in rows])

    def lowest(self, scores: np.ndarray, share: float) -> np.ndarray:
        """The patches of lowest score, so that a share stays: (image, count)."""
        count = min(max(1, round((1 - share) * scores.shape[1])), scores.shape[1] - 1)
        return np.argsort(scores, axis=1, kind="stable")[:, :count]

    def log_probabilities(self, gone: np.ndarray | None) -> Float[np.ndarray, "image class"]:
        """Of all classes, with some patches of each image taken out before the first judged block."""
        site, out = f"blocks.{min(self.judges.at)}.resid_pre", []
        for at, images in self._batches():
            edits = [] if gone is None else [Drop(site, positions=gone[at] + self.grid.prefix)]
            out.append(self.net.run(images, edits=edits).logits.float().log_softmax(-1).cpu())
        return torch.cat(out).numpy().astype(np.float64)

    def right(self, log_probabilities: np.ndarray) -> np.ndarray:
        """Whether the class is named."""
        return log_probabilities.argmax(1) == self.labels

    def work(self, kept: np.ndarray) -> float:
        """Tokens times blocks that are left, as a share of all."""
        starts = [*sorted(self.judges.at), self.net.n_blocks]
        prefix, patches = self.grid.prefix, kept.shape[2]
        spent = starts[0] * (prefix + patches)
        for stays, first, end in zip(kept, starts[:-1], starts[1:], strict=True):
            spent += (end - first) * (prefix + float(stays.sum(1).mean()))
        return spent / (self.net.n_blocks * (prefix + patches))


def _claim(
    stage: _Stage, claims: Claims, scores: np.ndarray, whole: np.ndarray, method: Dropping, rng: np.random.Generator
):
    middle = sorted(method.shares)[len(method.shares) // 2]

    def gain(values: np.ndarray) -> np.ndarray:
        low, high = (stage.log_probabilities(stage.lowest(order, middle)) for order in (values, -values))
        return own_class(low - high, stage.labels)

    own = whole[np.arange(len(scores)), stage.labels]
    criteria = method.standard.criteria(float(np.abs(own).mean() + 1), "nats")
    controls = np.array([gain(rng.random(scores.shape)).mean() for _ in range(criteria.controls_needed)])
    text = f"losing the {1 - middle:.0%} of patches that score lowest costs the class less than losing the highest"
    return claims.claim(text, gain(scores), criteria, "held-out", controls, RANDOM)


def _share(right: np.ndarray) -> tuple[float, float, float]:
    interval = wilson_interval(int(right.sum()), len(right))
    return float(right.mean()), interval.low, interval.high


def _table(
    net: Network, stage: _Stage, kept: np.ndarray, scores: np.ndarray, accuracy: np.ndarray, orders: list[str],
    method: Dropping,
):  # fmt: skip
    import xarray

    grid = stage.grid
    shape = (len(scores), grid.height, grid.width)
    variables = {
        "score": (("image", "y", "x"), scores.reshape(shape)),
        "depth": (("image", "y", "x"), kept.sum(0).reshape(shape)),
        "accuracy": (("share", "order"), accuracy[..., 0]),
        "accuracy_low": (("share", "order"), accuracy[..., 1]),
        "accuracy_high": (("share", "order"), accuracy[..., 2]),
        "picture": (
            ("shown", "row", "column", "colour"),
            stage.pictures.pixels(stage.rows[:SHOWN]).permute(0, 2, 3, 1).numpy(),
        ),
    }
    shown = np.arange(min(SHOWN, len(stage.rows)))
    coordinates = {"shown": shown, "image": np.array(stage.rows), "share": list(method.shares), "order": orders}
    table = xarray.Dataset(variables, coordinates)
    table.attrs.update(network=net.name, unit="score", groups=sorted(stage.judges.at))
    return table


def _settings(method: Dropping, judges: Judges) -> dict[str, object]:
    own = {k: v for k, v in asdict(method).items() if k not in ("standard", "shares")}
    return {**own, "shares": list(method.shares), "standard": asdict(method.standard), "groups": sorted(judges.at)}
