"""A circuit as a graph: layers from bottom to top, roles as colours, edges as wide as what passes through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx

from openwork.reports.svg import Canvas, Number, Picture
from openwork.reports.words import component, number
from openwork.studies.schema import EdgeRecord, NodeRecord

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, LEAST, COLOURS = 128, 46, 44, 40, 130, 760, 6
MOST_EDGES = 24
"""With more than this, those that are not significant are left out."""
LOGITS = "logits"
Point = tuple[Number, Number]


def role_colours(nodes: Sequence[NodeRecord]) -> dict[str, int]:
    """A colour of the style sheet for every role, in order of the network."""
    roles = dict.fromkeys(node.role for node in sorted(nodes, key=_depth) if node.role)
    return {role: number % COLOURS for number, role in enumerate(roles)}


def circuit_graph(
    nodes: Sequence[NodeRecord],
    edges: Sequence[EdgeRecord],
    unit: str,
    through: Mapping[tuple[str, str], str] = {},
) -> Picture:
    """Draw a circuit.

    Args:
        nodes: its nodes.
        edges: its edges; a receiver named ``logits`` is the output.
        unit: of the scores.
        through: (sender, receiver) -> the input of the receiver that an edge leads to, for its hint.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(node.site for node in nodes)
    graph.add_edges_from(
        (edge.sender, edge.receiver) for edge in edges if edge.receiver in graph or edge.receiver == LOGITS
    )
    rows = _rows(nodes, graph)
    wide = max(len(row) for row in rows) * (WIDTH + GAP_X) - GAP_X
    size = max(LEAST, 2 * MARGIN + wide), (len(rows) + 1) * (HEIGHT + GAP_Y) - GAP_Y + 14
    canvas = Canvas(*size, "The circuit", _in_words(nodes, edges, unit))
    places = _places(rows, size)
    largest = max((abs(edge.score.value) for edge in edges), default=0.0) or 1.0
    drawn = [edge for edge in edges if edge.sender in places and edge.receiver in places]
    drawn = [edge for edge in drawn if edge.significant or len(drawn) <= MOST_EDGES]
    for index, ends in _ports(drawn, places).items():
        share = abs(drawn[index].score.value) / largest
        edge = drawn[index]
        _draw_edge(canvas, edge, ends, share, unit, size[0] / 2, through.get((edge.sender, edge.receiver), ""))
    colours = role_colours(nodes)
    known = {node.site: node for node in nodes}
    for (layer, is_mlp), row in zip(_levels(nodes), rows, strict=True):
        canvas.text_at(0, places[row[0]][1] + 4, f"layer {layer} {'MLP' if is_mlp else 'heads'}", "label", "start")
        for site in row:
            _draw_node(canvas, known[site], places[site], colours, unit)
    x, y = places[LOGITS]
    canvas.add("rect", x=x - WIDTH / 2, y=y - 15, width=WIDTH, height=30, rx=15, class_="end")
    canvas.text_at(x, y + 5, LOGITS, "node-name")
    return canvas.picture()


def _depth(node: NodeRecord) -> tuple[int, bool, int]:
    return node.layer, node.kind == "mlp", node.index or 0


def _levels(nodes: Sequence[NodeRecord]) -> list[tuple[int, bool]]:
    return sorted({_depth(node)[:2] for node in nodes})


def _rows(nodes: Sequence[NodeRecord], graph: nx.DiGraph) -> list[list[str]]:
    """Sites of each level, bottom first, each row sorted by the mean place of its senders."""
    rows: list[list[str]] = []
    order: dict[str, Number] = {}
    for level in _levels(nodes):
        row = [node.site for node in sorted(nodes, key=_depth) if _depth(node)[:2] == level]
        centre = (len(row) - 1) / 2
        pull = {}
        for index, site in enumerate(row):
            senders = [order[sender] for sender in graph.predecessors(site) if sender in order]
            pull[site] = sum(senders) / len(senders) if senders else index - centre
        rows.append(sorted(row, key=pull.__getitem__))
        order |= {site: index - centre for index, site in enumerate(rows[-1])}
    return rows


