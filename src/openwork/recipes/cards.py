"""The cards of compiled and planted networks: how often they are right, and the test that their answer passes.

python -m openwork.recipes.cards            # writes zoo/cards.json
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from openwork.direction import Direction
from openwork.errors import TaskFailed
from openwork.evidence import wilson_interval
from openwork.site import Site
from openwork.store.files import write_json
from openwork.task import Inputs
from openwork.zoo.cards import CARDS, cards
from openwork.zoo.compiled import Program
from openwork.zoo.known import Known
from openwork.zoo.member import Member, candidates, members, open_unsettled
from openwork.zoo.transformer import Transformer
from openwork.zoo.truth import Claims, Truth, TruthSettings, settle
from openwork.zoo.truth_nodes import check_nodes

log = logging.getLogger(__name__)

SETTINGS = TruthSettings(examples=96, resamplings=3)
ROWS = 2000
"""Random rows on which a compiled network is compared with its program; all of them where they are few enough."""
EXAMPLES = 128
"""Of the task."""
SQUEEZED = 0.1
"""Epsilon of compressed networks, in which everything is read a little everywhere."""


def make_card(member: Member, settings: TruthSettings = SETTINGS) -> dict[str, Any]:
    """Measure one network.

    Args:
        member: compiled or planted, with all of its answer as it was made.
        settings: of the test of its truth.

    Returns:
        a value for JSON: accuracy, with how many rows it rests on; the truth of nodes, edges and directions.

    Raises:
        TaskFailed: if it does not do what it is for, or its answer is not true.
    """
    task = member.task(EXAMPLES)
    right, n = _agreement(member.program, member.network) if member.program is not None else _answered(member)
    squeezed = "compressed" in member.name
    settings = replace(settings, epsilon=SQUEEZED) if squeezed else settings
    if isinstance(member.network, Transformer):
        claims = Claims.of(member.known)
        # in superposition a subspace is read along other directions than those it is written along: see `rebase`
        directions = None if squeezed else _everywhere(member.known, member.network)
        truth = settle(member.network, task, Claims(claims.nodes, claims.edges, directions), settings)[1]
    else:
        parts = tuple(Site(site.path.replace("mlp.hidden", "mlp.out"), site.index) for site in member.known.sites)
        truth = check_nodes(member.net, task, parts, settings)
    card = {
        "name": member.name,
        "about": member.about,
        "parameters": sum(parameter.numel() for parameter in member.network.parameters()),
        "accuracy": {"right": right, "n": n, "low": wilson_interval(right, n).low},
        "truth": _compact(truth),
    }
    if right < (n if member.program is not None else 0.95 * n) or not truth.holds:
        raise TaskFailed(f"{member.name} does not hold: right on {right} of {n} rows; {truth}")
    return card


def _agreement(program: Program, network: torch.nn.Module) -> tuple[int, int]:
    """On how many rows a compiled network says what its program says, at every position that is asked."""
    rows = list(islice(program.rows(most=ROWS, otherwise=ROWS), ROWS))
    words = tuple(program.domain.words)
    with torch.no_grad():
        said = network(torch.tensor(program.encode(rows))).logits.argmax(-1).tolist()
    right = 0
    for row, here in zip(rows, said, strict=True):
        wanted = program.algorithm(row)
        right += all(answer is None or words[token] == answer for answer, token in zip(wanted, here, strict=True))
    return right, len(rows)


def _answered(member: Member) -> tuple[int, int]:
    task = member.task(EXAMPLES)
    assert isinstance(task.clean, Inputs)
    logits = member.net.run(task.clean).logits[torch.arange(len(task)), torch.tensor(task.at)]
    return int((logits.argmax(-1) == torch.tensor(task.answer)).sum()), len(task)


def _everywhere(known: Known, network: Transformer) -> dict[str, Direction] | None:
    """At each site at which a variable is first written, all variables that are there by then."""
    order = [Site("embed")]
    for block in range(network.config.layers):
        order += [Site(f"blocks.{block}.resid_{place}") for place in ("mid", "post")]
    sites = sorted({direction.site for direction in known.directions.values()}, key=order.index)
    found = {}
    for site in sites:
        for name, direction in known.directions.items():
            if order.index(direction.site) <= order.index(site):
                found[f"{name} at {site}"] = Direction(site, direction.array, direction.origin)
    return found or None


def _compact(truth: Truth) -> dict[str, Any]:
    """The record of a test with numbers of four digits."""
    record = truth.to_json()
    for kind in ("true", "untrue"):
        record[kind] = [
            {key: round(value, 4) if isinstance(value, float) else value for key, value in effect.items()}
            for effect in record[kind]
        ]
    record["slack"] = [None if value is None else round(value, 4) for value in record["slack"]]
    return record


def main() -> None:
    """Write the cards of every program in every form, and of the planted networks; what has one is left alone.

    A form that does not hold gets no card, and does not ship.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    made = dict(cards())
    for name in [*members("planted"), *candidates()]:
        if name in made:
            continue
        try:
            made[name] = make_card(open_unsettled(name))
        except TaskFailed as error:
            log.info("left out: %s", error)
            continue
        write_json(CARDS, made)
        log.info("%s: slack %s", name, made[name]["truth"]["slack"])


if __name__ == "__main__":
    main()
