"""What every method returns: findings, and the labelled numbers behind them."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openwork.errors import BadInput, CorruptFile
from openwork.finding import Finding
from openwork.store.files import read_arrays, read_record, write_arrays, write_json

if TYPE_CHECKING:
    import pandas
    import xarray
    from rich.console import RenderableType

SCHEMA, VERSION = "openwork/result", 1


@dataclass(frozen=True, eq=False)
class Result:
    """The result of one method.

    Args:
        method: its name, e.g. ``path patching``.
        findings: its claims, strongest first.
        table: the numbers behind them; each variable's axes are named.
        settings: of the method, as JSON values.
        remarks: warnings and anything else that a reader must know, e.g. of the illusion check.
    """

    method: str
    findings: tuple[Finding, ...]
    table: xarray.Dataset
    settings: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def to_frame(self) -> pandas.DataFrame:
        """The findings, one a row."""
        import pandas

        return pandas.DataFrame([_row(finding) for finding in self.findings])

    def save(self, folder: str | Path) -> Path:
        """Write ``result.json`` and ``arrays.npz`` into a folder, the record last.

        Raises:
            OutputOccupied: if the folder cannot be written.
        """
        folder = Path(folder)
        arrays: dict[str, np.ndarray] = {}
        shape: dict[str, Any] = {"variables": {}, "coordinates": {}}
        for kind, values in (("variables", self.table.data_vars), ("coordinates", self.table.coords)):
            for name, value in values.items():
                array = value.to_numpy()
                arrays[f"{kind}/{name}"] = array.astype(str) if array.dtype.hasobject else array
                shape[kind][str(name)] = [str(dim) for dim in value.dims]
        write_arrays(folder / "arrays.npz", arrays)
        attributes = {str(name): value for name, value in self.table.attrs.items()}
        record = {
            "schema": SCHEMA, "schema_version": VERSION, "method": self.method, "settings": dict(self.settings),
            "remarks": list(self.remarks), "axes": shape, "attributes": attributes,
            "findings": [json.loads(finding.to_json()) for finding in self.findings],
        }  # fmt: skip
        write_json(folder / "result.json", record)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Read what `save` wrote.

        Raises:
            BadInput: if there is no such result.
            CorruptFile: if a file is damaged, of another schema, or of a version that this code does not know.
        """
        import xarray

        record = read_record(Path(folder) / "result.json", SCHEMA, VERSION)
        arrays = read_arrays(Path(folder) / "arrays.npz")
        try:
            parts = {
                kind: {name: (dims, arrays[f"{kind}/{name}"]) for name, dims in record["axes"][kind].items()}
                for kind in ("variables", "coordinates")
            }
            table = xarray.Dataset(parts["variables"], parts["coordinates"], record["attributes"])
            findings = tuple(Finding.from_json(json.dumps(finding)) for finding in record["findings"])
            return cls(record["method"], findings, table, record["settings"], tuple(record["remarks"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise CorruptFile(f"expected the fields of a result in {folder}; {error!r}") from error

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.method, title_justify="left")
        for name in ("claim", "effect", "control", "p", "n", "verdict"):
            table.add_column(name, overflow="fold")
        for finding in self.findings:
            table.add_row(*(Text(str(value)) for value in _row(finding).values()))
        return Group(table, *(Text(f"note: {remark}") for remark in self.remarks))

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in _row(f).values()) + "</tr>"
            for f in self.findings
        )
        notes = "".join(f"<li>{html.escape(remark)}</li>" for remark in self.remarks)
        head = "<tr><th>claim<th>effect<th>control<th>p<th>n<th>verdict</tr>"
        return f"<h4>{html.escape(self.method)}</h4><table>{head}{rows}</table><ul>{notes}</ul>"


def _row(finding: Finding) -> dict[str, Any]:
    control = finding.control
    return {
        "claim": finding.claim,
        "effect": f"{finding.interval or format(finding.estimate, '.3g')} {finding.unit}",
        "control": "none" if control is None else f"{control.mean:.3g} (n = {control.n}, p = {control.p_value:.2g})",
        "p": "" if finding.p_value is None else f"{finding.p_value:.2g}",
        "n": f"{finding.n} {finding.split}",
        "verdict": str(finding.verdict),
    }
