"""What looks into networks that see, as `openwork bench seeing` asks it.

The networks are those of `openwork.zoo.sighted`: in a null weights are random, and masks and classes are those of other
pictures, so that nothing is detected and no class is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from openwork.boards import channels, conceived, tokens
from openwork.boards.changing import seen
from openwork.boards.frame import Contender, Terms
from openwork.boards.scoring import Answer
from openwork.boards.sights import fires, first_named, leads, named, of_known, rests, unless
from openwork.boards.subjects import SIGHT, Sight
from openwork.finding import Finding, Verdict
from openwork.results.claims import Standard
from openwork.vision.circuits.class_graph import Tracing, class_graph
from openwork.vision.circuits.motifs import Matching, families
from openwork.vision.dissection.describe import Description, MaskBank, describe
from openwork.vision.dissection.dissect import Dissection, dissect
from openwork.vision.dissection.removal import Removal, remove
from openwork.vision.responses.tuning import Tuning, tune
from openwork.vision.synthesis.making import Ascent
from openwork.vision.synthesis.visualise import visualise
from openwork.zoo.sighted import COLOURS, FIRST_SITE, SECOND_SITE, Sighted

SITES = (FIRST_SITE, SECOND_SITE)
ROTATIONS = 20
CATEGORY = "thing"


def _dissecting(sight: Sight, terms: Terms, seed: int) -> Answer:
    """The overlap of every unit with every concept."""
    method = Dissection(
        rotations=ROTATIONS, claims=terms.claims, shown=0, standard=Standard(alpha=terms.alpha), seed=seed
    )
    result = dissect(sight.net, SITES, sight.find, method, held_out=sight.held)
    overlaps = result.table["concept_iou"]
    answer = Answer(_by_pair(overlaps["unit"].to_numpy(), overlaps["concept"].to_numpy(), overlaps.to_numpy()))
    return _with_seen(answer, result.findings)


def _describing(sight: Sight, terms: Terms, seed: int) -> Answer:
    """The score of every word for every unit."""
    answer = Answer({})
    for site in SITES:
        method = Description(claims=terms.claims, standard=Standard(alpha=terms.alpha), seed=seed)
        result = describe(sight.net, site, sight.find, MaskBank(sight.find), method, held_out=sight.held)
        words = result.table["word_score"]
        scores = _by_pair(words["unit"].to_numpy(), words["word_of_bank"].to_numpy(), words.to_numpy())
        answer |= _with_seen(Answer(scores), result.findings)
    return answer


def _removing(sight: Sight, terms: Terms, seed: int) -> Answer:
    """What each class loses without each unit of the second layer."""
    method = Removal((1,), 1, claims=terms.claims, standard=Standard(alpha=terms.alpha), seed=seed)
    result = remove(sight.net, SECOND_SITE, sight.find, method, held_out=sight.held)
    drop = result.table["drop"]
    scores = {
        rests(str(label), str(unit)): float(drop.sel({"class": label, "unit": unit}))
        for label in drop["class"].to_numpy()
        for unit in drop["unit"].to_numpy()
    }
    best = {str(label): str(drop["unit"].to_numpy()[int(drop.sel({"class": label}).to_numpy().argmax())])
            for label in drop["class"].to_numpy()}  # fmt: skip
    classes = [next(label for label in best if f.claim.startswith(f"{label} ")) for f in result.findings]
    return Answer(scores).with_claims(result.findings, [rests(label, best[label]) for label in classes])


def _tracing(sight: Sight, terms: Terms, seed: int) -> Answer:
    """The effect of every edge on every class."""
    answer = Answer({})
    for label in COLOURS:
        standard = Standard(min_share=0.01, alpha=terms.alpha)
        method = Tracing(images=24, claims=terms.claims, standard=standard, seed=seed)
        result = class_graph(sight.net, sight.find, label, SITES, method, held_out=sight.held)
        table = result.table
        if "edge" not in table.dims:
            continue
        ends = list(zip(table["sender"].to_numpy(), table["receiver"].to_numpy(), strict=True))
        scores = {
            leads(label, str(a), str(b)): float(v)
            for (a, b), v in zip(ends, table["edge_effect"].to_numpy(), strict=True)
        }
        named = [next(leads(label, str(a), str(b)) for a, b in ends if str(a) in f.claim and str(b) in f.claim)
                 for f in result.findings]  # fmt: skip
        answer |= Answer(scores).with_claims(result.findings, named)
    return answer


def _turning(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How like a turned copy of another unit each unit is."""
    method = Matching(angles=8, alpha=terms.alpha, standard=Standard(alpha=terms.alpha), seed=seed)
    result = families(sight.net, sight.find, FIRST_SITE, method=method, held_out=sight.held)
    table = result.table
    like = table["likeness"].to_numpy().copy()
    np.fill_diagonal(like, -1)
    alike = np.where(table["round"].to_numpy(), -1, np.maximum(like, like.T).max(1))
    units = [named(FIRST_SITE, unit) for unit in table["unit"].to_numpy()]
    family = table["family"].to_numpy()
    verdicts: dict[str, Verdict] = {}
    for number, finding in enumerate(result.findings):
        verdicts |= {unit: finding.verdict for unit, of in zip(units, family, strict=True) if of == number}
    return Answer({unit: float(v) for unit, v in zip(units, alike, strict=True)}, verdicts)


