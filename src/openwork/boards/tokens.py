"""What looks into vision transformers, as `openwork bench seeing` asks it.

The networks are those of `openwork.zoo.gazing`: in a null weights are random, and masks and classes are those of other
pictures, so that no head follows anything and no class is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from openwork.boards.changing import seen
from openwork.boards.frame import Contender, Terms
from openwork.boards.scoring import Answer
from openwork.boards.sights import of_known
from openwork.boards.subjects import GAZE, Gaze
from openwork.finding import Verdict
from openwork.results.claims import Standard
from openwork.vision.tokens.class_token import ClassToken, class_token
from openwork.vision.tokens.interpreters import Interpreters, learn_interpreters
from openwork.vision.tokens.looks import Looking, look
from openwork.vision.tokens.patch_dropping import Dropping, drop_patches
from openwork.vision.tokens.prompts import ClassPrompts, learn_prompts
from openwork.vision.tokens.registers import Registers, registers
from openwork.vision.tokens.traits import Traits, traits
from openwork.zoo.gazing import BLOCKS, COLOURS, SIDE, Gazing

LAST = BLOCKS - 1
PROMPTED = ClassPrompts(steps=60, batch=24, rate=0.05)
JUDGED = Interpreters(groups=1, steps=120, batch=24, rate=0.02)
KEPT = "the patches that score highest are those of the part"


def _looking(gaze: Gaze, terms: Terms, seed: int) -> Answer:
    """How much more each head looks at each part than at the places of other images' parts."""
    method = Looking(claims=terms.claims, standard=Standard(alpha=terms.alpha), seed=seed)
    result = look(gaze.net, gaze.find, method, held_out=gaze.held)
    more = (result.table["lift"] - result.table["foreign_lift"]).fillna(0).max("from")
    scores = {
        follows(block, head, str(concept)): float(more.sel(concept=concept)[block, head])
        for block in range(more.sizes["block"])
        for head in range(more.sizes["head"])
        for concept in more["concept"].to_numpy()
    }
    verdicts: dict[str, Verdict] = {}
    for finding in result.findings:
        named = re.match(r"head (\d+) of block (\d+) follows ([^:]+):", finding.claim)
        assert named is not None
        item = follows(int(named[2]), int(named[1]), named[3])
        if verdicts.get(item) != Verdict.SUPPORTED:
            verdicts[item] = seen(finding)
    return Answer(scores, verdicts)


def _outlying(gaze: Gaze, terms: Terms, seed: int) -> Answer:
    """In which share of images the token of each place has an outlying norm, behind each block."""
    method = Registers(standard=Standard(alpha=terms.alpha), seed=seed)
    result = registers(gaze.net, gaze.find, method, held_out=gaze.held)
    often = result.table["outliers"].to_numpy().reshape(BLOCKS, -1)
    scores = {stands_out(b, place): float(often[b, place]) for b, place in np.ndindex(*often.shape)}
    named = []
    for finding in result.findings:
        told = re.search(r"behind block (\d+)", finding.claim)
        assert told is not None
        named.append(stands_out(int(told[1]), int(often[int(told[1])].argmax())))
    return Answer(scores).with_claims(result.findings, named)


def _gathering(gaze: Gaze, terms: Terms, seed: int) -> Answer:
    """What the class loses if the class token cannot look at patches in each block."""
    method = ClassToken(standard=Standard(alpha=terms.alpha), seed=seed)
    result = class_token(gaze.net, gaze.find, method, held_out=gaze.held)
    cut = result.table["cut"].to_numpy()
    named = [next(gathers(b) for b in range(BLOCKS) if finding.claim.endswith(f" {b}")) for finding in result.findings]
    return Answer({gathers(b): float(v) for b, v in enumerate(cut)}).with_claims(result.findings, named)


