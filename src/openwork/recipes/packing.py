"""Sentences of templated English as token ids, packed side by side into rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from openwork.recipes.tokenizer import BOS, EOS, PAD
from openwork.worlds.corpus import Split
from openwork.worlds.sentences import World, stream, vocabulary

UNKNOWN = "<|unk|>"
HIDDEN = -1e9


@cache
def sentence_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of templated English: a token for each word and mark, and one for all words that it lacks.

    Returns:
        A tokenizer that puts the beginning-of-text token first, as every sentence of the training has it.
    """
    ids = {word: number for number, word in enumerate((BOS, EOS, PAD, UNKNOWN, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, ids[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


@dataclass(frozen=True)
class Packed:
    """Sentences side by side in rows, each as if it stood alone.

    Attributes:
        inputs: token ids; every sentence begins with the beginning-of-text token.
        targets: the next token of each; after the last word of a sentence, the end-of-text token.
        weights: how much the prediction of each counts; 0 where a row is filled up.
        places: position of each token within its sentence.
        sees: which tokens a token may look at: itself and those of its sentence before it.
    """

    inputs: Int[Tensor, "row token"]
    targets: Int[Tensor, "row token"]
    weights: Float[Tensor, "row token"]
    places: Int[Tensor, "row token"]
    sees: Bool[Tensor, "row token token"]


def packed(
    world: World,
    rows: int,
    length: int,
    rng: np.random.Generator,
    *,
    answer_weight: float = 1.0,
    split: Split = "train",
) -> Packed:
    """Draw a batch.

    Args:
        world: what holds in the text.
        rows: how many.
        length: tokens of a row; a sentence that does not fit at its end is dropped.
        rng: source of randomness.
        answer_weight: how often the word that a behaviour predicts counts; all others count once.
        split: of combinations that training states, or of those that it never does.
    """
    ids = sentence_tokenizer().get_vocab()
    inputs, targets = np.full((rows, length), ids[PAD]), np.full((rows, length), ids[PAD])
    places, sentences = np.zeros((rows, length), dtype=np.int64), np.zeros((rows, length), dtype=np.int64)
    weights = np.zeros((rows, length), dtype=np.float32)
    text = stream(rng, world=world, split=split)
    for row in range(rows):
        start = 0
        while (stop := start + 1 + len((drawn := next(text)).words)) <= length:
            tokens = [ids[word] for word in drawn.words]
            inputs[row, start:stop] = [ids[BOS], *tokens]
            targets[row, start:stop] = [*tokens, ids[EOS]]
            weights[row, start:stop] = 1
            weights[row, start + drawn.at] = answer_weight
            places[row, start:stop], sentences[row, start:] = np.arange(stop - start), stop
            start = stop
        sentences[row, start:] = 0
    sees = np.tril(sentences[:, :, None] == sentences[:, None, :])
    return Packed(*map(torch.from_numpy, (inputs, targets, weights, places, sees)))


def packed_loss(network: nn.Module, batch: Packed) -> Float[Tensor, ""]:
    """Weighted mean cross-entropy of the next token, in nats.

    Args:
        network: a GPT-2.
        batch: what to predict.
    """
    device = next(network.parameters()).device
    hidden = torch.zeros(batch.sees.shape).masked_fill(~batch.sees, HIDDEN)[:, None]
    logits = network(
        input_ids=batch.inputs.to(device), attention_mask=hidden.to(device), position_ids=batch.places.to(device)
    ).logits
    losses = F.cross_entropy(logits.float().flatten(0, 1), batch.targets.to(device).flatten(), reduction="none")
    weights = batch.weights.to(device).flatten()
    return (losses * weights).sum() / weights.sum()