def _tuning(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How far each unit's response rises at the orientation that it prefers."""
    standard = Standard(min_share=Tuning().standard.min_share, alpha=terms.alpha)
    result = tune(sight.net, FIRST_SITE, "orientation", Tuning(claims=8, standard=standard, seed=seed))
    gain = result.table["gain"].mean("held_out_example").to_numpy()
    units = [str(unit) for unit in result.table["unit"].to_numpy()]
    answer = Answer({unit: float(v) for unit, v in zip(units, gain, strict=True)})
    return answer.with_claims(result.findings, [first_named(f, units) for f in result.findings])


def _picturing(sight: Sight, terms: Terms, seed: int) -> Answer:
    """How far the picture of each unit activates it above the pictures of others."""
    method = Ascent(steps=24, standard=Standard(alpha=terms.alpha), seed=seed)
    result = visualise(sight.net, FIRST_SITE, method)
    table = result.table
    more = table["shown"].mean("view") - table["others"].mean("picture")
    units = [str(unit) for unit in table["unit"].to_numpy()]
    answer = Answer({unit: float(v) for unit, v in zip(units, more.to_numpy(), strict=True)})
    return answer.with_claims(result.findings, [first_named(f, units) for f in result.findings])


def _by_pair(units: Iterable[str], concepts: Iterable[str], values: np.ndarray) -> dict[str, float]:
    return {
        fires(str(unit), str(concept)): float(value)
        for unit, row in zip(units, values, strict=True)
        for concept, value in zip(concepts, row, strict=True)
    }


def _with_seen(answer: Answer, findings: Sequence[Finding]) -> Answer:
    """The verdicts of claims about a unit and a concept, supported if nothing but an intervention is missing."""
    verdicts = {}
    for finding in findings:
        item = next(
            item for item in answer.scores
            if all(part in finding.claim for part in (item.split(": ")[0] + " ", item.split(": ")[1]))
        )  # fmt: skip
        verdicts[item] = seen(finding)
    return Answer(answer.scores, verdicts)


_DETECTED = of_known(lambda known: (fires(unit, f"{CATEGORY} {colour}") for unit, colour in known.detectors.items()))


def _live(known: Sighted) -> Iterable[str]:
    units = (f"{FIRST_SITE}[{channel}]" for channel in range(known.module.get_submodule("first").out_channels))  # pyright: ignore
    return (unit for unit in units if unit not in known.dead)


CONTENDERS = {
    "dissection": Contender(
        "which concept each unit fires at, by overlap; only observed", "units and concepts", _dissecting,
        _DETECTED, kind=SIGHT,
    ),
    "words": Contender(
        "which word goes with each unit's responses (soft-WPMI); only observed", "units and concepts", _describing,
        _DETECTED, kind=SIGHT,
    ),
    "removal of units": Contender(
        "which unit each class rests on, by removing it", "classes and units", _removing,
        of_known(lambda known: (rests(label, unit) for label, unit in known.critical.items())), kind=SIGHT,
    ),
    "class graph": Contender(
        "the edges that carry each class", "edges", _tracing,
        of_known(lambda known: (leads(label, *ends) for label in COLOURS for ends in known.edges)), kind=SIGHT,
    ),
    "turned families": Contender(
        "which units are turned copies of one another", "units", _turning, of_known(lambda known: known.gratings),
        kind=SIGHT,
    ),
    "tuning": Contender(
        "which units are tuned to orientation, by drawn stimuli", "units", _tuning,
        of_known(lambda known: known.gratings), kind=SIGHT,
    ),
    "visualisation": Contender(
        "pictures that activate their unit more than pictures of others do", "units", _picturing, of_known(_live),
        unless("what activates random weights is not known"), SIGHT,
    ),
    **channels.CONTENDERS,
    **conceived.CONTENDERS,
    **tokens.CONTENDERS,
}  # fmt: skip
"""Name -> method."""
