"""Patches and substitutes: values from other runs and other sites, against tensors overwritten by hand."""

from __future__ import annotations

import pytest
import torch

from openwork.edit import (
    Ablate,
    Patch,
    Substitute,
)
from openwork.errors import BadInput, Misaligned, UnknownName
from openwork.network import Network
from openwork.site import Where
from openwork.task import Inputs

from .oracle import forward, inner, places, watch
from .tiny import token_ids

# -- patching --


def test_patching_everything_gives_the_source_run(gpt2: Network) -> None:
    source = token_ids(seed=9)
    run = gpt2.run(token_ids(), edits=Patch("blocks.0.resid_pre"), sources={"clean": source})
    torch.testing.assert_close(run.logits, gpt2.run(source).logits, rtol=1e-6, atol=1e-6)


def test_a_source_may_be_a_run_that_kept_the_site(gpt2: Network) -> None:
    source = gpt2.run(token_ids(seed=9), keep="blocks.1.attn.z", edits=Ablate("blocks.0.mlp.out"))
    run = gpt2.run(token_ids(), edits=Patch("blocks.1.attn.z[2]"), sources={"clean": source}, keep="blocks.1.attn.z")
    assert torch.equal(run["blocks.1.attn.z"][:, :, 2], source["blocks.1.attn.z"][:, :, 2])
    with pytest.raises(UnknownName, match="kept site"):
        gpt2.run(token_ids(), edits=Patch("blocks.2.attn.z"), sources={"clean": source})


def test_a_source_of_one_row_serves_all(gpt2: Network) -> None:
    site = "blocks.1.resid_post"
    source = gpt2.run(token_ids(1, seed=9), keep=site)
    run = gpt2.run(token_ids(), edits=Patch(site, (2, 5)), sources={"clean": source}, keep=site)
    assert torch.equal(run[site][:, [2, 5]], source[site][:, [2, 5]].expand(3, -1, -1))
    with pytest.raises(Misaligned, match="1 or 3 rows"):
        gpt2.run(token_ids(), edits=Patch(site), sources={"clean": token_ids(2)})


def test_patching_from_elsewhere(gpt2: Network) -> None:
    site = "blocks.1.resid_post"
    source = gpt2.run(token_ids(seed=9), keep=site)
    edit = Patch(site, (2, 5), source_where=Where(positions=(7, 0)))
    run = gpt2.run(token_ids(), edits=edit, sources={"clean": source}, keep=site)
    assert torch.equal(run[site][:, [2, 5]], source[site][:, [7, 0]])
    wrong = Patch(site, (2, 5), source_where=Where(positions=(7,)))
    with pytest.raises(Misaligned, match="as many source positions"):
        gpt2.run(token_ids(), edits=wrong, sources={"clean": source})


def test_patching_from_the_end_of_rows_of_other_lengths(gpt2: Network) -> None:
    here = Inputs(((5, 6, 7, 8, 9), (10, 11, 12)), {"name": ((1, 2), (0,))})
    there = Inputs(((20, 21), (22, 23, 24, 25)), {"name": ((0, 1), (3,))})
    site = "blocks.1.resid_post"
    plain = [gpt2.run(Inputs((row,)), keep=site)[site][0] for row in there.ids]
    run = gpt2.run(here, edits=Patch(site, -1), sources={"clean": there}, keep=site)
    torch.testing.assert_close(run[site][0, 4], plain[0][1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run[site][1, 2], plain[1][3], rtol=1e-5, atol=1e-6)
    run = gpt2.run(here, edits=Patch(site, "name"), sources={"clean": there}, keep=site)
    torch.testing.assert_close(run[site][0, 1:3], plain[0][:2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run[site][1, 0], plain[1][3], rtol=1e-5, atol=1e-6)
    with pytest.raises(Misaligned, match="as many source positions"):
        gpt2.run(here, edits=Patch(site), sources={"clean": there})
    with pytest.raises(Misaligned, match="equal lengths"):
        gpt2.run(here, edits=Patch("blocks.1.attn.pattern"), sources={"clean": there})


def test_patching_a_pattern(gpt2: Network) -> None:
    site = "blocks.1.attn.pattern"
    source = gpt2.run(token_ids(seed=9), keep=site)
    run = gpt2.run(token_ids(), edits=Patch(site + "[1]", (4, 8)), sources={"clean": source}, keep=[site])
    plain = gpt2.run(token_ids(), keep=site)[site]
    torch.testing.assert_close(run[site][:, 1, [4, 8]], source[site][:, 1, [4, 8]])
    torch.testing.assert_close(run[site][:, [0, 2, 3]], plain[:, [0, 2, 3]])
    torch.testing.assert_close(run[site][:, 1, :4], plain[:, 1, :4])


# -- substitutes --


def test_a_substitute_may_read_another_site(gpt2: Network) -> None:
    edit = Substitute("blocks.1.mlp.out", by="own", reads="blocks.1.mlp.in")
    mlp = inner(gpt2.module, "transformer.h.1.mlp")
    run = gpt2.run(token_ids(), edits=edit, surrogates={"own": mlp})
    torch.testing.assert_close(run.logits, gpt2.run(token_ids()).logits, rtol=1e-5, atol=1e-6)
    run = gpt2.run(token_ids(), edits=edit, surrogates={"own": lambda x: 2 * x})
    at = places("gpt2", 3)
    read = watch(gpt2.module, {"input_ids": token_ids()}, [at["blocks.1.mlp.in"]])[at["blocks.1.mlp.in"]]
    expected = forward(gpt2.module, {"input_ids": token_ids()}, {at["blocks.1.mlp.out"]: lambda value: 2 * read})
    torch.testing.assert_close(run.logits, expected, rtol=1e-5, atol=1e-5)


def test_a_substitute_whose_surrogate_is_missing(gpt2: Network) -> None:
    with pytest.raises(UnknownName, match="own"):
        gpt2.run(token_ids(), edits=Substitute("blocks.1.mlp.out", by="own"))
    with pytest.raises(UnknownName, match=r"othr.*other"):
        gpt2.run(token_ids(), edits=Patch("blocks.1.mlp.out", source="othr"), sources={"other": token_ids()})


def test_a_substitute_that_reads_what_comes_later(gpt2: Network) -> None:
    edit = Substitute("blocks.1.mlp.in", by="own", reads="blocks.2.mlp.out")
    with pytest.raises(BadInput, match="before"):
        gpt2.run(token_ids(), edits=edit, surrogates={"own": lambda x: x})
