"""The birth of induction heads recovered from the zoo's checkpoints, and not where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from openwork import zoo
from openwork.errors import BadInput
from openwork.learning.checkpoints import Checkpoint, Checkpoints, read
from openwork.learning.induction import Birth, Rows
from openwork.learning.subject import Measure, Reading
from openwork.learning.watch import Watching, watch
from openwork.network import Network
from openwork.reports.result import result_page, result_pictures
from openwork.results.result import Result
from openwork.zoo.transformer import Transformer, TransformerConfig

SMALL, TINY = Rows(rows=96, tokens=64, labels=("string",)), Rows(rows=24, tokens=64, labels=())


def begin(net: Network) -> Birth:
    return Birth.of(net, SMALL)


@pytest.fixture(scope="module")
def born() -> Result:
    return watch(read("py-attn2"), begin, Watching(resamples=60))


def verdicts(result: Result) -> dict[str, str]:
    return {f.settings["measure"]: str(f.verdict) for f in result.findings}


def window(result: Result, measure: str) -> tuple[int, int]:
    ends = result.table["window"].sel(measure=measure)
    return int(ends.sel(end="begin")), int(ends.sel(end="end"))


def test_induction_heads_are_born_where_the_training_curve_has_it(born: Result) -> None:
    for measure in ("knock_out", "prefix_matching"):
        first, last = window(born, measure)
        assert 2475 <= first < last <= 2825


def test_the_birth_is_supported_on_held_out_rows(born: Result) -> None:
    found = verdicts(born)
    assert found["knock_out"] == found["prefix_matching"] == "supported"
    assert {f.split for f in born.findings} == {"held-out"}


def test_a_claim_beats_a_steady_change_and_a_random_order(born: Result) -> None:
    claim = born.findings[0]
    assert claim.rival is not None
    assert claim.rival.name.startswith("a steady change")
    assert claim.control is not None
    assert claim.control.kind.endswith("in random order")


def test_the_heads_are_in_the_second_block(born: Result) -> None:
    assert born.settings["heads"]
    assert all(head.startswith("blocks.1.") for head in born.settings["heads"])


def test_a_previous_token_head_grows_beside_them(born: Result) -> None:
    score = born.table["previous_token"].to_numpy()
    assert score[0] < 0.1
    assert score[-1] > 0.8


def test_the_loss_of_the_second_copy_falls_from_chance_to_almost_nothing(born: Result) -> None:
    loss = born.table["second_copy_loss"].to_numpy()
    assert loss[0] == pytest.approx(np.log(1024), abs=0.5)
    assert loss[-1] < 0.2


def test_the_last_checkpoint_is_most_like_itself(born: Result) -> None:
    alike = born.table["cka_to_last"].to_numpy()
    assert alike[-1] == pytest.approx(1, abs=1e-4)
    assert alike[:-1].max() < 0.99


def test_a_probe_reads_strings_off_the_trained_network_and_shuffled_ones_off_none(born: Result) -> None:
    assert born.table["probe_string"].to_numpy()[-1] > 0.8
    assert abs(born.table["probe_string_shuffled"].to_numpy() - 0.5).max() < 0.15


def test_the_result_comes_back_from_its_folder(born: Result, tmp_path) -> None:
    again = Result.load(born.save(tmp_path / "watched"))
    assert again.table["window"].equals(born.table["window"])
    assert [f.claim for f in again.findings] == [f.claim for f in born.findings]
    titles = [(one.picture.title, one.note) for one in result_pictures(born)]
    assert [(one.picture.title, one.note) for one in result_pictures(again)] == titles


def test_a_picture_for_each_claim_shades_the_steps_of_its_window(born: Result) -> None:
    drawn = result_pictures(born)
    first, last = window(born, "prefix_matching")
    texts = [one.picture.svg for one in drawn if one.picture.title.startswith("prefix matching")]
    assert f"changes between steps {first:,} and {last:,}" in texts[0]


def test_the_page_of_a_training_holds_every_picture(born: Result) -> None:
    page = result_page(born)
    assert page.count('class="picture"') >= len(result_pictures(born))


@pytest.mark.extended
def test_between_two_training_ends_of_the_twin_nothing_is_claimed() -> None:
    ends = read(["py-attn2@step-0", "py-attn2-unmixed"])
    found = watch(ends, lambda net: Birth.of(net, TINY))
    assert found.findings == ()
    assert "3 are needed for a claim" in found.remarks[0]
    assert found.table["prefix_matching"].to_numpy()[-1] < 0.35


def untrained(seed: int) -> Checkpoint:
    return Checkpoint(100 * seed, f"untrained {seed}", module=lambda: zoo.untrained("py-attn2", seed))


@pytest.mark.extended
def test_in_untrained_copies_no_birth_is_supported() -> None:
    found = watch(Checkpoints("untrained", tuple(map(untrained, range(6)))), lambda net: Birth.of(net, TINY))
    assert "supported" not in verdicts(found).values()


@dataclass(frozen=True)
class Given:
    """A subject whose series is given, whatever the network."""

    series: dict[int, np.ndarray]
    name: str = "given"
    control_kind: str = "none"
    measures: tuple[Measure, ...] = (Measure("x", "points", "a number", "x comes", True, 0.1),)
    settings: dict = field(default_factory=dict)
    data_hash: str = "0" * 64

    def held_out(self, measure: str) -> np.ndarray:
        return np.arange(80) % 2 == 1

    def read(self, net: Network) -> Reading:
        return Reading({"x": self.series[int(net.name)]})

    def again(self, net: Network) -> Given:
        raise NotImplementedError


@dataclass(frozen=True)
class Twinned(Given):
    """One whose twin's series is given too."""

    other: dict[int, np.ndarray] = field(default_factory=dict)

    def again(self, net: Network) -> Given:
        return Given(self.other)


