from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openwork.errors import BadInput, CorruptFile, OutputOccupied, UnknownName
from openwork.store.activations import ActivationReader, ActivationWriter
from openwork.store.cache import CacheKey, list_cache

AXES = {"embed": ("batch", "position", "channel"), "blocks.0.mlp.out": ("batch", "position", "channel")}


def put(writer: ActivationWriter, tensors: dict[str, torch.Tensor]) -> None:
    for site, tensor in tensors.items():
        writer.append(site, tensor)


def batch(rows: int, length: int = 3) -> dict[str, torch.Tensor]:
    return {site: torch.randn(rows, length, 4).bfloat16() for site in AXES}


def test_round_trip_keeps_order_dtype_and_axes(tmp_path: Path) -> None:
    batches = [batch(2), batch(1), batch(3)]
    with ActivationWriter(tmp_path / "store", AXES) as writer:
        for tensors in batches:
            put(writer, tensors)
    reader = ActivationReader(tmp_path / "store")
    assert reader.axes == AXES
    assert reader.n_rows == 6
    assert reader.sites == sorted(AXES)
    assert torch.equal(reader["embed"], torch.cat([tensors["embed"] for tensors in batches]))
    assert [len(part) for part in reader.batches("blocks.0.mlp.out")] == [2, 1, 3]


def test_batches_of_unequal_length_are_padded_at_the_end(tmp_path: Path) -> None:
    short, long = batch(2, 3), batch(1, 5)
    with ActivationWriter(tmp_path / "store", AXES) as writer:
        put(writer, short)
        put(writer, long)
    whole = ActivationReader(tmp_path / "store")["embed"]
    assert whole.shape == (3, 5, 4)
    assert torch.equal(whole[:2, :3], short["embed"])
    assert not whole[:2, 3:].any()
    assert torch.equal(whole[2:], long["embed"])


def test_a_half_written_store_never_looks_whole(tmp_path: Path) -> None:
    writer = ActivationWriter(tmp_path / "store", AXES)
    put(writer, batch(2))
    with pytest.raises(CorruptFile, match="half written"):
        ActivationReader(tmp_path / "store")
    with ActivationWriter(tmp_path / "store", AXES) as again:
        put(again, batch(1))
    assert ActivationReader(tmp_path / "store").n_rows == 1


def test_an_exception_leaves_no_shard(tmp_path: Path) -> None:
    def interrupted() -> None:
        with ActivationWriter(tmp_path / "store", AXES) as writer:
            put(writer, batch(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "store").iterdir()) == []


def test_files_of_others_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputOccupied, match=r"model\.safetensors"), ActivationWriter(tmp_path, AXES):
        pass
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


def test_a_whole_store_is_not_written_over(tmp_path: Path) -> None:
    with ActivationWriter(tmp_path / "store", AXES) as writer:
        put(writer, batch(2))
    with pytest.raises(OutputOccupied, match="already holds"), ActivationWriter(tmp_path / "store", AXES):
        pass
    assert ActivationReader(tmp_path / "store").n_rows == 2


def test_an_empty_or_uneven_store_is_not_closed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least one tensor"):
        ActivationWriter(tmp_path / "a").close()
    uneven = ActivationWriter(tmp_path / "b")
    put(uneven, {"embed": torch.zeros(2, 3), "final_norm": torch.zeros(1, 3)})
    with pytest.raises(BadInput, match=r"'final_norm': 1"):
        uneven.close()
    with pytest.raises(CorruptFile):
        ActivationReader(tmp_path / "b")


def test_cut_shards_and_unknown_sites_are_named(tmp_path: Path) -> None:
    with ActivationWriter(tmp_path / "store", AXES) as writer:
        put(writer, batch(2))
    with pytest.raises(UnknownName, match="embed"):
        list(ActivationReader(tmp_path / "store").batches("embd"))
    shard = tmp_path / "store" / "000000.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(b"\xff" * len(data))
    with pytest.raises(CorruptFile, match="damaged"):
        _ = ActivationReader(tmp_path / "store")["embed"]
    shard.write_bytes(data[:-1])
    with pytest.raises(CorruptFile, match="cut short"):
        ActivationReader(tmp_path / "store")


def test_a_store_in_the_cache_is_listed_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENWORK_CACHE", str(tmp_path))
    key = CacheKey.of("activations", "m", "d", "embed", "bfloat16")
    with ActivationWriter(key.folder, AXES, key) as writer:
        put(writer, batch(2))
    (entry,) = list_cache()
    assert entry.key == key.__dict__
