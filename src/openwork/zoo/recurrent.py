"""Networks whose depth falls into known phases, and networks that drift evenly and have none.

    built(3, 4, 3)        # three blocks, applied three, four and three times
    drifting(10, 0.12)    # one block ten times, that turns the stream by the same angle each time

Source: after the block-recurrent hypothesis (Jacobs et al. 2025), by construction instead of training.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from openwork.errors import BadInput

WORDS, CONTENT = 40, 12
RATE, REACH = 0.8, 3.0
"""How much of the way a block goes at a time, and how far its goal is, in lengths of what it reads."""


class Step(nn.Module):
    """A block: it adds a linear map of the stream to the stream."""

    def __init__(self, matrix: Float[Tensor, "channel channel"]):
        super().__init__()
        self.mlp = nn.Linear(len(matrix), len(matrix), bias=False)
        with torch.no_grad():
            self.mlp.weight.copy_(matrix)

    def forward(self, x: Float[Tensor, "batch position channel"]) -> Float[Tensor, "batch position channel"]:
        """The stream after the block."""
        return x + self.mlp(x)


class Repeated(nn.Module):
    """Word embeddings, blocks and logits.

    Args:
        matrices: of the blocks.
        begins: the layers at which a phase begins, without the first.
        seed: of embeddings and unembedding.
    """

    def __init__(self, matrices: list[Tensor], begins: frozenset[int], seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        width = len(matrices[0])
        with torch.random.fork_rng(devices=[]):
            self.embed = nn.Embedding(WORDS, width)
            self.blocks = nn.ModuleList(Step(matrix) for matrix in matrices)
            self.head = nn.Linear(width, WORDS)
        self.begins = begins
        with torch.no_grad():
            for parameter in (self.embed.weight, *self.head.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if begins:
                # the second half of the stream is what blocks write to
                self.embed.weight[:, CONTENT:] = 0

    def forward(self, input_ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position word"]:
        """Logits at every position."""
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def built(*repeats: int, seed: int = 0) -> Repeated:
    """A network of several blocks, each applied so many times in a row; each pulls half of the stream to its own goal.

    Args:
        repeats: of each block, two blocks or more.
        seed: of everything random.

    Raises:
        BadInput: for fewer than two blocks, or one that is never applied.
    """
    if len(repeats) < 2 or min(repeats) < 1:
        raise BadInput(f"expected two blocks or more, each applied once or more; got {repeats}")
    generator = torch.Generator().manual_seed(seed)
    matrices = []
    for count in repeats:
        goal = torch.linalg.qr(torch.randn(CONTENT, CONTENT, generator=generator))[0]
        matrix = torch.zeros(2 * CONTENT, 2 * CONTENT)
        matrix[CONTENT:, :CONTENT] = RATE * REACH * goal
        matrix[CONTENT:, CONTENT:] = -RATE * torch.eye(CONTENT)
        matrices += [matrix] * count
    begins = torch.tensor(repeats).cumsum(0)[:-1].tolist()
    return Repeated(matrices, frozenset(begins), seed).eval()


def drifting(blocks: int, angle: float, seed: int = 0) -> Repeated:
    """A network of one block applied many times, which turns the stream: layers drift evenly, in no phases.

    Args:
        blocks: how many times.
        angle: by which each turns the stream.
        seed: of everything random.

    Raises:
        BadInput: for fewer than three blocks.

    Units:
        angle in radians.
    """
    if blocks < 3:
        raise BadInput(f"expected three blocks or more to drift over; got {blocks}")
    turn = torch.block_diag(
        *[torch.tensor([[0.0, -1.0], [1.0, 0.0]]) for _ in range(CONTENT)]
    )  # fmt: skip
    rotated = torch.matrix_exp(angle * turn)
    return Repeated([rotated - torch.eye(2 * CONTENT)] * blocks, frozenset(), seed).eval()
