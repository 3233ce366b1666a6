"""What all lenses are: one affine map a site, from what it holds into the stream behind the last block.

    LOGIT                                    # no map at all: the logit lens
    lens = Lens.load("lens", net)            # a tuned, Jacobian or attention lens, of this very network
    logits = lens.logits(read_out, "blocks.2.resid_post", state)

A lens is no more than these maps; the network's own `ReadOut` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput, CorruptFile, UnknownName
from openwork.lenses.readout import ReadOut
from openwork.site import Site
from openwork.store.files import read_record, read_tensors, write_json, write_tensors
from openwork.store.hashing import hash_state

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.run import Run

SCHEMA, VERSION = "openwork/lens", 1
RECORD, MAPS = "lens.json", "lens.safetensors"
KINDS = ("logit", "tuned", "jacobian", "attention")


@dataclass(frozen=True, eq=False)
class Translator:
    """An affine map into the stream behind the last block.

    Args:
        matrix: (out, in), `out` the channels of the stream and `in` those of the site.
        bias: (out,).
    """

    matrix: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"]

    def __call__(self, state: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The state in the basis of the last layer, in float32."""
        if state.shape[-1] != self.matrix.shape[1]:
            raise BadInput(f"expected states of {self.matrix.shape[1]} channels; got {state.shape[-1]}")
        return state.float() @ self.matrix.to(state.device).T + self.bias.to(state.device)


@dataclass(frozen=True, eq=False)
class Lens:
    """A lens of one network.

    Args:
        kind: one of `KINDS`.
        maps: site -> its map; of the logit lens there are none, and it reads every site as it is.
        model: sha256 of the weights that it was made for; empty for the logit lens, which fits them all.
        settings: how it was made, as JSON values.
    """

    kind: str
    maps: Mapping[str, Translator] = field(default_factory=dict)
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName.among("kind of lens", self.kind, KINDS)

    @property
    def name(self) -> str:
        """What it is called, e.g. ``tuned lens``."""
        return "Jacobian lens" if self.kind == "jacobian" else f"{self.kind} lens"

    def sites(self, read_out: ReadOut, pattern: str | Site | None = None) -> list[str]:
        """The sites that it reads, in order of execution; those that a pattern selects, or all it has maps of.

        Raises:
            UnknownName: for a site of which it has no map.
        """
        if self.kind == "logit":
            return read_out.sites(pattern)
        known = [*self.maps]
        chosen = known if pattern is None else self._selected(read_out.net, pattern)
        for name in chosen:
            if name not in self.maps:
                raise UnknownName.among(f"site of this {self.name}", name, known)
        net = read_out.net
        return sorted(chosen, key=lambda name: (net.map.order(Site.parse(name).path), Site.parse(name).index))

    def _selected(self, net: Network, pattern: str | Site) -> list[str]:
        """The sites that a pattern selects; heads one by one, where it has a map of each."""
        found = []
        for site in net.map.resolve(pattern):
            parts = site.index or range(net.map.info(site.path).parts)
            each = [str(Site(site.path, (part,))) for part in parts]
            found += each if str(site) not in self.maps and each[0] in self.maps else [str(site)]
        return found

    def state(self, site: str, value: Float[Tensor, "*batch channel"]) -> Float[Tensor, "*batch out"]:
        """What a site holds, as a state of the stream behind the last block."""
        return value if self.kind == "logit" else self.maps[site](value)

    def logits(
        self, read_out: ReadOut, site: str, value: Float[Tensor, "*batch channel"]
    ) -> Float[Tensor, "*batch vocabulary"]:
        """What the network would say from what a site holds."""
        return read_out(self.state(site, value))

    def save(self, folder: str | Path) -> Path:
        """Write ``lens.safetensors`` and ``lens.json`` into a folder, the record last.

        Raises:
            BadInput: for the logit lens, of which there is nothing to keep.
            OutputOccupied: if the folder cannot be written.
        """
        if not self.maps:
            raise BadInput(f"expected a lens with maps to save; the {self.name} has none")
        folder, tensors = Path(folder), {}
        for name, one in self.maps.items():
            tensors[f"{name}/matrix"], tensors[f"{name}/bias"] = one.matrix, one.bias
        write_tensors(folder / MAPS, tensors)
        record = {
            "schema": SCHEMA, "schema_version": VERSION, "kind": self.kind, "model": self.model, "sites": [*self.maps],
            "settings": dict(self.settings),
        }  # fmt: skip
        write_json(folder / RECORD, record)
        return folder

    @classmethod
    def load(cls, folder: str | Path, net: Network) -> Lens:
        """Read what `save` wrote, for the network that it was made for.

        Raises:
            BadInput: if there is none, or if it was made for other weights.
            CorruptFile: if a file is damaged or of another schema.
        """
        folder = Path(folder)
        record, tensors = read_record(folder / RECORD, SCHEMA, VERSION), read_tensors(folder / MAPS)
        try:
            maps = {name: Translator(tensors[f"{name}/matrix"], tensors[f"{name}/bias"]) for name in record["sites"]}
            self = cls(record["kind"], maps, record["model"], record["settings"])
        except (KeyError, TypeError, UnknownName) as error:
            raise CorruptFile(f"expected the fields of a lens in {folder}; {error!r}") from error
        self.require(net)
        return self

    def require(self, net: Network) -> None:
        """Refuse a network that it was not made for.

        Raises:
            BadInput: if the weights are others.
        """
        if self.model and self.model != weights_of(net):
            raise BadInput(
                f"this {self.name} was made for other weights than those of {net.name}; make one for it, for example "
                "with openwork tune-lens"
            )


LOGIT = Lens("logit")
"""The logit lens: states are read as they are."""


def weights_of(net: Network) -> str:
    """sha256 of the weights of a network."""
    return hash_state(net.root.state_dict())


def states(run: Run, site: str) -> list[Float[Tensor, "position channel"]]:
    """What a site holds at the real tokens of each row of a run; of one head or unit without its axis."""
    rows = run.rows(site)
    return [row[:, 0] if row.ndim == 3 else row for row in rows]
