"""Concepts and examples of networks that see, as `openwork bench seeing` asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from openwork.boards.changing import seen
from openwork.boards.frame import Contender, Terms
from openwork.boards.scoring import Answer
from openwork.boards.sights import channel, first_named, of_known, rests, unless
from openwork.boards.subjects import SIGHT, Sight
from openwork.results.claims import Standard
from openwork.vision.concepts.craft import Craft, craft
from openwork.vision.concepts.interpretability import Score, interpretability, mask_vectors
from openwork.vision.concepts.patch_concepts import PatchConcepts, patch_concepts
from openwork.vision.responses.exemplars import Exemplars, exemplars
from openwork.vision.responses.predicts import Predicting, predicts
from openwork.worlds.picture_array import PictureArray
from openwork.zoo.sighted import COLOURS, FIELD, FIRST_SITE, SECOND_SITE, Sighted

SHOWN = 9
"""Examples of each unit."""
GROUND = "ground"
TOLD, CARRIED = "patches tell the class", "the patches that speak most carry the class"
MASKS, THROUGH, BESIDE = "vectors of the masks", "units of the colours", "units of bars"


def _crafting(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How far the concepts that each class depends on are at each thing; of the first of each there is a claim."""
    answer, things = Answer({}), (GROUND, *sight.find.concepts["thing"])
    for target, label in enumerate(COLOURS):
        method = Craft(
            concepts=5, crops=6, images=24, design=8, claims=1, examples=12,
            standard=Standard(alpha=terms.alpha), seed=seed,
        )  # fmt: skip
        result = craft(sight.net, FIRST_SITE, sight.find, target, method, held_out=sight.held)
        heat = result.table["heat"].to_numpy()
        masks = _things(sight.find, _rows(sight, result.table["image"].to_numpy()))
        there = {thing: heat[:, masks == value] for value, thing in enumerate(things)}
        share = np.stack([part.mean(1) if part.size else np.zeros(len(heat)) for part in there.values()], 1)
        share /= np.maximum(share.sum(1, keepdims=True), 1e-12)
        amount = np.maximum(result.table["importance"].to_numpy(), 0) @ share
        scores = {rests(label, thing): float(v) for thing, v, part in zip(things, amount, there.values(), strict=True)
                  if part.size}  # fmt: skip
        claimed = [things[int(share[int(f.claim.split(" ")[1])].argmax())] for f in result.findings]
        answer |= Answer(scores).with_claims(result.findings, [rests(label, thing) for thing in claimed])
    return answer


def _rows(sight: Sight, images: np.ndarray) -> list[int]:
    """Which pictures these are."""
    pixels = sight.find.values.permute(0, 2, 3, 1).numpy()
    return [int(np.flatnonzero((pixels == image).all((1, 2, 3)))[0]) for image in images]


