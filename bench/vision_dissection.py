# pyright: reportArgumentType=false
"""Dissection: images per second beside a plain two-pass implementation on stored activations, with the same numbers.

    python bench/vision_dissection.py --images 200

The plain one does what the paper says, dense and vectorised: it stores every activation, sorts for thresholds, enlarges
every map, and counts every unit with every concept. Both time the network's forward passes; ours never stores them.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import openwork as ow
from openwork.network import Network
from openwork.vision.dissection.dissect import Dissection, dissect
from openwork.vision.dissection.overlap import enlarging
from openwork.vision.passes import encoded, maps
from openwork.worlds.picture_array import PictureArray
from openwork.worlds.shapes import Shapes

SITE = "blocks.2.resid_post"
BATCH = 64


def plain(net: Network, site: str, pictures: PictureArray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds and the overlap of every unit with every concept."""
    grid, axes, stored = net.grid(site), net.map.info(site).axes, []
    for start in range(0, len(pictures), BATCH):
        x = encoded(net, pictures.pixels(range(start, min(start + BATCH, len(pictures)))))
        stored.append(maps(net.run(x, keep=site, until=site)[site], axes, grid).float())
    activations = torch.cat(stored)
    n, units = activations.shape[:2]
    flat = activations.transpose(0, 1).flatten(1).sort(1, descending=True).values
    thresholds = flat[:, math.floor(share * flat.shape[1])]
    down, across = enlarging(grid, tuple(pictures.values.shape[-2:]))
    names = [(category, k + 1) for category, some in pictures.concepts.items() for k in range(len(some))]
    both, either = torch.zeros(units, len(names)), torch.zeros(units, len(names))
    for start in range(0, n, 8):
        active = ((down @ activations[start : start + 8] @ across.T) > thresholds[:, None, None]).flatten(2).float()
        masks = pictures.masks(range(start, min(start + 8, n)))
        for column, (category, number) in enumerate(names):
            here = masks[category].flatten(1).any(1)
            if not here.any():
                continue
            label = (masks[category] == number).flatten(1).float()
            inside = torch.einsum("nup,np->nu", active, label)
            both[:, column] += inside.sum(0)
            either[:, column] += (active.sum(2)[here] + label.sum(1)[here, None] - inside[here]).sum(0)
    return thresholds.numpy(), (both / either.clamp_min(1)).numpy()


def main() -> None:
    """Run both in turn, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--site", default=SITE)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    net, corpus = ow.open("shapes-cnn"), Shapes(split="find", count=asked.images)
    rows = list(range(asked.images))
    # in memory, so that neither is timed for drawing scenes
    pictures = PictureArray(
        corpus.pixels(rows), "shapes", dict(corpus.concepts), dict(corpus.masks(rows)), corpus.classes(rows)
    )
    method = Dissection(rotations=0, claims=0, shown=0)
    seconds: dict[str, list[float]] = {"openwork": [], "plain": []}
    largest = 0.0
    for _ in range(asked.rounds):
        start = time.process_time()
        table = dissect(net, asked.site, pictures, method, held_out=pictures).table
        seconds["openwork"].append(time.process_time() - start)
        start = time.process_time()
        thresholds, overlaps = plain(net, asked.site, pictures, method.share)
        seconds["plain"].append(time.process_time() - start)
        found = table.concept_iou.to_numpy()
        largest = max(largest, float(np.abs(found - overlaps).max()), float(np.abs(table.threshold - thresholds).max()))
    record: dict[str, Any] = {
        "images": asked.images, "units": int(table.sizes["unit"]), "largest difference": largest,
        "images per second": {tool: round(asked.images / min(some), 1) for tool, some in seconds.items()},
        "seconds": seconds, "peak MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }  # fmt: skip
    text = json.dumps(record, indent=1)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
