"""Edits as data: every one but `Custom` comes back equal from JSON, and a spoilt record does not come back at all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.edit import (
    EDITS,
    Ablate,
    Add,
    Array,
    Custom,
    Drop,
    Edit,
    Insert,
    KnockOut,
    Patch,
    Project,
    Scale,
    Set,
    Steer,
    Substitute,
    SwapAlong,
    Twin,
    edit_from_json,
    edits_from_json,
    edits_to_json,
)
from openwork.errors import BadInput, UnknownName
from openwork.site import Site, Where

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # type checks draw what they look at
numbers = st.floats(-1e6, 1e6, width=32)
site_texts = st.sampled_from(["embed", "blocks.1.attn.z[3]", "blocks.*.mlp.out", "module:a.0.out[1,2]"])
positions = st.none() | st.lists(st.integers(-5, 9), max_size=3).map(tuple)
few = st.none() | st.lists(st.integers(0, 9), max_size=3).map(tuple)
wheres = st.builds(Where, positions=positions, rows=few, steps=few, since=st.integers(0, 3)) | st.builds(
    Where, group=st.sampled_from(["last", "name"]), rows=few
)
arrays = st.lists(numbers, min_size=1, max_size=6).map(Array.of) | numbers.map(Array.of)
bases = st.integers(1, 3).map(lambda n: Array.of(np.eye(n, 5) + 0.25))
base = {"site": site_texts, "where": wheres}
edits = st.one_of(
    st.builds(Patch, **base, source=st.text(max_size=5), source_where=st.none() | wheres),
    st.builds(Ablate, **base, how=st.sampled_from(["zero", "mean", "resample", "noise"]), seed=st.integers(0, 9)),
    st.builds(Set, **base, value=arrays),
    st.builds(Add, **base, vector=arrays, scale=numbers),
    st.builds(Scale, **base, factor=numbers),
    st.builds(Project, **base, directions=bases, keep=st.booleans()),
    st.builds(
        Steer,
        **base,
        direction=st.just(Array.of([1.0, 2.0])),
        amount=numbers,
        how=st.sampled_from(["turn", "clamp"]),
    ),
    st.builds(SwapAlong, **base, directions=bases, source=st.text(max_size=5)),
    st.builds(KnockOut, **base, keys=wheres),
    st.builds(Substitute, **base, by=st.text(min_size=1, max_size=5), reads=st.none() | site_texts),
    st.builds(
        Twin, **base, of=st.builds(Patch, **base) | st.builds(Add, **base, vector=arrays), seed=st.integers(0, 9)
    ),
    st.builds(Insert, site=st.just("blocks.0.resid_pre"), tokens=bases),
    st.builds(Drop, site=st.just("blocks.0.resid_pre"), positions=st.sampled_from([[0, 3], [[0, 1], [4, 2]]])),
)


@settings(max_examples=60)
@given(st.lists(edits, max_size=4))
def test_edits_come_back_equal_from_json(given_edits: list[Edit]) -> None:
    again = edits_from_json(edits_to_json(given_edits))
    assert again == given_edits
    assert [type(e) for e in again] == [type(e) for e in given_edits]
    assert [hash(e) for e in again] == [hash(e) for e in given_edits]


@settings(max_examples=60)
@given(edits, edits)
def test_unequal_edits_have_unequal_json(one: Edit, other: Edit) -> None:
    assert (json.dumps(one.to_json()) == json.dumps(other.to_json())) is (one == other)


def test_the_strategy_above_makes_every_edit_that_is_data() -> None:
    written = {"Patch", "Ablate", "Set", "Add", "Scale", "Project", "Steer", "SwapAlong", "KnockOut", "Substitute"}
    assert set(EDITS) == written | {"Twin", "Insert", "Drop"}


def test_a_function_has_no_json_form_and_says_so() -> None:
    edit = Custom("embed", fn=torch.relu)
    with pytest.raises(BadInput, match="Custom holds a function"):
        edit.to_json()
    with pytest.raises(BadInput, match="Custom holds a function"):
        edits_to_json([Ablate("embed"), edit])
    with pytest.raises(UnknownName, match="Custom"):
        edit_from_json({"edit": "Custom", "site": "embed"})
    with pytest.raises(BadInput, match="expected fn"):
        Custom("embed")


# -- records that were spoilt --


def record() -> dict[str, Any]:
    return Add("blocks.1.resid_post", 3, vector=[1.0, 2.0], scale=0.5).to_json()


@pytest.mark.parametrize("field", ["site", "where", "vector", "scale"])
def test_a_missing_field_is_named(field: str) -> None:
    spoilt = record()
    del spoilt[field]
    with pytest.raises(BadInput, match=f"'{field}'"):
        edit_from_json(spoilt)


@pytest.mark.parametrize(
    "change",
    [
        {"vector": {**record()["vector"], "data": Array.of([1.0, 3.0]).to_json()["data"]}},
        {"vector": {**record()["vector"], "shape": [1, 2]}},
        {"vector": {**record()["vector"], "data": "not base64!"}},
        {"vector": {"sha256": "0"}},
        {"where": {"where": 3}},
        {"site": 7},
        {"scale": "much"},
    ],
    ids=["elements", "shape", "base64", "no shape", "where", "site", "scale"],
)
def test_an_altered_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="expected"):
        edit_from_json({**record(), **change})


@pytest.mark.parametrize("spoilt", [{"edit": "Ad"}, {}, [], "Add", None], ids=str)
def test_a_record_of_no_edit(spoilt: Any) -> None:
    with pytest.raises(UnknownName, match="no edit named"):
        edit_from_json(spoilt)


@pytest.mark.parametrize("text", ["", "{", "3", '{"edit": "Add"}'])
def test_text_that_holds_no_edits(text: str) -> None:
    with pytest.raises(BadInput, match="expected"):
        edits_from_json(text)


# -- arrays --


@given(st.lists(numbers, max_size=6))
def test_an_array_keeps_its_elements(values: list[float]) -> None:
    array = Array.of(values)
    expected = np.asarray(values, dtype="<f4")
    assert array.numpy().tolist() == expected.tolist()
    assert array == Array.of(torch.tensor(values)) == Array.of(expected)
    assert Array.from_json(json.loads(json.dumps(array.to_json()))) == array


def test_arrays_differ_by_shape_and_content() -> None:
    flat, square = Array.of([1.0, 2.0, 3.0, 4.0]), Array.of([[1.0, 2.0], [3.0, 4.0]])
    assert flat != square
    assert flat.digest != square.digest
    assert Array.of(torch.ones(2, dtype=torch.bfloat16)) == Array.of([1.0, 1.0])
    square.numpy()[0] = 9  # a copy
    assert square.numpy()[0, 0] == 1


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")], torch.tensor([float("nan")])])
def test_values_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(BadInput, match="finite"):
        Set("embed", value=value)


# -- what an edit checks when it is made --


def test_a_knock_out_of_an_attention_is_one_of_its_scores() -> None:
    assert KnockOut("blocks.1.attn").site == Site("blocks.1.attn.scores")
    assert KnockOut("blocks.1.attn[2]").site == Site("blocks.1.attn.scores", (2,))
    assert KnockOut("blocks.*.attn.scores[3]").site == Site("blocks.*.attn.scores", (3,))
    assert KnockOut("blocks.1.attn", keys=-1).keys == Where(positions=(-1,))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ablate("em[bed"),
        lambda: Project("embed", directions=[[1.0, 2.0], [2.0, 4.0]]),
        lambda: Project("embed", directions=[0.0, 0.0]),
        lambda: Project("embed", directions=3.0) and SwapAlong("embed", directions=np.zeros((0, 4))),
        lambda: SwapAlong("embed", directions=np.ones((2, 2, 2))),
        lambda: Steer("embed", direction=[0.0, 0.0]),
        lambda: Steer("embed", direction=[[1.0, 0.0]]),
        lambda: Substitute("embed"),
        lambda: Substitute("embed", by="x", reads="a[b]"),
        lambda: Add("embed", vector="abc"),
    ],
    ids=["site", "dependent", "zero", "empty", "three axes", "no way", "two axes", "by", "reads", "text"],
)
def test_what_cannot_be_an_edit(make: Any) -> None:
    with pytest.raises(BadInput, match="expected"):
        make()


def test_which_source_an_edit_needs() -> None:
    assert Patch("embed").needs == "clean"
    assert Patch("embed", source="other").needs == "other"
    assert Ablate("embed").needs is None
    assert Ablate("embed", how="mean").needs == "unedited"
    assert Ablate("embed", how="noise", source="corpus").needs == "corpus"
    assert SwapAlong("embed", directions=[1.0]).needs == "clean"
    assert Scale("embed").needs is None


def test_one_direction_is_a_subspace_of_one() -> None:
    assert Project("embed", directions=[1.0, 2.0]).directions.shape == (1, 2)


def test_an_unknown_way_to_steer() -> None:
    record = Steer("embed", direction=[1.0]).to_json()
    with pytest.raises(BadInput, match="how to be turn or clamp"):
        edit_from_json({**record, "how": "turm"})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Insert("blocks.0.resid_pre", tokens=[1.0, 2.0]), "count, channel"),
        (lambda: Insert("blocks.0.resid_pre", tokens=np.zeros((0, 4))), "count, channel"),
        (lambda: Insert("blocks.0.resid_pre", 3, tokens=[[1.0]]), "without where="),
        (lambda: Drop("blocks.0.resid_pre", positions=[1, 1]), "different positions"),
        (lambda: Drop("blocks.0.resid_pre", positions=[-1]), "from 0 on"),
        (lambda: Drop("blocks.0.resid_pre", positions=[0.5]), "different positions"),
        (lambda: Drop("blocks.0.resid_pre", positions=[]), "different positions"),
        (lambda: Drop("blocks.0.resid_pre[2]", positions=[1]), "without an index"),
    ],
)
def test_tokens_that_cannot_come_or_go_are_refused(make, said):
    with pytest.raises(BadInput, match=said):
        make()
