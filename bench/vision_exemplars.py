"""Exemplar search: peak memory for a corpus and for ones 4 and 16 times as large, and images per second.

    python bench/vision_exemplars.py --images 500

Each size runs in a process of its own, whose peak is that of the operating system. Images are drawn from their number
when they are asked for, so the corpus itself takes no memory at any size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import openwork as ow
from openwork.pictures import ImageFormat
from openwork.vision.responses.exemplars import Exemplars, exemplars

SIZE, CHANNELS = 64, 64


class Drawn:
    """Images of noise, each from its number."""

    name = "noise"

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    @property
    def digest(self) -> str:
        """Of the rule and the number of images."""
        return hashlib.sha256(f"noise {SIZE} {self.count}".encode()).hexdigest()

    def pixels(self, rows: Sequence[int]) -> torch.Tensor:
        """Bytes of some images."""
        drawn = [np.random.default_rng(row).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8) for row in rows]
        return torch.tensor(np.stack(drawn))


def one(images: int) -> dict[str, Any]:
    """Search a corpus once; this process does nothing else."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, CHANNELS, 5, stride=2, padding=2), nn.ReLU()).eval()
    net = ow.open(module, example={"input": torch.rand(2, 3, SIZE, SIZE)}, images=ImageFormat((SIZE, SIZE)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    exemplars(net, "module:1.out[0-15]", Drawn(images), Exemplars(split="all"))
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "images": images, "peak MiB": round(peak / 1024, 1), "above start MiB": round((peak - before) / 1024, 1),
        "images per CPU second": round(images / seconds, 1),
    }  # fmt: skip


def main() -> None:
    """Run every size in its own process, and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--one", type=int, help="this many images, in this process")
    asked = parser.parse_args()
    if asked.one is not None:
        print(json.dumps(one(asked.one)))
        return
    for times in asked.times:
        words = [sys.executable, str(Path(__file__).resolve()), "--one", str(times * asked.images)]
        print(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
