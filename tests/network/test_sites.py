"""Names: patterns, indices, errors that list the nearest; and the tree that shows them."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from openwork.edit import Ablate
from openwork.errors import BadInput, SiteRefused, UnknownName
from openwork.network import Network
from openwork.network.sites import grammar

from .conftest import Opener
from .tiny import HEADS, LAYERS, WIDTH, token_ids


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("embed", ["embed"]),
        ("blocks.1.attn.z", ["blocks.1.attn.z"]),
        ("blocks.*.attn.z", [f"blocks.{b}.attn.z" for b in range(3)]),
        ("blocks.0-1.mlp.out", ["blocks.0.mlp.out", "blocks.1.mlp.out"]),
        ("blocks.1-7.mlp.out", ["blocks.1.mlp.out", "blocks.2.mlp.out"]),
        ("blocks.*.attn.z[3]", [f"blocks.{b}.attn.z[3]" for b in range(3)]),
        ("blocks.2.attn.z[0-2]", ["blocks.2.attn.z[0,1,2]"]),
        ("blocks.1.attn.z[*]", ["blocks.1.attn.z"]),
        ("blocks.1.resid_*", ["blocks.1.resid_pre", "blocks.1.resid_mid", "blocks.1.resid_post"]),
        ("blocks.1.*.out", ["blocks.1.attn.out", "blocks.1.mlp.out"]),
        ("module:transformer.h.*.mlp.c_fc.out[7]", [f"module:transformer.h.{b}.mlp.c_fc.out[7]" for b in range(3)]),
        ("module:lm_head.out", ["module:lm_head.out"]),
    ],
)
def test_patterns(gpt2: Network, pattern: str, names: list[str]) -> None:
    assert gpt2.select(pattern) == names


def test_a_star_stands_for_one_component(gpt2: Network) -> None:
    with pytest.raises(UnknownName):
        gpt2.select("blocks.*")
    with pytest.raises(UnknownName):
        gpt2.select("*.z")


def test_sites_come_in_order_of_execution(gpt2: Network) -> None:
    order = list(gpt2.sites)
    for earlier, later in [
        ("embed", "blocks.0.resid_pre"),
        ("blocks.0.resid_pre", "blocks.0.attn.in"),
        ("blocks.0.attn.in", "blocks.0.attn.z"),
        ("blocks.0.attn.z", "blocks.0.attn.out"),
        ("blocks.0.attn.out", "blocks.0.resid_mid"),
        ("blocks.0.resid_mid", "blocks.0.mlp.hidden"),
        ("blocks.0.mlp.hidden", "blocks.0.resid_post"),
        ("blocks.0.resid_post", "blocks.1.resid_pre"),
        ("blocks.2.resid_post", "final_norm"),
        ("final_norm", "logits"),
    ]:
        assert order.index(earlier) < order.index(later)


def test_the_whole_grammar_of_a_decoder(gpt2: Network) -> None:
    expected = {"resid_pre", "norm1.scale", "attn.in", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern"}
    expected |= {"attn.z", "attn.out", "resid_mid", "norm2.scale", "mlp.in", "mlp.hidden", "mlp.out", "resid_post"}
    assert set(grammar(gpt2.sites)) == expected | {"embed", "final_norm", "logits"}
    assert len(gpt2.sites) == 3 * len(expected) + 3
    assert gpt2.refused == {}
    assert gpt2.n_blocks == LAYERS


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("blocks.1.atn.z", "blocks.1.attn.z"),
        ("blocks.1.resid_pst", "blocks.1.resid_post"),
        ("blocks.9.mlp.out", "blocks.0.mlp.out"),
        ("logit", "logits"),
        ("module:transformer.h.1.mlp.c_fx.out", "module:transformer.h.1.mlp.c_fc.out"),
    ],
)
def test_unknown_names_list_the_nearest(gpt2: Network, name: str, near: str) -> None:
    for ask in (gpt2.select, lambda n: gpt2.run(token_ids(), keep=n), lambda n: gpt2.run(token_ids(), edits=Ablate(n))):
        with pytest.raises(UnknownName, match=re.escape(name)) as caught:
            ask(name)
        assert near in str(caught.value)
        assert "openwork open" in str(caught.value)


def test_an_unknown_place_to_stop(gpt2: Network) -> None:
    with pytest.raises(UnknownName, match=r"blocks\.1\.resid_post"):
        gpt2.run(token_ids(), until="blocks.1.resid_pots")


@pytest.mark.parametrize(
    "site", ["blocks.1.attn.z[4]", "blocks.*.attn.z[0,17]", "blocks.1.mlp.hidden[128]", "embed[32]"]
)
def test_indices_out_of_range(gpt2: Network, site: str) -> None:
    with pytest.raises(BadInput, match="expected an index below"):
        gpt2.select(site)


def test_text_that_is_no_site(gpt2: Network) -> None:
    for text in ("blocks.1.attn.z[", "", "blocks.1.attn.z[3-1]", "blocks.1.attn.z[a]"):
        with pytest.raises(BadInput, match="expected"):
            gpt2.select(text)


@pytest.mark.parametrize(
    ("kind", "site", "parts"),
    [
        ("gpt2", "blocks.1.attn.z", HEADS),
        ("gpt2", "blocks.1.mlp.hidden", 4 * WIDTH),
        ("gpt2", "blocks.1.attn.pattern[2]", HEADS),
        ("gpt2", "blocks.*.attn.z", HEADS),
        ("llama", "blocks.1.attn.v", 2),
        ("llama", "blocks.1.mlp.hidden", 40),
        ("pictures", "module:stages.0.second.out", 6),
        ("pictures", "blocks.1.resid_post", 6),
        ("perceptron", "module:up.out", 24),
    ],
)
def test_parts(opened: Opener, kind: str, site: str, parts: int) -> None:
    assert opened(kind).parts(site) == parts


def test_a_refused_site_says_why_and_what_remains(opened: Opener) -> None:
    net = opened("gpt-oss")
    name, reason = next((n, r) for n, r in net.refused.items() if "experts" in n)
    with pytest.raises(SiteRefused, match=re.escape(reason)) as caught:
        net.run(token_ids(), keep=name)
    assert "module:" in str(caught.value)
    with pytest.raises(SiteRefused):
        net.run(token_ids(), edits=Ablate(name))


def test_the_tree_shows_every_site_shape_check_and_refusal(opened: Opener) -> None:
    for kind in ("gpt2", "gpt-oss", "t5", "pictures"):
        net = opened(kind)
        console = Console(width=220, record=True, quiet=True)
        with console.capture() as capture:
            console.quiet = False
            console.print(net)
        text = capture.get()
        for site in net.sites.values():
            assert re.sub(r"^(?:.*\.)?blocks\.\d+\.", "", site.name) in text
        for reason in net.refused.values():
            assert reason[:60] in " ".join(text.split())
        assert "certified" in text
        assert kind in text
    text = opened("gpt2")._repr_html_()
    assert text.startswith("<pre>")
    assert "head 4" in text
    assert "blocks.0-2" in text


def test_repr_counts(gpt2: Network) -> None:
    assert repr(gpt2) == "Network('gpt2': 3 blocks, 51 certified, 0 inert, 0 refused sites)"


def test_the_map_prints_in_one_line(gpt2: Network) -> None:
    said = repr(gpt2.map)
    assert said == f"SiteMap({len(gpt2.sites)} sites, {len(gpt2.refused)} refused, {len(gpt2.map.modules)} of modules)"
