"""The board of hidden rules on two of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openwork import network
from openwork.boards import pando
from openwork.boards.pando import SAMPLES, TOOLS, YARDSTICK, Game, Seen, play, prior, summary
from openwork.errors import BadInput, CorruptFile, UnknownName
from openwork.results.result import Result
from openwork.zoo import rules
from openwork.zoo.rules import N_FIELDS, every_row, places, written

SMALL = Game(("depth-1/0", "depth-2/0"), ("relp", YARDSTICK), repeats=3, alpha=0.25)


@cache
def played() -> Result:
    return play(SMALL)


def seen(name: str = "depth-2/0") -> Seen:
    hidden = rules.open(name)
    values = np.random.default_rng(0).permutation(every_row())[:10]
    nets = [network.open(m, example=pando._example()) for m in (hidden.network, hidden.untrained)]
    return Seen(hidden, nets[0], nets[1], written(values, np.random.default_rng(1)), values)


def test_scores_of_positions_become_scores_of_fields() -> None:
    here = seen()
    at = places(here.ids)
    scores = np.zeros(here.ids.shape)
    np.put_along_axis(scores, at, -np.arange(N_FIELDS, dtype=float)[None].repeat(10, 0), axis=1)
    assert here.by_field(scores).tolist() == list(range(N_FIELDS))


@pytest.mark.parametrize("tool", ["gradient x input", "relp", "integrated gradients", "patching", YARDSTICK])
def test_tools_weigh_the_fields_of_the_rule_more(tool: str) -> None:
    here = seen()
    weights = TOOLS[tool](here)
    true = np.array([f in here.hidden.tree.fields for f in range(N_FIELDS)])
    assert weights[true].min() > weights[~true].max()


def test_an_untrained_copy_knows_nothing_of_the_rule() -> None:
    here = seen()
    weights = prior(TOOLS[pando.NULL](here))
    true = [*here.hidden.tree.fields]
    assert weights[true].sum() < 0.5


def test_a_prior_is_a_distribution_that_no_score_empties() -> None:
    found = prior(np.array([0.0, 1.0, 3.0]))
    assert found.sum() == pytest.approx(1)
    assert found.min() == pytest.approx(0.1 / 3)
    assert prior(np.zeros(4)).tolist() == [0.25] * 4


def test_knowing_the_fields_predicts_more_than_samples_alone() -> None:
    table = played().table
    accuracy = table["accuracy"].sel(tool=[SAMPLES, YARDSTICK]).to_numpy()
    assert accuracy[1] > accuracy[0] > 0.6


def test_two_networks_are_too_few_for_support() -> None:
    assert {str(finding.verdict) for finding in played().findings} == {"inconclusive"}


def test_shuffled_decisions_predict_no_better_than_chance() -> None:
    assert 0.3 < float(played().table["shuffled"].mean()) < 0.7


def test_the_same_seed_gives_the_same_board() -> None:
    again = play(Game(SMALL.networks, ("relp",), repeats=1, alpha=0.25))
    first = played().table["accuracy_of_draw"].sel(tool="relp").isel(repeat=0)
    np.testing.assert_array_equal(again.table["accuracy_of_draw"].sel(tool="relp").isel(repeat=0), first)


def test_a_board_is_written_as_json() -> None:
    record = json.loads(json.dumps(summary(played()), allow_nan=False))
    assert [row["tool"] for row in record["tools"]] == [SAMPLES, "relp", YARDSTICK]
    assert record["depths"] == [1, 2]
    assert record["tools"][1]["gain_at_depth"] == [None, None]


def test_an_unknown_tool_is_named() -> None:
    with pytest.raises(UnknownName, match="relp"):
        Game(tools=("rellp",))


def test_one_network_is_too_few() -> None:
    with pytest.raises(BadInput, match="two networks"):
        Game(("depth-1/0",))


def test_an_interrupted_game_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = Game(("depth-1/0", "depth-2/0"), ("relp",), repeats=1, alpha=0.4)
    whole = play(game)
    rounds, played_once = [], pando._round

    def stopping(hidden: rules.Hidden, *args: Any) -> Any:
        rounds.append(hidden.name)
        if rounds == ["depth-1/0", "depth-2/0"]:
            raise KeyboardInterrupt
        return played_once(hidden, *args)

    monkeypatch.setattr(pando, "_round", stopping)
    with pytest.raises(KeyboardInterrupt):
        play(game, keep=tmp_path)
    again = play(game, keep=tmp_path)
    assert rounds == ["depth-1/0", "depth-2/0", "depth-2/0"]
    assert again.table.drop_attrs().identical(whole.table.drop_attrs())


def test_a_damaged_round_is_told(tmp_path: Path) -> None:
    game = Game(("depth-1/0", "depth-2/0"), ("gradient norm",), repeats=1, alpha=0.4)
    play(game, keep=tmp_path)
    next(tmp_path.rglob("*.json")).write_text("{}")
    with pytest.raises(CorruptFile, match="delete it"):
        play(game, keep=tmp_path)