def _things(pictures: PictureArray, rows: Sequence[int]) -> np.ndarray:
    """Which thing is at each place: 0 where no filter sees any, -1 beside one."""
    masks = pictures.masks(rows)["thing"]
    near = torch.nn.functional.max_pool2d((masks > 0).float(), FIELD, 1, FIELD // 2) > 0
    return torch.where((masks == 0) & near, -1, masks).numpy()


def _patching(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How much what is seen at the places of each thing speaks for each class."""
    method = PatchConcepts(concepts=8, standard=Standard(alpha=terms.alpha), seed=seed)
    result = patch_concepts(sight.net, FIRST_SITE, sight.find, method, held_out=sight.held)
    weight, assigned = result.table["weight"].to_numpy(), result.table["assignment"].to_numpy()
    speaks = np.einsum("ck,nkyx->cnyx", weight - weight.mean(0), assigned)
    shown = _things(sight.held, range(len(assigned)))
    scores = {
        rests(label, thing): float(speaks[row][shown == value].mean())
        for row, label in enumerate(COLOURS)
        for value, thing in enumerate((GROUND, *sight.held.concepts["thing"]))
    }
    verdicts = {(TOLD if " tell what " in f.claim else CARRIED): seen(f) for f in result.findings}
    return Answer(scores, verdicts)


def _scoring(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How much more sparsely than random vectors some vectors carry the classes."""
    answer = Answer({})
    for site in (FIRST_SITE, SECOND_SITE):
        vectors = {MASKS: mask_vectors(sight.net, site, sight.find, list(range(len(sight.find))))}
        vectors |= {name: np.eye(sight.net.parts(site))[some] for name, some in _axes(sight, site).items()}
        for name, some in vectors.items():
            method = Score(drops=(0.0, 0.25, 0.5, 0.75), standard=Standard(alpha=terms.alpha), seed=seed)
            result = interpretability(sight.net, site, sight.find, method, vectors=some, held_out=sight.held)
            more = float(result.table["score"].mean() - result.table["random_score"].mean())
            answer |= Answer({carry(site, name): more}, {carry(site, name): seen(result.findings[0])})
    return answer


def _axes(sight: Sight, site: str) -> dict[str, list[int]]:
    """Units of a site that the classes go through, and such as they do not; of a null none is known."""
    if sight.known is None:
        return {}
    known = sight.known
    through = [unit for edge in known.edges for unit in edge]
    beside = [*known.gratings, *known.striped, known.union]
    sides = ((THROUGH, through), (BESIDE, beside))
    return {name: sorted(channel(unit) for unit in units if unit.startswith(site)) for name, units in sides}


def _predicting(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How often the examples of one unit tell which of two pictures activates another, or the same one, more."""
    assert sight.known is not None
    units = _known_units(sight.known)
    found = exemplars(sight.net, units, sight.find, Exemplars(top=SHOWN, bottom=1, split="all", seed=seed)).table
    rows = dict(zip(map(str, found["unit"].to_numpy()), found["row"].to_numpy()[:, :SHOWN].tolist(), strict=True))
    answer = Answer({})
    for shift in range(len(units)):
        of = {unit: units[(place + shift) % len(units)] for place, unit in enumerate(units)}
        references = {unit: sight.find.pixels(rows[other]) for unit, other in of.items()}
        method = Predicting(gaps=(1.0,), standard=Standard(alpha=terms.alpha), seed=seed)
        result = predicts(sight.net, units, sight.held, method, references=references)
        accuracy = result.table["accuracy"].to_numpy()[:, 0]
        scores = {tells(of[u], u): 0.5 if np.isnan(v) else float(v) for u, v in zip(units, accuracy, strict=True)}
        claimed = [first_named(f, units) for f in result.findings]
        answer |= Answer(scores).with_claims(result.findings, [tells(of[unit], unit) for unit in claimed])
    return answer


def _known_units(known: Sighted) -> list[str]:
    """Units of the first layer that fire at one thing each, and the one that fires at nothing."""
    colours = [sender for sender, _ in known.edges]
    return sorted([*colours, *known.gratings, *known.dead], key=channel)


def carry(site: str, vectors: str) -> str:
    """Vectors that carry the classes at a site, as an item of the board."""
    return f"{site}: {vectors}"


def tells(examples: str, unit: str) -> str:
    """Examples of one unit that tell what another does, as an item of the board."""
    return f"examples of {examples} tell of {unit}"


def _told(known: Sighted) -> Iterable[str]:
    return (tells(unit, unit) for unit in _known_units(known) if unit not in known.dead)


def _carrying(_: Sighted) -> list[str]:
    return [carry(site, some) for site in (FIRST_SITE, SECOND_SITE) for some in (MASKS, THROUGH)]


def _own(known: Sighted) -> list[str]:
    return [rests(label, label) for label in known.critical]


CONTENDERS = {
    "CRAFT": Contender(
        "at which things the concepts of each class are", "classes and things", _crafting, of_known(_own),
        unless("what random weights put into a class rests on some of them, and on which is not known"), SIGHT,
    ),
    "patch concepts": Contender(
        "which patches speak for each class", "classes and things", _patching,
        of_known(lambda known: [TOLD, CARRIED, *_own(known)]),
        unless("what random weights say of a picture rests on its patches as well"), SIGHT,
    ),
    "interpretability score": Contender(
        "which vectors carry the classes sparsely; only observed", "sets of vectors", _scoring,
        of_known(_carrying), kind=SIGHT,
    ),
    "exemplar test": Contender(
        "whose examples tell which of two pictures activates a unit more; only observed", "pairs of units",
        _predicting, of_known(_told), unless("what activates random weights is not known"), SIGHT,
    ),
}  # fmt: skip
"""Name -> method."""
