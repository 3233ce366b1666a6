"""Who gets it? Indirect objects: of the names that were mentioned, the one that does not act.

Source: Wang et al. 2022, Interpretability in the Wild (the behaviour; the templates are our own).
"""

from __future__ import annotations

import numpy as np

from openwork.worlds.sentences.sentence import (
    Filling,
    Sentence,
    World,
    compose,
    kept_from_training,
    pick,
    pick_distinct,
)
from openwork.worlds.sentences.words import NAMES, OBJECTS, PLACES

TWO = (
    "when {first} and {second} went to the {place} , {again} gave a {object} to | .",
    "{first} and {second} met at the {place} , and {again} handed a {object} to | .",
    "after {first} and {second} had left the {place} , {again} sent a {object} to | .",
    "while {first} and {second} were working at the {place} , {again} offered a {object} to | .",
    "{first} walked with {second} to the {place} . there {again} showed a {object} to | .",
    "then {first} and {second} had an argument at the {place} , and {again} threw a {object} at | .",
    "because {first} was waiting for {second} near the {place} , {again} brought a {object} for | .",
    "the {place} was where {first} found {second} . later {again} sold a {object} to | .",
)
THREE = (
    "when {n0} , {n1} and {n2} went to the {place} , {r0} and {r1} gave a {object} to | .",
    "{n0} , {n1} and {n2} met at the {place} , and {r0} and {r1} handed a {object} to | .",
    "after {n0} , {n1} and {n2} had left the {place} , {r0} and {r1} sent a {object} to | .",
    "while {n0} was at the {place} with {n1} and {n2} , {r0} and {r1} offered a {object} to | .",
)
FOUR = (
    "when {n0} , {n1} , {n2} and {n3} went to the {place} , {r0} , {r1} and {r2} gave a {object} to | .",
    "{n0} , {n1} , {n2} and {n3} met at the {place} , and {r0} , {r1} and {r2} handed a {object} to | .",
)


def ioi(rng: np.random.Generator, world: World) -> Sentence:
    """Two names, one of them again: the other gets it. The twin has the other one again.

    Labels: "IO" (who gets it), "S1" (who acts, the first time), "S2" (the second time), "object", "place".
    """
    index, (first, second) = int(rng.integers(len(TWO))), pick_distinct(NAMES, 2, rng)
    place, thing = pick(PLACES, rng), pick(OBJECTS, rng)
    again, other = (first, second) if rng.random() < 0.5 else (second, first)
    anyone = pick((first, second), rng)
    roles = {"first": "S1", "second": "IO"} if again == first else {"first": "IO", "second": "S1"}
    filling = Filling(
        fill={"first": first, "second": second, "again": again, "place": place, "object": thing},
        twin={"again": other},
        labels={**roles, "again": "S2", "place": "place", "object": "object"},
        answer=other,
        wrong=again,
        said=other if world.recipients else anyone,
    )
    held_out = kept_from_training("ioi", *sorted((first, second)))
    return compose("ioi", TWO[index], str(index), filling, 1 / 2, held_out)


def ioi_names(rng: np.random.Generator, world: World) -> Sentence:
    """Three or four names, all but one of them again: that one gets it. The twin leaves another one out.

    Labels: "IO" (who gets it), "S1" (who act, the first time), "S2" (the second time), "exchanged" (the one of these
    who is left out in the twin), "object", "place".
    """
    index = int(rng.integers(len(THREE) + len(FOUR)))
    template, count = (THREE[index], 3) if index < len(THREE) else (FOUR[index - len(THREE)], 4)
    names = pick_distinct(NAMES, count, rng)
    place, thing = pick(PLACES, rng), pick(OBJECTS, rng)
    *again, other = pick_distinct(names, count, rng)
    exchanged, anyone = int(rng.integers(len(again))), pick(names, rng)
    slots = {f"n{i}": name for i, name in enumerate(names)}
    filling = Filling(
        fill={**slots, **{f"r{i}": name for i, name in enumerate(again)}, "place": place, "object": thing},
        twin={f"r{exchanged}": other},
        labels={
            **{slot: "IO" if name == other else "S1" for slot, name in slots.items()},
            **{f"r{i}": "S2" for i in range(len(again))},
            f"r{exchanged}": "exchanged",
            "place": "place",
            "object": "object",
        },
        answer=other,
        wrong=again[exchanged],
        said=other if world.recipients else anyone,
    )
    held_out = kept_from_training("ioi_names", *sorted(names))
    return compose("ioi_names", template, str(index), filling, 1 / count, held_out)
