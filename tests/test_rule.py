"""Backward rules as data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openwork.errors import BadInput
from openwork.rule import ATTN_LRP, AVERAGED, GUIDED, LINEARISED, RELP, BackwardRule, Freeze, checked, rule_from_json


def test_rules_are_equal_and_hashed_by_what_they_say() -> None:
    assert len({Freeze("norm"), Freeze("norm"), BackwardRule("product", "half")}) == 2


@pytest.mark.parametrize(
    "rule", [*RELP, *ATTN_LRP, *GUIDED, *LINEARISED, *AVERAGED, BackwardRule("linear", "epsilon", 0.1)]
)
def test_json_gives_the_same_rule_back(rule: Any) -> None:
    assert rule_from_json(json.loads(json.dumps(rule.to_json()))) == rule


@pytest.mark.parametrize(
    "make",
    [
        lambda: Freeze("softmax"),
        lambda: BackwardRule("product", "secant"),
        lambda: BackwardRule("gate", "half"),
        lambda: BackwardRule("linear", "epsilon", 0.0),
        lambda: rule_from_json({"rule": "Edit"}),
        lambda: rule_from_json(3),
        lambda: rule_from_json({"rule": "Freeze", "of": "norm", "more": 1}),
        lambda: checked(["relp"]),
    ],
)
def test_what_is_no_rule_is_refused(make: Any) -> None:
    with pytest.raises(BadInput, match="expected"):
        make()


def test_two_rules_for_one_thing_are_refused() -> None:
    with pytest.raises(BadInput, match="several for 'activation'"):
        checked([BackwardRule("activation", "secant"), BackwardRule("activation", "positive")])
