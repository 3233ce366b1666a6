"""What the bench of architectures asks of an opened network, and which sites the grammar gives on well-known types."""

from __future__ import annotations

import re
from typing import Any

ATTENTION = ("in", "q", "k", "v", "scores", "pattern", "z", "out")
STREAM = ("resid_pre", "resid_mid", "resid_post")
MLP = ("mlp.in", "mlp.hidden", "mlp.out")
NORMS = ("norm1.scale", "norm2.scale")

SERIAL = (*STREAM, *(f"attn.{p}" for p in ATTENTION), *MLP, *NORMS)
PARALLEL = tuple(k for k in SERIAL if k != "resid_mid")  # both sub-layers read the same stream
SHARED = tuple(k for k in PARALLEL if k != "norm2.scale")  # and through the same norm
EXPERTS = (*(k for k in SERIAL if k != "mlp.hidden"), "mlp.router", "mlp.experts.hidden")
CROSSED = (*SERIAL, *(f"cross.{p}" for p in ATTENTION), "norm_cross.scale")

TEXT = ("embed", "final_norm", "logits")
MAINSTREAM: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    **{
        name: (TEXT, {"": SERIAL})
        for name in (
            "gpt2", "llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text",
            "phi3", "olmo2", "opt", "bloom", "granite", "stablelm",
        )
    },
    "mixtral": (TEXT, {"": EXPERTS}),
    "gpt_oss": (TEXT, {"": EXPERTS}),
    "falcon": (TEXT, {"": SHARED}),
    "cohere": (TEXT, {"": SHARED}),
    "gpt_neox": (TEXT, {"": PARALLEL}),
    "masked/bert": (("embed", "logits"), {"": SERIAL}),
    "encoder-decoder/t5": (TEXT, {"encoder.": SERIAL, "decoder.": CROSSED}),
    "vision/vit": (("final_norm", "logits"), {"": SERIAL}),
    "vision-language/clip": (TEXT, {"": SERIAL, "vision.": SERIAL}),
    "vision-language/llava": ((*TEXT, "projector.out"), {"": SERIAL, "vision.": SERIAL}),
}  # fmt: skip
"""Type -> sites outside the blocks, and for each tower the sites of one block."""

BLOCKS_EACH = 3


def expected_sites(name: str) -> list[str]:
    """Every site that the grammar gives on one of the mainstream types; experts stand for all of a block's."""
    outside, towers = MAINSTREAM[name]
    inside = [f"{t}blocks.{i}.{kind}" for t, kinds in towers.items() for i in range(BLOCKS_EACH) for kind in kinds]
    return [*outside, *inside]


def missing_sites(name: str, sites: Any) -> list[str]:
    """The expected sites that a network does not offer."""
    offered = set(sites) | {re.sub(r"experts(\[\d+\]|\.\d+)?\.hidden", "experts.hidden", s) for s in sites}
    return [site for site in expected_sites(name) if site not in offered]


def has_blocks(net: Any) -> bool:
    """Whether every block found has its stream and at least one contribution certified."""
    blocks = {m[1] for s in net.sites if (m := re.match(r"((?:.*\.)?blocks\.\d+)\.", s))}
    refused = {m[1] for s in net.refused if (m := re.match(r"((?:.*\.)?blocks\.\d+)\.(\*\.out|resid_p)", s))}
    whole = all(
        f"{b}.resid_pre" in net.sites
        and f"{b}.resid_post" in net.sites
        and any(re.fullmatch(re.escape(b) + r"\.\w+\.out", s) for s in net.sites)
        for b in blocks
    )
    return bool(blocks) and whole and not refused


def has_heads(net: Any) -> bool:
    """Whether there is attention and each of its parts is certified wherever there is any."""
    stems = {m[1] for s in net.sites if (m := re.match(r"(.*blocks\.\d+\.(?:attn|cross)\w*)\.(?:q|k|v|z)$", s))}
    refused = any(re.search(r"blocks\.\d+\.(attn|cross)\w*\.[^.]*\b(q|k|v|z|scores|pattern)\b", s) for s in net.refused)
    return bool(stems) and not refused and all(f"{x}.{p}" in net.sites for x in stems for p in ATTENTION[1:-1])
