"""Circuits between channels, as `openwork bench seeing` asks for them: kernels, unions, shared units, places, steps.

Where the spots of a sight show too little, the pictures are `openwork.zoo.sighted.patches`, on which bars come and go.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from openwork.boards.frame import Contender, Terms
from openwork.boards.scoring import Answer
from openwork.boards.sights import channel, named, number, of_known, rests, scenes, unless
from openwork.boards.subjects import SIGHT, SPOTS, Sight
from openwork.finding import Verdict
from openwork.results.claims import Standard
from openwork.site import Site
from openwork.vision.circuits.expanded import Expanding, expanded_weights
from openwork.vision.circuits.hierarchy import Climbing, hierarchy
from openwork.vision.circuits.pairs import Pairs, covered
from openwork.vision.circuits.places import Placing, patch_places
from openwork.vision.circuits.superposed import Sharing, superposed
from openwork.vision.circuits.unions import Uniting, unions
from openwork.vision.dissection.dissect import Dissection, dissect
from openwork.zoo.sighted import COLOURS, FIELD, FIRST_SITE, PATCHES, SECOND_SITE, SIDE, SPOT, Sighted

CORNER = (SIDE - SPOT) // 2
"""First row and column of a square that was moved to the middle."""
BLUR = 1 + FIELD // 2
"""Pixels from a square within which detectors may see it."""


def _expanding(sight: Sight, terms: Terms, seed: int) -> Answer:
    """The strength of the kernel of every pair of units."""
    find, held = scenes(sight, "colour")
    method = Expanding(entries=16, standard=Standard(alpha=terms.alpha), seed=seed)
    result = expanded_weights(sight.net, find, FIRST_SITE, SECOND_SITE, method, held_out=held)
    strength = result.table["strength"]
    scores = {
        weighs(named(FIRST_SITE, sender), named(SECOND_SITE, receiver)): float(value)
        for receiver, row in zip(strength["out_unit"].to_numpy(), strength.to_numpy(), strict=True)
        for sender, value in zip(strength["in_unit"].to_numpy(), row, strict=True)
    }
    return Answer(scores).with_claims(result.findings, [FORETOLD])


def _uniting(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How much each unit weighs the member of each set that counts least for it."""
    sets = _sets(sight)
    method = Uniting(images=SPOTS, alpha=terms.alpha, draws=9999, standard=Standard(alpha=terms.alpha), seed=seed)
    result = unions(sight.net, sight.find, sets, FIRST_SITE, SECOND_SITE, method, held_out=sight.held)
    least = result.table["least"]
    units = [named(SECOND_SITE, unit) for unit in least["unit"].to_numpy()]
    scores = {
        unites(unit, some): float(value)
        for unit, row in zip(units, least.to_numpy(), strict=True)
        for some, value in zip(sets, row, strict=True)
    }
    claimed = [
        next(unites(unit, some) for unit in units for some in sets
             if f.claim.startswith(f"{unit} over channels {', '.join(map(str, some))} of"))
        for f in result.findings
    ]  # fmt: skip
    return Answer(scores).with_claims(result.findings, claimed)


def _sets(sight: Sight) -> list[list[int]]:
    """The turned units, and the three of colours with the one that nothing moves; of a null any two sets of four."""
    if sight.known is None:
        return [[0, 1, 2, 3], [4, 5, 6, 7]]
    others = [sender for sender, _ in sight.known.edges] + [*sight.known.dead]
    return [_numbers(sight.known.gratings), _numbers(others)]


def _numbers(units: Iterable[str]) -> list[int]:
    return sorted(map(channel, units))


