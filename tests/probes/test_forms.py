"""Linear, sparse and non-linear probes: what they learn, which channels they choose, and what is kept on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from openwork.errors import BadInput, CorruptFile
from openwork.probes import Linear, Nonlinear, Probe, Sparse, fit, form_of


def separable(classes: int = 2, n: int = 240, width: int = 8, seed: int = 0):
    """Vectors in which channels 3 and 5 tell the class, and the rest is noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, width))
    x[:, 3] += 4 * y
    x[:, 5] -= 2 * y
    return x, y, np.arange(n) // 6


def test_a_linear_probe_is_the_logistic_regression_of_scaled_vectors() -> None:
    x, y, documents = separable()
    probe = fit(Linear(), x, y, documents, classes=("a", "b"), strength=0.5, balanced=False)
    scale = np.sqrt(x.var(0).mean())
    model = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit((x - x.mean(0)) / scale, y)
    expected = model.predict_proba((x - x.mean(0)) / scale)
    assert np.allclose(probe.probabilities(x), expected, atol=1e-2)


@pytest.mark.parametrize("classes", [2, 3])
def test_channels_that_repeat_others_change_nothing_but_share_their_weight(classes: int) -> None:
    x, y, _ = separable(classes)
    twice = np.concatenate([x, x, np.zeros((len(x), 2))], axis=1) / np.sqrt(2)
    ones = np.ones(len(y))
    alone, both = (Linear().train(v, y, classes, 1.0, ones, 0).layers[0] for v in (x, twice))
    np.testing.assert_allclose(both[0], np.concatenate([alone[0], alone[0], 0 * alone[0][:2]]) / np.sqrt(2), atol=1e-6)


def test_ridge_solves_its_normal_equations() -> None:
    x, _, documents = separable()
    y = x @ np.arange(8.0)
    probe = fit(Linear(), x, y, documents, strength=0.2)
    scale = np.sqrt(x.var(0).mean())
    z = (x - x.mean(0)) / scale
    w = np.linalg.solve(z.T @ z + 5 * np.eye(8), z.T @ (y - y.mean()))
    assert np.allclose(probe.predict(x), z @ w + y.mean(), atol=1e-8)


def test_balanced_training_gives_a_rare_class_its_due() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.03).astype(int)
    x = rng.normal(size=(2000, 2)) + 1.5 * y[:, None]
    found = [
        (fit(Linear(), x, y, np.arange(2000), classes=("a", "b"), strength=1.0, balanced=b).predict(x)[y == 1] == 1)
        .mean() for b in (False, True)
    ]  # fmt: skip
    assert found[0] < 0.5 < 0.8 < found[1]


def test_sparse_channels_are_those_of_the_largest_standardised_difference() -> None:
    x, y, documents = separable()
    means = [abs(x[y == 1, c].mean() - x[y == 0, c].mean()) / x[:, c].std() for c in range(8)]
    probe = fit(Sparse(2), x, y, documents, classes=("a", "b"), strength=1.0)
    used = np.flatnonzero(probe.direction.array.numpy())
    assert {*used.tolist()} == {*np.argsort(means)[-2:].tolist()}


@pytest.mark.parametrize("classes", [0, 2, 3])
@pytest.mark.parametrize("by", ["mean difference", "L1"])
def test_a_sparse_probe_finds_the_one_channel_that_tells(by: str, classes: int) -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=300) if not classes else rng.integers(0, classes, 300)
    x = rng.normal(size=(300, 12))
    x[:, 7] = 3 * y + 0.1 * rng.normal(size=300)
    form = Sparse(1, by)  # pyright: ignore[reportArgumentType]
    weights = np.ones(300)
    assert form.channels(x - x.mean(0), y, classes, weights).tolist() == [7]


def test_only_a_nonlinear_probe_reads_exclusive_or() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (600, 2))
    x, y = bits - 0.5 + 0.05 * rng.normal(size=(600, 2)), bits[:, 0] ^ bits[:, 1]
    made = [fit(form, x, y, np.arange(600), classes=("a", "b"), strength=10.0) for form in (Linear(), Nonlinear())]
    right = [(probe.predict(x) == y).mean() for probe in made]
    assert right[0] < 0.7
    assert right[1] > 0.99


