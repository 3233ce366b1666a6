"""The exemplar test: 1 for detectors of what can be seen, chance for a unit that is noise, and its slow judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput, UnknownName
from openwork.finding import Verdict
from openwork.vision.responses.likeness import Yardstick, as_pixels, judge_of, low_level
from openwork.vision.responses.predicts import Predicting, axis, predicts, probabilities, queries
from openwork.vision.responses.redrawn import redrawn
from openwork.worlds.picture_array import PictureArray

from .planted_units import SIZE, Detectors, opened, squares

SITE = "module:conv.out"
QUICK = Predicting(references=6, pairs=24, gaps=(1.0, 0.4), batch=128)


@pytest.fixture(scope="module")
def net():
    return opened(Detectors())


@pytest.fixture(scope="module")
def corpus():
    return squares(200)


@pytest.fixture(scope="module")
def found(net, corpus):
    return predicts(net, [SITE, "module:head.out[1]"], corpus, QUICK)


def test_examples_of_planted_detectors_predict_nearly_every_pair(found):
    accuracy = found.table["accuracy"].to_numpy()[:4, 0]
    assert accuracy.min() > 0.9
    assert accuracy[1:].tolist() == [1.0] * 3


def test_examples_of_noise_predict_nothing(found):
    low, high = (float(found.table[f"accuracy_{end}"][4, 0]) for end in ("low", "high"))
    assert low < 0.5 < high


def test_pairs_that_lie_nearer_are_harder(found):
    accuracy = found.table["probability"].to_numpy()[:4].mean(-1)
    assert (accuracy[:, 0] > accuracy[:, 1]).all()


def test_random_references_predict_nothing(found):
    assert np.abs(found.table["random_accuracy"].to_numpy()[:4] - 0.5).max() < 0.08


def test_colour_detectors_are_supported_and_noise_is_not(found):
    verdicts = {f.claim.split(" of ")[1].split(" predict")[0]: f.verdict for f in found.findings}
    assert [verdicts[f"{SITE}[{i}]"] for i in range(3)] == [Verdict.SUPPORTED] * 3
    assert verdicts["module:head.out[1]"] != Verdict.SUPPORTED


def test_references_are_found_ones_and_queries_held_out(found, net, corpus):
    find, held = ({*QUICK.reading(split).rows(len(corpus)).tolist()} for split in ("find", "held-out"))
    assert {*found.table["reference_row"].to_numpy().ravel().tolist()} <= find
    assert {*found.table["query_row"].to_numpy().ravel().tolist()} <= held


def test_the_strong_query_activates_the_unit_more(found):
    activation = found.table["query_activation"].to_numpy()
    assert (activation[..., 0] > activation[..., 1]).all()


@pytest.mark.parametrize(("n", "gap"), [(80, 1.0), (81, 0.5), (100, 0.1), (48, 1.0)])
def test_no_image_is_a_query_twice_and_gaps_are_what_they_say(n, gap):
    strong, weak = queries(n, 24, gap)
    assert len({*strong, *weak}) == 48
    assert min(strong) > max(weak)
    if gap == 1.0:
        assert (strong.max(), weak.min()) == (n - 1, 0)


def test_the_axis_gives_mean_cosines():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(n, 7)) for n in (5, 3, 4)]
    strong, weak, query = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in features)
    wanted = [np.mean([q @ s for s in strong]) - np.mean([q @ w for w in weak]) for q in query]
    assert query @ axis(strong, weak) == pytest.approx(wanted)


def test_a_judge_that_cannot_tell_gives_half():
    same = np.ones((3, 4)) / 2
    assert probabilities(np.ones(4), same, same, np.eye(4)).tolist() == [0.5] * 3


def test_a_yardstick_measures_from_the_mean_in_units_of_the_spread():
    pool = np.random.default_rng(0).normal(3.0, [1.0, 100.0, 0.0], (50, 3))
    scaled = (pool - pool.mean(0))[:, :2] / pool.std(0)[:2]
    wanted = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    measured = Yardstick.of(pool)(pool)
    assert measured[:, :2] == pytest.approx(wanted)
    assert measured[:, 2] == pytest.approx(0.0)


def test_given_pictures_are_judged_instead_of_examples(net, corpus):
    pictures = {}
    for i in range(3):
        picture = torch.full((1, 3, SIZE, SIZE), 0.1)
        picture[:, i, 5:10, 5:10] = 1.0
        pictures[f"{SITE}[{i}]"] = picture
    wrong = {name: pictures[f"{SITE}[{(i + 1) % 3}]"] for i, name in enumerate(pictures)}
    names = list(pictures)
    right, swapped = (predicts(net, names, corpus, QUICK, references=given) for given in (pictures, wrong))
    assert right.table["accuracy"].to_numpy()[:, 0].min() > 0.7
    assert swapped.table["accuracy"].to_numpy()[:, 0].max() < 0.5
    assert "reference_row" not in right.table


def test_an_independent_network_can_be_the_judge(net, corpus):
    found = predicts(net, f"{SITE}[0]", corpus, replace(QUICK, site=SITE), judge=opened(Detectors()))
    assert float(found.table["accuracy"][0, 0]) == 1.0
    own = predicts(net, f"{SITE}[0]", corpus, QUICK, judge=net)
    assert "no independent one" in own.remarks[0]


def test_a_network_with_shuffled_weights_can_be_the_judge(net, corpus):
    name, features = judge_of(net, "untrained", SITE, 0)
    pixels = corpus.pixels(range(3)).float() / 255
    judged = features(pixels)
    assert "random order" in name
    assert not np.allclose(judged, features_of(net, pixels))


def features_of(net, pixels):
    with torch.no_grad():
        return net.module.conv(pixels).mean((2, 3)).numpy()


def test_shuffled_weights_keep_each_units_own_and_are_put_back(net):
    before = net.module.conv.weight.detach().clone()
    inside = []

    def broken():
        with redrawn(net, 0):
            inside.append(net.module.conv.weight.detach().clone())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert torch.equal(net.module.conv.weight, before)
    assert not torch.equal(inside[0], before)
    assert torch.equal(inside[0].flatten(1).sort(1).values, before.flatten(1).sort(1).values)


def test_low_level_features_know_colour_place_and_orientation():
    plain = torch.full((1, 3, SIZE, SIZE), 0.5)
    red, lines = plain.clone(), plain.clone()
    red[:, 0], lines[..., ::4] = 1.0, 1.0
    turned = lines.transpose(2, 3)
    found = [low_level(x)[0] for x in (plain, red, lines, turned)]
    assert float((found[2] - found[3]).norm()) > 0.5
    assert float((found[0] - found[1]).norm()) > 0.5
    assert torch.equal(low_level(lines.flip(3).roll(1, 3))[0][-64:] > 0, found[2][-64:] > 0)


def test_a_unit_that_never_changes_cannot_be_tested(net):
    same = PictureArray(torch.full((100, 3, SIZE, SIZE), 90, dtype=torch.uint8))
    result = predicts(net, f"{SITE}[3]", same, QUICK)
    assert result.findings == ()
    assert "equally active" in result.remarks[0]


def test_a_corpus_smaller_than_references_and_queries_is_refused(net):
    with pytest.raises(BadInput, match="12 images for references and 48 for queries"):
        predicts(net, f"{SITE}[0]", squares(60), QUICK)


def test_references_that_are_no_images_are_refused(net, corpus):
    with pytest.raises(UnknownName, match="references of a unit"):
        predicts(net, f"{SITE}[0]", corpus, QUICK, references={f"{SITE}[1]": torch.zeros(1, 3, 8, 8)})
    with pytest.raises(BadInput, match="pixels in"):
        as_pixels(torch.full((1, 3, 8, 8), 7.0), "it")
    with pytest.raises(BadInput, match="image, channel, y, x"):
        as_pixels(torch.zeros(8, 8), "it")


def test_an_unknown_judge_or_one_that_reads_text_is_refused(net, corpus):
    with pytest.raises(BadInput, match="as the judge"):
        predicts(net, f"{SITE}[0]", corpus, QUICK, judge="people")
    with pytest.raises(BadInput, match="reads images"):
        predicts(net, f"{SITE}[0]", corpus, QUICK, judge=ow.open("py-attn2"))


def test_images_too_small_for_low_level_statistics_are_refused():
    with pytest.raises(BadInput, match="8 pixels"):
        low_level(torch.zeros(1, 3, 7, 12))


@pytest.mark.parametrize("wrong", [{"gaps": ()}, {"gaps": (0.0,)}, {"pairs": 1}, {"queries": 10}])
def test_knobs_that_mean_nothing_are_refused(wrong):
    with pytest.raises(BadInput, match="expected"):
        Predicting(**wrong)