def _sharing(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How clearly two unrelated concepts share each unit."""
    find, held = scenes(sight, "colour", "pattern")
    method = Sharing(images=SPOTS, standard=Standard(alpha=terms.alpha), seed=seed)
    units = () if sight.known is None else _numbers(made(sight.known, FIRST_SITE) | sight.known.dead)
    result = superposed(sight.net, find, Site(FIRST_SITE, tuple(units)), SECOND_SITE, method, held_out=held)
    table = result.table
    scores = {named(FIRST_SITE, unit): 0.0 for unit in table["unit"].to_numpy()}
    if "score" in table:
        for unit, score in zip(table["shared_unit"].to_numpy(), table["score"].to_numpy(), strict=True):
            scores[named(FIRST_SITE, unit)] = max(scores[named(FIRST_SITE, unit)], float(score))
    return Answer(scores).with_claims(result.findings, [f.claim.split(" ")[0] for f in result.findings])


def _placing(sight: Sight, terms: Terms, seed: int) -> Answer:
    """What comes back of a class's answer by each place of the square and around it, and by each unit."""
    label = _asked(sight)
    method = Placing(pairs=24, channels=1, standard=Standard(alpha=terms.alpha), seed=seed)
    result = patch_places(sight.net, _centred(covered(sight.find, "thing", label)), FIRST_SITE, method)
    effect, by_unit = result.table["place_effect"].to_numpy(), result.table["channel_effect"].to_numpy()
    scores = {at(label, y, x): float(effect[y, x]) for y in range(SIDE) for x in range(SIDE) if not _near(y, x)}
    scores |= {rests(label, named(FIRST_SITE, c)): float(v) for c, v in enumerate(by_unit)}
    best = rests(label, named(FIRST_SITE, int(by_unit.argmax())))
    return Answer(scores).with_claims(
        result.findings, [best if " alone at " in f.claim else there(label) for f in result.findings]
    )


def _asked(sight: Sight) -> str:
    """The class that this sight is asked about, since each takes seconds."""
    return COLOURS[number(sight) % len(COLOURS)]


def _centred(pairs: Pairs) -> Pairs:
    """Pairs moved, across their ends, to where what differs lies in the middle."""
    moved: list[list[torch.Tensor]] = [[], [], []]
    for clean, corrupted, changed in zip(pairs.clean, pairs.corrupted, pairs.changed, strict=True):
        top, left = (int(v.min()) for v in changed.nonzero(as_tuple=True))
        for part, value in zip(moved, (clean, corrupted, changed), strict=True):
            part.append(value.roll((CORNER - top, CORNER - left), (-2, -1)))
    clean, corrupted, changed = map(torch.stack, moved)
    return Pairs(clean, corrupted, changed, f"{pairs.name}, moved to the middle")


def _near(y: int, x: int) -> bool:
    """Whether a place is neither of the square nor out of every filter's sight of it."""
    away = max(max(CORNER - v, v - CORNER - SPOT + 1) for v in (y, x))
    return 0 < away <= BLUR


def _climbing(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How much more striped patches rest on detectors of what they contain than those of others do."""
    find, held = scenes(sight, "colour", "texture", "object")
    dissection = Dissection(share=0.02, least=0.02, rotations=0, claims=0, shown=0, seed=seed)
    method = Climbing(dissection, images=SPOTS, claims=terms.claims, standard=Standard(0.05, terms.alpha), seed=seed)
    sites, found = (FIRST_SITE, SECOND_SITE), None
    if sight.known is not None:
        known = [Site(site, tuple(_numbers(made(sight.known, site)))) for site in sites]
        found = dissect(sight.net, known, find, dissection, held_out=held)
    result = hierarchy(sight.net, find, sites, method, held_out=held, detectors=found)
    table = result.table
    scores = dict.fromkeys((carries(c, name) for c in ("colour", "texture") for name in PATCHES[c]), 0.0)
    if "step" in table.dims:
        for lower, effect in zip(table["lower"].to_numpy(), table["step_effect"].to_numpy(), strict=True):
            scores[carries(*str(lower).split(" ", 1))] = float(effect)
    verdicts: dict[str, Verdict] = {}
    for finding in result.findings:
        item = next(carries(c, n) for c, known in PATCHES.items() for n in known if f" of {c} {n} in " in finding.claim)
        verdicts[item] = finding.verdict
    return Answer(scores, verdicts)


FORETOLD = "kernels foretell what changes do"


def made(known: Sighted, site: str) -> frozenset[str]:
    """Units of a site that fire at a colour, at bars or at both; what random ones rest on is not known."""
    units = {*known.detectors, *known.gratings, *known.striped}
    return frozenset(unit for unit in units if unit.startswith(site))


def weighs(sender: str, receiver: str) -> str:
    """A weight between two units, as an item of the board."""
    return f"{receiver} <- {sender}"


def unites(unit: str, some: Iterable[int]) -> str:
    """A unit and the channels that it unites, as an item of the board."""
    return f"{unit}: any of {', '.join(map(str, some))}"


def at(label: str, y: int, x: int) -> str:
    """A place that a class rests on, as an item of the board."""
    return f"{label} <- ({y}, {x})"


def there(label: str) -> str:
    """All places of the square, as an item of the board."""
    return f"{label} <- its square"


def carries(category: str, concept: str) -> str:
    """A lower concept that striped patches rest on, as an item of the board."""
    return f"{category} {concept} -> striped patches"


def _placed(sight: Sight) -> frozenset[str]:
    if sight.known is None:
        return frozenset()
    square, label = range(CORNER, CORNER + SPOT), _asked(sight)
    unit = next(a for a, b in sight.known.edges if b == sight.known.critical[label])
    return frozenset([there(label), rests(label, unit), *(at(label, y, x) for y in square for x in square)])


CONTENDERS = {
    "expanded weights": Contender(
        "which units read which, by kernels read off weights", "pairs of units", _expanding,
        of_known(lambda known: [FORETOLD, *(weighs(*pair) for pair in known.reads)]),
        unless("kernels foretell what random weights do as well"), SIGHT,
    ),
    "unions over cases": Contender(
        "which units answer to any one of a set of earlier ones", "units and sets", _uniting,
        of_known(lambda known: [unites(known.union, _numbers(known.gratings))]), kind=SIGHT,
    ),
    "superposition": Contender(
        "which units unrelated concepts share, read with both signs", "units", _sharing,
        of_known(lambda known: [known.shared]), kind=SIGHT,
    ),
    "channel and place": Contender(
        "where and in which unit a class's answer lives, by patching", "places and units", _placing,
        _placed, unless("what differs between two images brings the answer back whatever the weights"), SIGHT,
    ),
    "hierarchy": Contender(
        "which lower concepts detectors of higher ones rest on", "concepts", _climbing,
        of_known(lambda known: [carries("colour", colour) for colour in known.striped.values()]), kind=SIGHT,
    ),
}  # fmt: skip
"""Name -> method."""
