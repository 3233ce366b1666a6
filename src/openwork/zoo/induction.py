"""Induction, planted by hand and known edge by edge: A B … A predicts B.

A previous-token head of block 0 writes, at each token, what stood before it; an induction head of block 1 looks for the
place whose predecessor is the present token and copies what stands there. All other heads are random and small.

    network = Induction()                      # two layers of attention; head 2 of block 0, head 7 of block 1
    network.known.edges                        # embed -> v of the first head, its z -> k of the second, ...
    bare = Induction(planted=False)            # the same noise, the planted heads random too; known is empty
    task = induction_task(network.shape.vocabulary, n=64)   # token groups "previous", "copied", "last"
    net = openwork.open(network)

`known` is stated for the token groups of `induction_task`. The path of the answer is: embed → v of the previous-token
head (at "copied", looking at "previous") → its z → k of the induction head (at "copied"); embed → q of the induction
head (at "last"); embed → v of the induction head (at "copied"); its z at "last" → logits.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (induction by K-composition).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.site import Edge, Site
from openwork.task import Task
from openwork.zoo.handmade import SPACE, Handmade, Shape, back, codes, paces, place_codes
from openwork.zoo.known import Known, Look, at

TOKEN, PLACE, BEFORE, OUTPUT = (slice(i * SPACE, (i + 1) * SPACE) for i in range(4))
GAIN = 12.0
"""Logit of a token whose code the induction head has copied whole."""


@dataclass(frozen=True)
class Plant:
    """Where the mechanism lies.

    Args:
        before: heads of block 0 that attend to the previous token, each with an equal share of the work.
        induction: heads of block 1 that do induction, likewise.
        heads: heads of each block.
        noise: size of everything else; 0 for none.
        uneven: how unequal the shares are: each is multiplied by a random number from 1 − uneven to 1 + uneven.
        mlp: hidden units of an MLP of random weights in each block; 0 for attention alone.
    """

    before: Sequence[int] = (2,)
    induction: Sequence[int] = (7,)
    heads: int = 12
    noise: float = 0.15
    uneven: float = 0.0
    mlp: int = 0

    def __post_init__(self) -> None:
        for name in ("before", "induction"):
            if not getattr(self, name) or not set(getattr(self, name)) <= set(range(self.heads)):
                raise BadInput(f"expected {name} heads below {self.heads}, at least one; got {getattr(self, name)}")


class Induction(Handmade):
    """Two blocks of attention, without norms, in which induction is planted.

    Args:
        vocabulary: number of token ids.
        plant: where the mechanism lies.
        context: most tokens.
        seed: of codes and of noise.
        planted: False for the copy without the mechanism: everything else is equal, the planted heads stay random.

    Attributes:
        known: the mechanism.
    """

    def __init__(
        self, vocabulary: int = 48, plant: Plant = Plant(), context: int = 96, seed: int = 0, planted: bool = True
    ):
        generator = torch.Generator().manual_seed(seed)
        shape = Shape(vocabulary, heads=plant.heads, mlp=plant.mlp, context=context, noise=plant.noise)
        super().__init__(shape, generator)
        code, pace = codes(vocabulary, generator), paces(generator)
        with torch.no_grad():
            self.tokens.weight[:, TOKEN] = code
            self.places.weight[:, PLACE] = place_codes(context, pace)
            self.unembed.weight[:, OUTPUT] = GAIN * code
            self.unembed.weight[:, TOKEN] = plant.noise * torch.randn(vocabulary, SPACE, generator=generator)
        self.known = Known()
        if planted:
            self.known = _known(plant)
            self._plant(0, plant.before, _shares(plant.before, plant.uneven, generator), back(pace))
            self._plant(1, plant.induction, _shares(plant.induction, plant.uneven, generator), torch.eye(SPACE))

    def _plant(self, number: int, heads: Sequence[int], shares: Float[Tensor, " head"], turn: Tensor) -> None:
        look, key, write = (PLACE, PLACE, BEFORE) if number == 0 else (TOKEN, BEFORE, OUTPUT)
        for head, share in zip(heads, shares.tolist(), strict=True):
            self.block(number).attn.plant(head, look, key, turn, TOKEN, write, share)


def _shares(heads: Sequence[int], uneven: float, generator: torch.Generator) -> Float[Tensor, " head"]:
    shares = 1 + uneven * (2 * torch.rand(len(heads), generator=generator) - 1)
    return shares / shares.sum()


def _known(plant: Plant) -> Known:
    first = [Site("blocks.0.attn.z", (head,)) for head in plant.before]
    second = [Site("blocks.1.attn.z", (head,)) for head in plant.induction]
    embed, logits = Site("embed"), Site("logits")
    edges = [Edge(embed, _input(site, part)) for site in first for part in "qkv"]
    edges += [Edge(sender, _input(site, "k")) for sender in first for site in second]
    edges += [Edge(embed, _input(site, part)) for site in second for part in "qv"]
    edges += [Edge(site, logits) for site in second]
    looks = [Look(_input(site, "pattern"), "copied", "previous") for site in first]
    looks += [Look(_input(site, "pattern"), "last", "copied") for site in second]
    roles = {
        "previous token": tuple(at(site.path, "copied", *site.index) for site in first),
        "induction": tuple(at(site.path, "last", *site.index) for site in second),
    }
    return Known(roles, tuple(edges), tuple(looks))


def _input(z: Site, part: str) -> Site:
    """Another site of the same head."""
    return Site(z.path.removesuffix("z") + part, z.index)


def induction_task(
    vocabulary: int = 48, n: int = 64, seed: int = 0, span: int = 12, repeated: int = 4, pairs: int = 0
) -> Task:
    """Random tokens, some of which are repeated, and the twin in which the repeated pair is broken.

    A row is `span` distinct tokens, then `repeated` of them again, from a random place. Its last token A stood earlier
    (group "previous"), followed by B (group "copied"), which is the answer. The corrupted row has in place of B a token
    that stands nowhere else, which is the wrong answer. All rows are of one length.

    Args:
        vocabulary: number of token ids.
        n: number of examples.
        seed: of the tokens and of the split.
        span: how many distinct tokens.
        repeated: how many of them again.
        pairs: if above 0, A comes from the first so many tokens, B and the wrong answer from as many after those, and
            none of these stands anywhere else, so that examples agree in A, or in B, by chance.

    Returns:
        the task, half of it held out.

    Raises:
        BadInput: if the span does not fit into the vocabulary or has no room for the repetition.
    """
    if not 2 <= repeated < span < vocabulary - 2 * pairs or pairs == 1:
        raise BadInput(
            f"expected 2 <= repeated < span < vocabulary - 2 * pairs, and no single pair; got {repeated}, {span}, "
            f"{vocabulary} and {pairs}"
        )
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted, right, wrong, place = [], [], [], [], []
    for _ in range(n):
        drawn = torch.randperm(vocabulary - 2 * pairs, generator=generator)[: span + 1] + 2 * pairs
        *tokens, other = drawn.tolist()
        start = int(torch.randint(0, span - repeated, (1,), generator=generator))
        k = start + repeated - 1
        if pairs:
            tokens[k] = int(torch.randint(0, pairs, (1,), generator=generator))
            tokens[k + 1], other = (torch.randperm(pairs, generator=generator)[:2] + pairs).tolist()
        broken = [*tokens[: k + 1], other, *tokens[k + 2 :]]
        clean.append([*tokens, *tokens[start : k + 1]])
        corrupted.append([*broken, *tokens[start : k + 1]])
        right.append(tokens[k + 1])
        wrong.append(other)
        place.append(k)
    groups = {"previous": [[k] for k in place], "copied": [[k + 1] for k in place], "last": [[span + repeated - 1]] * n}
    return Task.from_tokens(clean, corrupted, right, wrong, groups=groups, name="induction")
