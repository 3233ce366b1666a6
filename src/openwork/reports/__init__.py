"""A study as one self-contained page, and its pictures one by one (a notebook shows them as they are)."""

from openwork.reports.evidence import Bar, intervals, random_circuits
from openwork.reports.graph import circuit_graph
from openwork.reports.heatmap import component_map, residual_map
from openwork.reports.page import page, pictures
from openwork.reports.render import render
from openwork.reports.svg import Picture

__all__ = [
    "Bar",
    "Picture",
    "circuit_graph",
    "component_map",
    "intervals",
    "page",
    "pictures",
    "random_circuits",
    "render",
    "residual_map",
]
