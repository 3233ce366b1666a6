"""torch-lucent makes pictures of channels: ``python -m peers.torch_lucent.vision CASE.json``.

One picture a call, as its users do; or all of them in one optimisation, as its batched objectives allow.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

# torchvision's wheel is built for CUDA: beside a torch without it its operators are missing, and nothing needs them
missing = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    missing.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lucent.optvis import objectives, param, render, transform  # noqa: E402

from peers.pictures_net import loaded  # noqa: E402


def main(path: Path) -> None:
    """Answer one case: pictures as an array, and what they took."""
    case = json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(case["threads"])
    torch.manual_seed(case["seed"])
    net = loaded(case)
    mean, sd = (torch.tensor(case[name])[:, None, None] for name in ("mean", "sd"))
    transforms = [*transform.standard_transforms, lambda pixels: (pixels - mean) / sd]
    layer, size = case["layer"].replace(".", "_"), case["size"]

    def made(objective: objectives.Objective, batch: int) -> np.ndarray:
        images = render.render_vis(
            net, objective, lambda: param.image(size, batch=batch), transforms=transforms, preprocess=False,
            thresholds=(case["steps"],), progress=False, show_image=False, fixed_image_size=size,
        )  # fmt: skip
        return images[0]

    wall, cpu = time.perf_counter(), time.process_time()
    if case["batched"]:
        each = [objectives.channel(layer, unit, batch=place) for place, unit in enumerate(case["units"])]
        pictures = made(objectives.Objective.sum(each), len(each))
    else:
        pictures = np.concatenate([made(objectives.channel(layer, unit), 1) for unit in case["units"]])
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    np.save(case["out"], pictures.transpose(0, 3, 1, 2))
    print(json.dumps({**took, "version": version("torch-lucent")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
