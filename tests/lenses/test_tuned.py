"""Tuned lenses: where the best map is known, they find it; and what is claimed of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.lenses.nets import WIDTH, rows
from tests.lenses.nets import linear as linear_network

from openwork.errors import BadInput, Diverged
from openwork.lenses import Comparing, Lens, ReadOut, Translator, Tuning, compare, jacobian_lens, tune
from openwork.lenses.compare import held_out_of, like, texts_of
from openwork.metrics import kl_divergence
from openwork.network import Network
from openwork.results.claims import Standard
from openwork.results.result import Result

TEXTS, SITES = rows(96, 12), "blocks.0-1.resid_post"


@pytest.fixture(scope="module")
def linear() -> Network:
    return linear_network()


@pytest.fixture(scope="module")
def tuned(linear: Network) -> Lens:
    return tune(linear, TEXTS, sites=SITES, method=Tuning(steps=150, rate=3e-2, places=64))


@pytest.fixture(scope="module")
def compared(linear: Network, tuned: Lens) -> Result:
    learning = Tuning(steps=30, rate=3e-2, places=64, shuffled=True)
    shuffled = tune(linear, TEXTS, sites=SITES, method=learning)
    method = Comparing(claims=2, standard=Standard(alpha=0.2))
    return compare(linear, tuned, TEXTS, method=method, rivals={"outputs at other tokens": shuffled})


def test_where_the_rest_of_the_network_is_linear_the_tuned_lens_becomes_the_output(compared: Result) -> None:
    left = compared.table.kl_by_site.to_numpy() / compared.table.base_kl_by_site.to_numpy()
    assert left.max() < 0.1


def test_it_is_claimed_on_held_out_texts_against_random_maps_and_shuffled_outputs(compared: Result) -> None:
    assert [str(f.verdict) for f in compared.findings] == ["supported", "supported"]
    for finding in compared.findings:
        assert (finding.split, finding.n) == ("held-out", 24)
        assert finding.control is not None
        assert finding.control.mean < finding.estimate
        assert finding.rival is not None
        assert finding.rival.difference.low > 0


def test_a_gain_is_the_difference_of_the_mean_divergences_of_each_text(
    linear: Network, tuned: Lens, compared: Result
) -> None:
    read_out, held = ReadOut.of(linear), sorted(held_out_of(texts_of(linear, TEXTS), None))
    site = compared.findings[0].claim.split()[1]
    gains = []
    for row in held:
        run = linear.run(torch.tensor([TEXTS[row]]), keep=site)
        state = run[site][0]
        base, own = (kl_divergence(run.logits[0], read_out(x)) for x in (state, tuned.maps[site](state)))
        gains.append((base - own).mean().item())
    np.testing.assert_allclose(compared.table.held_out_effect[0], gains, atol=1e-5)
    assert compared.findings[0].estimate == pytest.approx(np.mean(gains), abs=1e-5)


def test_no_held_out_text_is_learned_from(linear: Network) -> None:
    held = range(4, 96)
    whole = tune(linear, TEXTS, held, method=Tuning(steps=3))
    changed = tune(linear, [*TEXTS[:4], *rows(92, 12, seed=5)], held, method=Tuning(steps=3))
    assert all(torch.equal(whole.maps[k].matrix, changed.maps[k].matrix) for k in whole.maps)


def test_the_first_step_begins_at_the_logit_lens(linear: Network) -> None:
    begun = tune(linear, TEXTS, method=Tuning(steps=1, rate=1e-12))
    torch.testing.assert_close(begun.maps["blocks.0.resid_post"].matrix, torch.eye(WIDTH))


def test_behind_the_last_block_it_is_the_identity(tuned: Lens) -> None:
    last = tuned.maps["blocks.2.resid_post"]
    assert torch.equal(last.matrix, torch.eye(WIDTH))
    assert not last.bias.any()


def test_the_weights_of_the_network_are_not_touched(linear: Network) -> None:
    before = {name: p.clone() for name, p in linear.module.named_parameters()}
    tune(linear, TEXTS, method=Tuning(steps=2))
    assert all(torch.equal(before[name], p) for name, p in linear.module.named_parameters())
    assert all(p.grad is None for p in linear.module.parameters())


def test_the_budget_changes_no_step(linear: Network) -> None:
    one, other = (tune(linear, TEXTS, method=Tuning(steps=3, memory=m)) for m in ("64MiB", "9KiB"))
    for name in one.maps:
        torch.testing.assert_close(one.maps[name].matrix, other.maps[name].matrix, atol=1e-4, rtol=1e-3)


def test_a_random_map_is_as_far_from_the_identity_in_norm() -> None:
    map_ = Translator(torch.eye(8) + 0.3 * torch.randn(8, 8), torch.randn(8))
    twin = like(map_, 8, 0)
    assert float((twin.matrix - torch.eye(8)).norm()) == pytest.approx(float((map_.matrix - torch.eye(8)).norm()))
    assert float(twin.bias.norm()) == pytest.approx(float(map_.bias.norm()))
    head = Translator(torch.randn(8, 3), torch.zeros(8))
    assert float(like(head, 8, 0).matrix.norm()) == pytest.approx(float(head.matrix.norm()))


def test_a_rate_that_is_too_high_is_said_to_diverge(linear: Network) -> None:
    with pytest.raises(Diverged, match="lower rate"):
        tune(linear, TEXTS, method=Tuning(steps=60, rate=300.0))


def test_a_lens_that_is_worse_makes_no_claim(linear: Network) -> None:
    worse = jacobian_lens(linear, TEXTS[:2], "blocks.0.resid_post")
    flipped = Lens("tuned", {k: Translator(-m.matrix, m.bias) for k, m in worse.maps.items()})
    found = compare(linear, flipped, TEXTS, sites="blocks.0.resid_post", method=Comparing(claims=1))
    assert found.findings == ()
    assert "nothing is claimed" in found.remarks[0]


def test_bad_texts_and_knobs_are_refused(linear: Network) -> None:
    for texts in ([[1, 2, 3]], [[1], [2]], "a text"):
        with pytest.raises(BadInput, match="texts"):
            tune(linear, texts)
    with pytest.raises(BadInput, match="held out"):
        tune(linear, TEXTS, range(96))
    with pytest.raises(BadInput):
        Tuning(steps=0)
    with pytest.raises(BadInput):
        Comparing(places=0)
    with pytest.raises(BadInput, match="where every lens says"):
        compare(linear, tune(linear, TEXTS, method=Tuning(steps=1)), TEXTS, sites="blocks.2.resid_post")


def test_of_few_texts_the_map_is_kept_that_was_best_on_texts_set_aside(linear: Network) -> None:
    few = TEXTS[:8]
    soon, late = (tune(linear, few, [0], "blocks.0.resid_post", Tuning(steps=s, rate=0.3)) for s in (1, 150))
    assert late.settings["aside"]
    assert not {*late.settings["aside"]} & {0}
    read_out = ReadOut.of(linear)
    for text in late.settings["aside"]:
        run = linear.run(torch.tensor([few[text]]), keep="blocks.0.resid_post")
        state = run["blocks.0.resid_post"][0]
        assert late.maps["blocks.0.resid_post"](state).isfinite().all()
    worth = []
    for lens in (soon, late):
        losses = []
        for text in late.settings["aside"]:
            run = linear.run(torch.tensor([few[text]]), keep="blocks.0.resid_post")
            said = read_out(lens.maps["blocks.0.resid_post"](run["blocks.0.resid_post"][0]))
            losses.append(kl_divergence(run.logits[0], said).mean().item())
        worth.append(np.mean(losses))
    assert worth[1] <= worth[0]