def training(steps: list[int]) -> Checkpoints:
    def module() -> tuple[torch.nn.Module, None]:
        return Transformer(TransformerConfig(11, 4, 8, (1,), (0,), 8)).eval(), None

    return Checkpoints("training", tuple(Checkpoint(step, str(step), module=module) for step in steps))


def noisy(values: list[float]) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    return {100 * i: value + 0.2 * rng.normal(size=80) for i, value in enumerate(values)}


def given(subject: Given) -> Callable[[Network], Given]:
    return lambda net: subject


RISE, DRIFT = [0, 0, 0, 0.5, 1, 1, 1, 1], [0, 0.14, 0.29, 0.43, 0.57, 0.71, 0.86, 1]


def test_a_sudden_rise_is_supported() -> None:
    found = watch(training([100 * i for i in range(8)]), given(Given(noisy(RISE))))
    assert verdicts(found) == {"x": "supported"}
    assert window(found, "x") == (200, 400)


def test_a_steady_drift_of_the_same_size_is_not() -> None:
    found = watch(training([100 * i for i in range(8)]), given(Given(noisy(DRIFT))))
    assert verdicts(found)["x"] != "supported"
    assert "steady change" in " ".join(found.findings[0].reasons)


def test_the_steps_of_a_sudden_rise_in_random_order_are_no_phase() -> None:
    shuffled = [RISE[i] for i in (3, 6, 1, 5, 0, 7, 2, 4)]
    found = watch(training([100 * i for i in range(8)]), given(Given(noisy(shuffled))))
    assert verdicts(found)["x"] != "supported"


def test_a_rise_that_the_twin_has_too_is_not_supported() -> None:
    steps = [100 * i for i in range(8)]
    subject = Twinned(noisy(RISE), other=noisy(RISE))
    found = watch(training(steps), given(subject), twin=training(steps))
    assert verdicts(found)["x"] != "supported"
    assert "twin" in " ".join(found.findings[0].reasons)


def test_a_rise_that_the_twin_lacks_is_supported_against_it() -> None:
    steps = [100 * i for i in range(8)]
    subject = Twinned(noisy(RISE), other=noisy([0.0] * 8))
    found = watch(training(steps), given(subject), twin=training(steps))
    assert verdicts(found) == {"x": "supported"}
    assert found.table["twin_x"].dims == ("twin_checkpoint",)


def test_a_twin_without_a_checkpoint_before_or_after_is_an_error() -> None:
    subject = Twinned(noisy(RISE), other=noisy(RISE))
    with pytest.raises(BadInput, match="checkpoints of the twin up to step 200"):
        watch(training([100 * i for i in range(8)]), given(subject), twin=training([300, 700]))


def test_a_measure_that_changes_after_the_twin_ends_is_said_not_to_be_compared() -> None:
    steps = [100 * i for i in range(8)]
    measures = tuple(Measure(name, "points", "a number", f"{name} comes") for name in ("x", "y"))
    late = noisy([0, 0, 0, 0, 0, 0, 0.5, 1])

    @dataclass(frozen=True)
    class Two(Twinned):
        def read(self, net: Network) -> Reading:
            return Reading({"x": self.series[int(net.name)], "y": late[int(net.name)]})

        def again(self, net: Network) -> Given:
            return Two(self.other, measures=measures)

    subject = Two(noisy(RISE), measures=measures, other=noisy([0.0] * 8))
    found = watch(training(steps), given(subject), twin=training(steps[:6]))
    assert any("y was not compared with the twin" in remark for remark in found.remarks)
    assert not any("x was not compared" in remark for remark in found.remarks)


def test_one_checkpoint_shows_no_change() -> None:
    with pytest.raises(BadInput, match="two steps or more"):
        watch(training([0]), given(Given(noisy(RISE))))


@pytest.mark.parametrize("knobs", [{"alpha": 0.0}, {"resamples": 3}, {"min_examples": 1}])
def test_knobs_outside_their_range_are_errors(knobs: dict) -> None:
    with pytest.raises(BadInput, match="expected 0 < alpha"):
        Watching(**knobs)
