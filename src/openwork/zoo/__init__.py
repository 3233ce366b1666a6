"""The networks that ship with openwork.

`py-4l` is a small language model of Python source and the default of the toolkit; `py-attn2` has two layers of
attention alone and comes with training checkpoints around the birth of its induction heads; `py-attn2-unmixed` is its
twin that never saw a repeated random span. Their cards say what they were trained on and what they can do.
"""

from openwork.zoo.attention_only import AttentionOnly, AttentionOnlyConfig, AttentionOnlyOutput
from openwork.zoo.embedded import card, checkpoints, load, names, untrained

__all__ = [
    "AttentionOnly",
    "AttentionOnlyConfig",
    "AttentionOnlyOutput",
    "card",
    "checkpoints",
    "load",
    "names",
    "untrained",
]