def test_the_direction_of_two_classes_points_at_the_second() -> None:
    x, y, documents = separable()
    vector = fit(Linear(), x, y, documents, classes=("a", "b")).direction.array.numpy()
    assert (x[y == 1].mean(0) - x[y == 0].mean(0)) @ vector > 0
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_the_subspace_of_many_classes_has_one_dimension_less() -> None:
    x, y, documents = separable(4)
    rows = fit(Linear(), x, y, documents, classes=tuple("abcd")).direction.array.numpy()
    assert rows.shape == (3, 8)
    assert np.allclose(rows @ rows.T, np.eye(3), atol=1e-5)


def test_what_did_not_vary_in_training_is_not_read() -> None:
    x, y, documents = separable()
    x[:, 0] = 7.0
    probe = fit(Nonlinear(), x, y, documents, classes=("a", "b"), strength=1.0)
    moved = x.copy()
    moved[:, 0] += 1000
    assert np.allclose(probe.outputs(x), probe.outputs(moved))


def test_the_strength_is_the_likeliest_on_documents_left_out() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 60)), rng.integers(0, 2, 120)
    probe = fit(Linear(), x, y, np.arange(120) // 4, classes=("a", "b"))
    assert probe.strength == min(Linear().strengths)


def test_a_class_that_never_occurs_in_training_is_never_said() -> None:
    x, y, documents = separable(2)
    probe = fit(Linear(), x, 2 * y, documents, classes=("a", "b", "c"))
    assert {*probe.predict(x).tolist()} == {0, 2}
    assert probe.probabilities(x)[:, 1].max() < 1e-6


@pytest.mark.parametrize("name", ["linear", "nonlinear", "1-sparse", "5-sparse by L1"])
def test_forms_are_known_by_name(name: str) -> None:
    assert form_of(name).name == name


@pytest.mark.parametrize("form", [Linear(), Nonlinear(), Sparse(2)])
def test_a_probe_read_back_predicts_the_same(form, tmp_path: Path) -> None:
    x, y, documents = separable(3)
    probe = fit(form, x, y, documents, classes=("a", "b", "c"), site="blocks.1.resid_post", label="letter")
    again = Probe.load(probe.save(tmp_path / "probe"))
    assert np.array_equal(again.outputs(x), probe.outputs(x))
    assert (again.form, again.site, again.label, again.classes) == (probe.form, probe.site, "letter", ("a", "b", "c"))


def test_the_folder_of_a_probe_holds_no_pickle(tmp_path: Path) -> None:
    x, y, documents = separable()
    fit(Linear(), x, y, documents, classes=("a", "b")).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probe.json", "probe.safetensors"]


def test_a_damaged_probe_is_refused(tmp_path: Path) -> None:
    x, y, documents = separable()
    folder = fit(Linear(), x, y, documents, classes=("a", "b")).save(tmp_path)
    (folder / "probe.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CorruptFile, match="tensors as safetensors"):
        Probe.load(folder)
    save_file({}, folder / "probe.safetensors")
    with pytest.raises(CorruptFile, match="weights and fields"):
        Probe.load(folder)
    (folder / "probe.json").write_text("{}")
    with pytest.raises(CorruptFile, match="schema"):
        Probe.load(folder)
    with pytest.raises(BadInput, match="there is none"):
        Probe.load(tmp_path / "elsewhere")


def test_what_a_probe_cannot_do_is_refused() -> None:
    x, y, documents = separable()
    probe = fit(Nonlinear(), x, y, documents, classes=("a", "b"), strength=1.0)
    with pytest.raises(BadInput, match="no single direction"):
        _ = probe.direction
    with pytest.raises(BadInput, match="8 channels"):
        probe.predict(x[:, :3])
    with pytest.raises(BadInput, match="reads the number"):
        fit(Linear(), x, y.astype(float), documents).probabilities(x)
    with pytest.raises(BadInput, match="zero weights"):
        _ = replace(probe, layers=((np.zeros((8, 2)), np.zeros(2)),)).direction


def test_wrong_numbers_are_refused() -> None:
    x, y, documents = separable()
    with pytest.raises(BadInput, match="finite vectors"):
        fit(Linear(), np.where(x > 3, np.nan, x), y, documents, classes=("a", "b"))
    with pytest.raises(BadInput, match="at least 9 channels"):
        fit(Sparse(9), x, y, documents, classes=("a", "b"))
    with pytest.raises(BadInput, match="k of 1"):
        Sparse(0)
    with pytest.raises(BadInput, match="form of probe"):
        form_of("quadratic")
