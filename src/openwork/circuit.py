"""A circuit: nodes and edges with scores, and how they were found."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openwork.errors import BadInput, CorruptFile
from openwork.site import Edge, Site, Where

SCHEMA = 1


@dataclass(frozen=True)
class Node:
    """A component of a circuit: a site (one head, an MLP, units), optionally at some positions only."""

    site: Site
    where: Where = Where()

    def __str__(self) -> str:
        part = self.where.group or self.where.positions
        return f"{self.site}@{part}" if part is not None else str(self.site)


@dataclass(frozen=True)
class Circuit:
    """Nodes and edges with scores.

    Args:
        nodes: node -> score (its effect, in the task metric's unit).
        edges: edge -> score.
        found_by: the method and its settings.
        roles: node -> the name of what it does, where a measured score earned it one.
    """

    nodes: dict[Node, float]
    edges: dict[Edge, float] = field(default_factory=dict)
    found_by: str = ""
    roles: dict[Node, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, node: object) -> bool:
        return node in self.nodes

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites of its nodes, in order of the network."""
        return tuple(sorted({node.site for node in self.nodes}))

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable record."""
        nodes = [
            {"site": str(n.site), "group": n.where.group, "positions": n.where.positions, "score": s,
             "role": self.roles.get(n)}
            for n, s in self.nodes.items()
        ]  # fmt: skip
        edges = [{"sender": str(e.sender), "receiver": str(e.receiver), "score": s} for e, s in self.edges.items()]
        return {"schema": SCHEMA, "found_by": self.found_by, "nodes": nodes, "edges": edges}

    @classmethod
    def from_json(cls, record: Any) -> Circuit:
        """The circuit of which `record` is the JSON form.

        Raises:
            BadInput: if it is no circuit of this schema.
        """
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise BadInput(f"expected a circuit of schema {SCHEMA}; got a record without it or of another one")
        nodes, roles = {}, {}
        for item in record["nodes"]:
            node = Node(Site.parse(item["site"]), Where(positions=item["positions"], group=item["group"]))
            nodes[node] = float(item["score"])
            if item.get("role"):
                roles[node] = item["role"]
        edges = {Edge(Site.parse(e["sender"]), Site.parse(e["receiver"])): float(e["score"]) for e in record["edges"]}
        return cls(nodes, edges, record["found_by"], roles)

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")
        os.replace(partial, path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read a circuit that `save` wrote."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise CorruptFile(f"expected a circuit as JSON in {path}; it does not parse ({error})") from error
