"""Dataset examples against the whole corpus in memory, and a cause that was planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput, UnknownName
from openwork.vision.responses.exemplars import SHARES, Exemplars, exemplars
from openwork.vision.streams import keys_of
from openwork.vision.units import Unit, units_of
from openwork.worlds.picture_array import PictureArray

from .planted_units import SIZE, Detectors, opened, squares

SITE = "module:conv.out"


@pytest.fixture(scope="module")
def net():
    return opened(Detectors())


@pytest.fixture(scope="module")
def corpus():
    return squares(150)


@pytest.fixture(scope="module")
def every(net, corpus):
    """Every unit at every place of every image."""
    pixels = corpus.pixels(range(len(corpus))).float() / 255
    with torch.no_grad():
        return net.module.conv(pixels).double().numpy()


@pytest.fixture(scope="module")
def found(net, corpus):
    return exemplars(net, SITE, corpus, Exemplars(top=5, bottom=4, intervals=4, each=3, split="all", batch=13)).table


def test_the_strongest_are_those_of_the_whole_corpus(found, every):
    pooled = every.max((2, 3))
    for u in range(4):
        order = np.lexsort((np.arange(len(pooled)), -pooled[:, u]))[:5]
        assert found["row"].to_numpy()[u, :5].tolist() == order.tolist()
        assert found["activation"].to_numpy()[u, :5] == pytest.approx(pooled[order, u], abs=1e-6)


def test_the_weakest_are_those_of_the_whole_corpus(found, every):
    pooled = every.max((2, 3))
    for u in range(4):
        assert found["row"].to_numpy()[u, -4:].tolist() == np.argsort(pooled[:, u], kind="stable")[:4].tolist()


def test_intervals_are_even_and_count_every_image(found, every):
    pooled = every.max((2, 3))
    for u in range(4):
        counts, edges = np.histogram(pooled[:, u], 4)
        assert found["edge"].to_numpy()[u] == pytest.approx(edges, abs=1e-6)
        assert found["count"].to_numpy()[u].tolist() == counts.tolist()
        assert int(found["histogram"][u].sum()) == 150


def test_examples_of_an_interval_are_a_uniform_sample_of_it(found, every):
    pooled, keys = every.max((2, 3)), keys_of(np.arange(150), 0)
    shown = found["shown"].to_numpy()
    for u in range(4):
        edges = np.linspace(pooled[:, u].min(), pooled[:, u].max(), 5)
        for k in range(4):
            inside = np.flatnonzero((pooled[:, u] >= edges[k]) & ((pooled[:, u] < edges[k + 1]) | (k == 3)))
            wanted = inside[np.argsort(keys[inside])][:3].tolist()
            rows = found["row"].to_numpy()[u, shown == f"interval {k + 1}"].tolist()
            assert rows == wanted + [-1] * (3 - len(wanted))


def test_quantiles_are_exact_to_a_thousandth_of_the_range(found, every):
    pooled = every.max((2, 3))
    for u in range(4):
        wanted = np.quantile(pooled[:, u], SHARES, method="linear")
        # between neighbours in a sample of 150 any value is a quantile
        steps = np.diff(np.sort(pooled[:, u])).max()
        assert np.abs(found["quantile"].to_numpy()[u] - wanted).max() < np.ptp(pooled[:, u]) / 1000 + steps
        assert float(found["mean"][u]) == pytest.approx(pooled[:, u].mean(), abs=1e-6)


def test_maps_and_places_are_those_of_the_image(found, every):
    for u in range(4):
        for example, row in enumerate(found["row"].to_numpy()[u]):
            if row >= 0:
                assert found["activation_map"].to_numpy()[u, example] == pytest.approx(every[row, u], abs=1e-6)
                assert int(found["place"][u, example]) == int(every[row, u].argmax())


def test_the_box_is_the_receptive_field_of_the_strongest_place(found):
    for u in range(4):
        y, x = divmod(int(found["place"][u, 0]), SIZE)
        wanted = [max(0, y - 1), max(0, x - 1), min(SIZE, y + 2), min(SIZE, x + 2)]
        assert found["box"].to_numpy()[u, 0].tolist() == wanted


def test_the_pixels_of_every_shown_image_are_there(found, corpus):
    rows = found["shown_picture"].to_numpy().tolist()
    assert np.array_equal(found["pixels"].to_numpy(), corpus.pixels(rows).numpy())
    picture, row = found["picture"].to_numpy(), found["row"].to_numpy()
    assert all(rows[p] == r for p, r in zip(picture[row >= 0], row[row >= 0], strict=True))


@pytest.mark.parametrize("batch", [64, 1000])
def test_nothing_depends_on_the_batch(net, corpus, found, batch):
    again = exemplars(net, SITE, corpus, Exemplars(5, 4, 4, 3, split="all", batch=batch)).table
    for name in ("row", "count", "place", "histogram", "box"):
        assert np.array_equal(again[name].to_numpy(), found[name].to_numpy()), name


def test_a_planted_cause_is_found_in_the_images_that_have_it_and_where_it_is(net):
    rng = np.random.default_rng(3)
    values = rng.integers(0, 40, (80, 3, SIZE, SIZE)).astype(np.uint8)
    planted = {7: (2, 9), 31: (10, 4), 58: (5, 5)}
    for row, (y, x) in planted.items():
        values[row, 0, y - 1 : y + 2, x - 1 : x + 2] = 255
    table = exemplars(net, f"{SITE}[0]", PictureArray(torch.tensor(values)), Exemplars(3, 3, split="all")).table
    rows = table["row"].to_numpy()[0, :3].tolist()
    assert sorted(rows) == sorted(planted)
    for row, place in zip(rows, table["place"].to_numpy()[0, :3], strict=True):
        assert divmod(int(place), SIZE) == planted[row]


def test_the_mean_over_places_can_be_asked_for(net, corpus, every):
    table = exemplars(net, SITE, corpus, Exemplars(pool="mean", split="all")).table
    pooled = every.mean((2, 3))
    assert table["row"].to_numpy()[:, 0].tolist() == pooled.argmax(0).tolist()


def test_find_and_held_out_images_share_none_and_are_all(net, corpus):
    find, held = (Exemplars(split=split).rows(150) for split in ("find", "held-out"))
    assert sorted([*find, *held]) == list(range(150))
    shown = exemplars(net, SITE, corpus, Exemplars(3, 3)).table["row"].to_numpy()
    assert {*shown[shown >= 0].tolist()} <= {*find.tolist()}


def test_directions_logits_and_single_places_are_units_too(net, corpus, every):
    vector = np.array([1.0, -1.0, 0.5, 0.0])
    units = [ow.Direction(SITE, vector, origin="a probe"), "module:head.out[1]", Unit(SITE, 0, position=37)]
    table = exemplars(net, units, corpus, Exemplars(1, 1, split="all")).table
    assert table["unit"].to_numpy().tolist() == [f"{SITE} along a probe", "module:head.out[1]", f"{SITE}[0] at 37"]
    along = np.einsum("ncyx,c->nyx", every, vector).max((1, 2))
    at = every[:, 0].reshape(150, -1)[:, 37]
    assert table["row"].to_numpy()[[0, 2], 0].tolist() == [along.argmax(), at.argmax()]
    assert table["box"].to_numpy()[1, 0].tolist() == [0, 0, SIZE, SIZE]


def test_a_unit_that_never_changes_is_told(net):
    same = PictureArray(torch.full((30, 3, SIZE, SIZE), 90, dtype=torch.uint8))
    result = exemplars(net, f"{SITE}[3]", same, Exemplars(3, 3, split="all"))
    assert result.remarks == (f"{SITE}[3] has the same activation on every image",)


def test_a_result_can_be_kept_and_shown(net, corpus, tmp_path: Path):
    from openwork.reports.result import result_pictures
    from openwork.results.result import Result

    exemplars(net, f"{SITE}[0]", corpus, Exemplars(3, 3)).save(tmp_path)
    again = Result.load(tmp_path)
    (drawn,) = result_pictures(again)
    shown = again.table["picture"].to_numpy()
    assert drawn.picture.svg.count("<image") == int((shown >= 0).sum())


def test_an_activation_that_is_no_number_names_unit_and_image():
    values = torch.full((20, 3, SIZE, SIZE), 90, dtype=torch.uint8)
    values[6] = 0
    with pytest.raises(BadInput, match=r"module:head.out\[1\] is NaN or infinite on image 6"):
        exemplars(
            opened(Detectors(broken=True)), "module:head.out[1]", PictureArray(values), Exemplars(3, 3, split="all")
        )


def test_a_corpus_smaller_than_its_examples_is_refused(net):
    with pytest.raises(BadInput, match="at least 9 find images"):
        exemplars(net, SITE, squares(10))


def test_unknown_units_are_named(net, corpus):
    with pytest.raises(UnknownName, match=r"module:conv\.out"):
        exemplars(net, "module:conv.outs", corpus)
    with pytest.raises(BadInput, match="below 4"):
        exemplars(net, f"{SITE}[4]", corpus)
    with pytest.raises(BadInput, match="4 channels"):
        units_of(net, ow.Direction(SITE, [1.0, 2.0]))
    with pytest.raises(BadInput, match="at least one unit"):
        units_of(net, [])
    with pytest.raises(BadInput, match="a channel or a direction"):
        Unit(SITE)
    with pytest.raises(BadInput, match="position below 256"):
        units_of(net, Unit(SITE, 0, position=256))


def test_attention_weights_are_no_units():
    with pytest.raises(BadInput, match="channels over places"):
        units_of(ow.open("py-attn2"), "blocks.0.attn.pattern")


def test_a_network_that_reads_text_is_refused(corpus):
    with pytest.raises(BadInput, match="reads images"):
        exemplars(ow.open("py-attn2"), "blocks.0.resid_post[0]", corpus)


@pytest.mark.parametrize("wrong", [{"pool": "median"}, {"split": "test"}, {"top": 0}, {"held_out": 1.0}])
def test_knobs_that_mean_nothing_are_refused(wrong):
    with pytest.raises(BadInput, match="expected"):
        Exemplars(**wrong)