def _places(rows: list[list[str]], size: tuple[Number, Number]) -> dict[str, Point]:
    middle, bottom = size[0] / 2, size[1] - HEIGHT / 2 - 8
    places = {LOGITS: (middle, HEIGHT / 2)}
    for level, row in enumerate(rows):
        # single nodes lean to alternate sides, so that an edge past a level does not hide behind its node
        lean = (20 if level % 2 else -20) if len(row) == 1 else 0
        for index, site in enumerate(row):
            x = middle + lean + (index - (len(row) - 1) / 2) * (WIDTH + GAP_X)
            places[site] = (x, bottom - level * (HEIGHT + GAP_Y))
    return places


def _ports(edges: Sequence[EdgeRecord], places: dict[str, Point]) -> dict[int, tuple[Point, Point]]:
    """Where each edge leaves and arrives: side by side along a node, in the order of what they lead to."""
    ends: dict[int, list[Point]] = {index: [] for index in range(len(edges))}
    for mine, other, side in (("sender", "receiver", -1), ("receiver", "sender", 1)):
        for site, (x, y) in places.items():
            here = [index for index, edge in enumerate(edges) if getattr(edge, mine) == site]
            here.sort(key=lambda index: places[getattr(edges[index], other)][0])
            step = min(18.0, (WIDTH - 24) / max(1, len(here)))
            reach = 15 if site == LOGITS else HEIGHT / 2
            for place, index in enumerate(here):
                ends[index].append((x + (place - (len(here) - 1) / 2) * step, y + side * reach))
    return {index: (start, stop) for index, (start, stop) in ends.items()}


def _draw_edge(
    canvas: Canvas,
    edge: EdgeRecord,
    ends: tuple[Point, Point],
    share: Number,
    unit: str,
    middle: Number,
    through: str,
) -> None:
    (x1, y1), (x2, y2) = ends
    levels = round((y1 - y2 - GAP_Y) / (HEIGHT + GAP_Y))
    aside = (1 if (x1 + x2) / 2 >= middle else -1) * min(0.9 * WIDTH, 56.0 * levels) if levels else 0.0
    bend = (y1 - y2) * 0.45
    path = f"M{x1:.1f} {y1:.1f}C{x1 + aside:.1f} {y1 - bend:.1f} {x2 + aside:.1f} {y2 + bend:.1f} {x2:.1f} {y2:.1f}"
    kind = "edge" + (" minus-line" if edge.score.value < 0 else "") + ("" if edge.significant else " faint")
    hint = (
        f"{component(edge.sender)} → {component(edge.receiver)}{through and f' ({through})'}: "
        f"{number(edge.score.value)} {unit}, "
        f"q = {edge.q_value:.2g}{'' if edge.significant else ' (not significant)'}"
    )
    canvas.add("path", hint=hint, d=path, class_=kind, stroke_width=round(1 + 7 * share, 2))


def _draw_node(canvas: Canvas, node: NodeRecord, place: Point, colours: dict[str, int], unit: str) -> None:
    x, y = place
    colour = f"role{colours[node.role]}" if node.role else "role-none"
    hint = f"{node.site}: {number(node.score)} {unit}, {node.role or 'no role earned'}"
    shape = {"x": x - WIDTH / 2, "y": y - HEIGHT / 2, "width": WIDTH, "height": HEIGHT}
    canvas.add("rect", hint=hint, **shape, rx=4 if node.kind == "mlp" else 12, class_=f"node {colour}")
    canvas.text_at(x, y - 3 if node.role else y + 5, f"{component(node.site)}  {number(node.score)}", "node-name")
    if node.role:
        canvas.text_at(x, y + 14, node.role, "node-role")


def _in_words(nodes: Sequence[NodeRecord], edges: Sequence[EdgeRecord], unit: str) -> str:
    said = [
        f"{component(n.site)} ({n.role or 'no role earned'}, {number(n.score)} {unit})"
        for n in sorted(nodes, key=_depth)
    ]
    paths = [f"{component(e.sender)} to {component(e.receiver)}" for e in edges if e.significant]
    return f"Nodes: {', '.join(said)}. Edges: {', '.join(paths) or 'none significant'}."
