"""What there is to know of the geometry of one network, or of two, as one result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openwork.errors import BadInput
from openwork.geometry.phases import Phasing, phases
from openwork.geometry.samples import Material, Sampling
from openwork.geometry.similarity import Likeness, Tick, similarity
from openwork.geometry.spectra import Spectrum, spectra
from openwork.geometry.universality import Matching, match
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True)
class Panel:
    """What the methods of a panel share.

    Args:
        measure: of similarity; see `Likeness`.
        stop: of the phases; see `Phasing`.
        sampling: which places are looked at.
        standard: what claims must meet.
        seed: of controls and intervals.
    """

    measure: str = "cka"
    stop: float = 0.15
    sampling: Sampling = field(default_factory=Sampling)
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    @property
    def shared(self) -> dict[str, Any]:
        """The knobs that all methods have."""
        return {"sampling": self.sampling, "standard": self.standard, "seed": self.seed}


def panel(
    net: Network,
    material: Material,
    sites: str | Site = "blocks.*.resid_post",
    method: Panel = Panel(),
    *,
    tick: Tick = lambda share: None,
) -> Result:
    """Layers by layers, their phases, and how many dimensions each uses.

    Args:
        net: the network.
        material: texts, rows of token ids, tensors, or images; half of them are held out.
        sites: one site of each layer.
        method: how.
        tick: told the share that is done.

    Returns:
        the findings and tables of `phases`, `similarity` and `spectra`.

    Raises:
        BadInput, UnknownName: as these.
    """
    alike = similarity(net, material, sites, method=Likeness(method.measure, **method.shared))
    tick(0.4)
    used = spectra(net, material, sites, Spectrum(**method.shared))
    tick(0.8)
    found = []
    if alike.table.sizes["site"] >= 3:
        found = [phases(net, material, sites, Phasing(method.stop, **method.shared))]
    told = () if found else ("phases need three layers or more: this network has fewer, so none were looked for",)
    return together("geometry", [*found, alike, used], told)


def compare(
    net: Network,
    other: Network,
    material: Material,
    sites: str | Site = "blocks.*.resid_post",
    parts: str | Site = "blocks.*.attn.z",
    method: Panel = Panel(),
    other_sites: str | Site | None = None,
    other_parts: str | Site | None = None,
    *,
    tick: Tick = lambda share: None,
) -> Result:
    """How alike two networks are, layer by layer, and which heads or units they share.

    Args:
        net: the network.
        other: another.
        material: texts, rows of token ids, tensors, or images; half of them are held out.
        sites: whose representations are compared.
        parts: whose heads or units are matched.
        method: how.
        other_sites: representations of `other`; those of `sites` unless given.
        other_parts: heads or units of `other`; those of `parts` unless given.
        tick: told the share that is done.

    Returns:
        the findings and tables of `match` and `similarity`.

    Raises:
        BadInput, UnknownName: as these.
    """
    alike = similarity(
        net, material, sites, other, other_sites, Likeness(method.measure, **method.shared),
        tick=lambda share: tick(share / 2),
    )  # fmt: skip
    found = match(
        net, other, material, parts, other_parts, Matching(**method.shared),
        tick=lambda share: tick(0.5 + share / 2),
    )  # fmt: skip
    return together("comparison", [found, alike])


def together(method: str, results: Sequence[Result], remarks: tuple[str, ...] = ()) -> Result:
    """Several results as one; those that may be supported first.

    Raises:
        BadInput: without any, or where two tables disagree about a variable.
    """
    import xarray

    if not results:
        raise BadInput("expected at least one result to put together; got none")
    try:
        table = xarray.merge([r.table for r in results], combine_attrs="drop", join="exact", compat="no_conflicts")
    except (ValueError, xarray.MergeError) as error:
        raise BadInput(f"expected tables of the same places; {error}") from error
    for result in reversed(results):
        table.attrs.update(result.table.attrs)
    # they do not share a unit: that of each variable is told by its method
    table.attrs["unit"] = ""
    findings = sorted((f for r in results for f in r.findings), key=lambda f: f.verdict != "supported")
    settings = {result.method: dict(result.settings) for result in results}
    said = (*remarks, *dict.fromkeys(remark for r in results for remark in r.remarks))
    return Result(method, tuple(findings), table, settings, said)
