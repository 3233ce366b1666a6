"""Directions written and read again, in our format and in those of others; files that were spoilt."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from openwork.control.files import (
    load,
    read_gguf,
    read_steering_vectors,
    save,
    write_gguf,
    write_steering_vectors,
)
from openwork.direction import Direction
from openwork.errors import BadInput, CorruptFile

RNG = np.random.default_rng(0)


def layers(kind: str = "resid_post", numbers: tuple[int, ...] = (1, 3)) -> list[Direction]:
    return [Direction(f"blocks.{n}.{kind}", RNG.normal(size=6).astype(np.float32), "drawn") for n in numbers]


def same(one: list[Direction], other: list[Direction]) -> bool:
    return [(d.site, d.array) for d in one] == [(d.site, d.array) for d in other]


class Vector:
    """What steering-vectors has, as an object."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


def test_directions_and_subspaces_come_back_equal(tmp_path: Path) -> None:
    given = [*layers(), Direction("embed", np.eye(2, 6), "a subspace")]
    save(given, tmp_path / "made")
    assert load(tmp_path / "made") == given
    save(given[0], tmp_path / "one")
    assert load(tmp_path / "one") == [given[0]]


def test_a_control_vector_of_repeng_comes_back_equal(tmp_path: Path) -> None:
    given = layers()
    write_gguf(given, tmp_path / "v.gguf", "mistral")
    found = read_gguf(tmp_path / "v.gguf")
    assert same(found, given)
    assert found[0].origin == "repeng, model mistral"


def test_the_file_has_the_fields_that_repeng_reads(tmp_path: Path) -> None:
    given = layers()
    write_gguf(given, tmp_path / "v.gguf", "mistral")
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    field = reader.get_field("general.architecture")
    hint = reader.get_field("controlvector.model_hint")
    count = reader.get_field("controlvector.layer_count")
    assert field is not None
    assert hint is not None
    assert count is not None
    assert bytes(field.parts[-1]) == b"controlvector"
    assert bytes(hint.parts[-1]) == b"mistral"
    assert int(count.parts[-1][0]) == 2
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.3"]
    np.testing.assert_array_equal(reader.tensors[1].data, given[1].array.numpy())


def foreign(
    path: Path, architecture: str = "controlvector", name: str = "direction.2", dtype: type = np.float32
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tensor(name, np.arange(4, dtype=dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_control_vector_without_hint_and_in_half_precision_is_read(tmp_path: Path) -> None:
    (found,) = read_gguf(foreign(tmp_path / "v.gguf", dtype=np.float16))
    assert str(found.site) == "blocks.2.resid_post"
    np.testing.assert_array_equal(found.array.numpy(), [0, 1, 2, 3])
    assert found.origin == "repeng, model unknown"


def test_gguf_files_that_hold_no_control_vector(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="architecture 'controlvector'; got 'llama'"):
        read_gguf(foreign(tmp_path / "a.gguf", architecture="llama"))
    with pytest.raises(CorruptFile, match="there is none"):
        read_gguf(foreign(tmp_path / "b.gguf", name="weights"))
    with pytest.raises(CorruptFile, match=r"called direction.N"):
        read_gguf(foreign(tmp_path / "c.gguf", name="direction.last"))
    with pytest.raises(CorruptFile, match="float32 or float16"):
        read_gguf(foreign(tmp_path / "d.gguf", dtype=np.int32))
    (tmp_path / "e.gguf").write_bytes(b"GGUF" + b"\xff" * 40)
    with pytest.raises(CorruptFile, match="damaged or another"):
        read_gguf(tmp_path / "e.gguf")
    with pytest.raises(BadInput, match="there is none"):
        read_gguf(tmp_path / "no.gguf")


def test_without_the_package_gguf_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(BadInput, match=r"openwork\[gguf\]"):
        write_gguf(layers(), tmp_path / "v.gguf")


@pytest.mark.parametrize("kind", ["resid_post", "attn.out", "mlp.out"])
def test_the_fields_of_steering_vectors_come_back_equal(tmp_path: Path, kind: str) -> None:
    given = layers(kind)
    write_steering_vectors(given, tmp_path / "v.pt")
    assert same(read_steering_vectors(tmp_path / "v.pt"), given)
    held = torch.load(tmp_path / "v.pt", weights_only=True)
    names = {"resid_post": "decoder_block", "attn.out": "self_attn", "mlp.out": "mlp"}
    assert held["layer_type"] == names[kind]
    assert sorted(held["layer_activations"]) == [1, 3]


def test_a_pickled_object_is_refused_with_a_way_out(tmp_path: Path) -> None:
    vector = Vector(layer_activations={1: torch.ones(3)}, layer_type="decoder_block")
    torch.save(vector, tmp_path / "v.pt")
    with pytest.raises(BadInput, match=r"Vector\).*unpickling runs.*torch.save\(\{") as caught:
        read_steering_vectors(tmp_path / "v.pt")
    assert "layer_type" in str(caught.value)


def test_files_that_are_no_steering_vector(tmp_path: Path) -> None:
    path = tmp_path / "v.pt"
    torch.save({"weights": torch.ones(3)}, path)
    with pytest.raises(CorruptFile, match="expected layer_activations"):
        read_steering_vectors(path)
    torch.save({"layer_activations": {1: torch.ones(3)}, "layer_type": "input_layernorm"}, path)
    with pytest.raises(BadInput, match="input_layernorm"):
        read_steering_vectors(path)
    torch.save({"layer_activations": {1: "one"}, "layer_type": "mlp"}, path)
    with pytest.raises(CorruptFile, match="layer -> tensor"):
        read_steering_vectors(path)
    torch.save({"layer_activations": {-1: torch.ones(3)}, "layer_type": "mlp"}, path)
    with pytest.raises(CorruptFile, match="from 0 on"):
        read_steering_vectors(path)
    torch.save({"layer_activations": {1: torch.full((3,), torch.nan)}, "layer_type": "mlp"}, path)
    with pytest.raises(CorruptFile, match="finite"):
        read_steering_vectors(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CorruptFile, match="damaged or another"):
        read_steering_vectors(path)


def test_directions_that_other_formats_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"blocks.N.resid_post"):
        write_gguf(layers("mlp.out"), tmp_path / "v.gguf")
    with pytest.raises(BadInput, match="shape"):
        write_gguf(Direction("blocks.1.resid_post", np.eye(2, 6), ""), tmp_path / "v.gguf")
    with pytest.raises(BadInput, match="expected directions at"):
        write_steering_vectors(layers("attn.z"), tmp_path / "v.pt")
    with pytest.raises(BadInput, match="at most one a site"):
        save([layers()[0], layers()[0]], tmp_path / "twice")
    with pytest.raises(BadInput, match="at most one a site"):
        save([], tmp_path / "none")


def test_a_folder_that_was_spoilt(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is none"):
        load(tmp_path)
    folder = save(layers(), tmp_path / "made")
    record = json.loads((folder / "directions.json").read_text())
    for key, value, said in (
        ("schema_version", 9, "of schema"), ("directions", [{"site": "embed"}], "expected the directions"),
        ("directions", [{**record["directions"][0], "sha256": "0"}], "altered"),
    ):  # fmt: skip
        (folder / "directions.json").write_text(json.dumps({**record, key: value}))
        with pytest.raises(CorruptFile, match=said):
            load(folder)
    (folder / "directions.json").write_text(json.dumps(record))
    (folder / "directions.safetensors").write_bytes(b"short")
    with pytest.raises(CorruptFile, match="expected tensors"):
        load(folder)