def _known_by(gaze: Gaze, terms: Terms, seed: int) -> Answer:
    """How late each head of the last block is blurred for each class; and what the claims about all classes name."""
    prompts = learn_prompts(gaze.net, gaze.find, replace(PROMPTED, seed=seed))
    result = traits(gaze.net, prompts, gaze.held, Traits(standard=Standard(alpha=terms.alpha), seed=seed))
    table = result.table
    held, labels = table["held_out"].to_numpy(), table["label"].to_numpy()
    left = {c: table["left"].to_numpy()[held & (labels == c)].mean(0) for c in COLOURS}
    scores = {known_by(c, head): float(v) for c in COLOURS for head, v in enumerate(left[c])}
    best = [int(head) for head in table["trait"].to_numpy()]
    lift = np.nan_to_num(table["lift"].to_numpy())
    parts = [COLOURS[int(part)] for part in lift.argmax(1)]
    return Answer(scores).with_claims(result.findings, [all_known_by(best), all_seen_in(parts)])


def _dropping(gaze: Gaze, terms: Terms, seed: int) -> Answer:
    """The score of every patch of held-out images, and whether those of low score can be spared."""
    telling = gaze.find.regions["part"].flatten(1).any(1).nonzero().flatten().tolist()
    judges = learn_interpreters(gaze.net, gaze.find, replace(JUDGED, seed=seed), telling)
    method = Dropping(standard=Standard(alpha=terms.alpha), seed=seed)
    result = drop_patches(gaze.net, judges, gaze.held, method)
    score = result.table["score"].to_numpy().reshape(len(gaze.held), -1)
    scores = {matters(image, place): float(score[image, place]) for image, place in np.ndindex(*score.shape)}
    return Answer(scores).with_claims(result.findings, [KEPT])


def follows(block: int, head: int, part: str) -> str:
    """A head and the part that it follows, as an item of the board."""
    return f"head {head} of block {block}: {part}"


def stands_out(block: int, place: int) -> str:
    """A place of outlying norm, as an item of the board."""
    return f"behind block {block}: place {divmod(place, SIDE)}"


def gathers(block: int) -> str:
    """Where the class token gathers the class, as an item of the board."""
    return f"the class is gathered in block {block}"


def known_by(label: str, head: int) -> str:
    """The head of the last block that can tell a class, as an item of the board."""
    return f"{label} <- head {head} of block {LAST}"


def all_known_by(heads: Sequence[int]) -> str:
    """Heads of the last block that can tell the classes, as an item of the board."""
    return "; ".join(known_by(c, head) for c, head in zip(COLOURS, heads, strict=True))


def all_seen_in(parts: Sequence[str]) -> str:
    """Parts in which the classes are seen, as an item of the board."""
    return "; ".join(f"{c} in {part}" for c, part in zip(COLOURS, parts, strict=True))


def matters(image: int, place: int) -> str:
    """A patch that carries the class, as an item of the board."""
    return f"image {image}: place {divmod(place, SIDE)}"


def _traits(known: Gazing) -> Iterable[str]:
    yield from (known_by(label, head) for label, head in known.traits.items())
    yield all_known_by([known.traits[c] for c in COLOURS])
    yield all_seen_in(COLOURS)


def _parts(gaze: Gaze) -> frozenset[str]:
    if gaze.known is None:
        return frozenset()
    patch = gaze.held.values.shape[-1] // SIDE
    inside = (gaze.held.regions["part"][:, ::patch, ::patch].flatten(1) > 0).nonzero().tolist()
    return frozenset([KEPT, *(matters(image, place) for image, place in inside)])


CONTENDERS = {
    "looks": Contender(
        "which heads of a vision transformer follow the parts of the classes; only observed", "heads and parts",
        _looking, of_known(lambda known: (follows(b, h, part) for part, (b, h) in known.follows.items())), kind=GAZE,
    ),
    "registers": Contender(
        "which places hold tokens of outlying norm, and whether the answer needs them", "blocks and places", _outlying,
        of_known(lambda known: (stands_out(b, known.register) for b in range(known.filled, BLOCKS))), kind=GAZE,
    ),
    "class token": Contender(
        "in which block the class token gathers the class", "blocks", _gathering,
        of_known(lambda known: [gathers(known.gathers)]), kind=GAZE,
    ),
    "traits": Contender(
        "by which head of the last block, and in which part, each class is known (Prompt-CAM)", "classes and heads",
        _known_by, of_known(_traits), kind=GAZE,
    ),
    "patch dropping": Contender(
        "which patches a vision transformer can spare (IA-RED2)", "images and patches", _dropping, _parts, kind=GAZE,
    ),
}  # fmt: skip
"""Name -> method."""
