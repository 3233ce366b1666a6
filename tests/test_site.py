"""Addresses: written forms that are read back, and text that is no address."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.errors import BadInput
from openwork.site import Edge, Site, Where

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # type checks draw what they look at
names = st.text("abcdefghijklmnopqrstuvwxyz_*", min_size=1, max_size=6)
paths = st.lists(names | st.integers(0, 99).map(str), min_size=1, max_size=4).map(".".join)
sites = st.builds(Site, paths, st.lists(st.integers(0, 300), max_size=4).map(tuple))


@given(sites)
def test_a_site_is_read_back_from_what_it_is_written_as(site: Site) -> None:
    assert Site.parse(str(site)) == site
    assert Site.parse(site) is site


@pytest.mark.parametrize(
    ("text", "path", "index"),
    [
        ("blocks.4.attn.z[3]", "blocks.4.attn.z", (3,)),
        ("blocks.4.attn.z[0-2,7]", "blocks.4.attn.z", (0, 1, 2, 7)),
        ("blocks.4.attn.z[1, 4, 5-6]", "blocks.4.attn.z", (1, 4, 5, 6)),
        (" embed ", "embed", ()),
        ("blocks.*.attn.z[*]", "blocks.*.attn.z", ()),
        ("blocks.2-5.mlp.out", "blocks.2-5.mlp.out", ()),
        ("module:layer3.1.conv2#2.out[12]", "module:layer3.1.conv2#2.out", (12,)),
    ],
)
def test_the_written_forms(text: str, path: str, index: tuple[int, ...]) -> None:
    assert Site.parse(text) == Site(path, index)


@pytest.mark.parametrize(
    "text", ["", "[3]", "a[", "a]", "a[b]", "a[3-1]", "a[-2]", "a[3-]", "a[1][2]", "a[,]", 7, None]
)
def test_text_that_is_no_site(text: Any) -> None:
    with pytest.raises(BadInput, match="expected"):
        Site.parse(text)


@pytest.mark.parametrize(
    ("text", "block", "kind"),
    [
        ("blocks.12.attn.z", 12, "attn.z"),
        ("decoder.blocks.3.cross.out[1]", 3, "cross.out"),
        ("blocks.*.mlp.out", None, "mlp.out"),
        ("embed", None, "embed"),
        ("module:stages.0.first.out", None, "module:stages.0.first.out"),
    ],
)
def test_block_and_kind(text: str, block: int | None, kind: str) -> None:
    site = Site.parse(text)
    assert (site.block, site.kind) == (block, kind)


def test_indexing_a_site_replaces_its_index() -> None:
    site = Site("blocks.1.attn.z", (7,))
    assert site[3] == Site("blocks.1.attn.z", (3,))
    assert site[2, 4] == Site("blocks.1.attn.z", (2, 4))
    assert str(Edge(site, Site("logits"))) == "blocks.1.attn.z[7] -> logits"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (None, Where()),
        (3, Where(positions=(3,))),
        ((1, -1), Where(positions=(1, -1))),
        ([2], Where(positions=(2,))),
        ("last", Where(group="last")),
        (Where(rows=2, steps=0), Where(rows=(2,), steps=(0,))),  # pyright: ignore[reportArgumentType]
    ],
)
def test_the_short_forms_of_where(value: Any, where: Where) -> None:
    assert Where.of(value) == where
    assert hash(Where.of(value)) == hash(where)


def test_positions_and_a_group_exclude_each_other() -> None:
    with pytest.raises(BadInput, match="positions or a token group"):
        Where(positions=(1,), group="name")


@given(st.integers(0, 5), st.none() | st.frozensets(st.integers(0, 5)), st.integers(0, 7))
def test_when_it_holds(since: int, steps: frozenset[int] | None, step: int) -> None:
    where = Where(steps=None if steps is None else tuple(steps), since=since)
    assert where.holds_at(step) is (step >= since and (steps is None or step in steps))
