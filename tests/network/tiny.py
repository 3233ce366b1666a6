"""Tiny random networks built from their configurations: one of every kind of anatomy that the engine must read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from openwork.zoo.attention_only import AttentionOnly, AttentionOnlyConfig

WIDTH, HEADS, LAYERS, VOCABULARY, CONTEXT = 32, 4, 3, 60, 48
HEAD = WIDTH // HEADS


def settled(module: nn.Module) -> nn.Module:
    """Weights of a size at which attention, gates and softcaps matter; no vector is trivially one or zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fresh = torch.randn(parameter.shape, generator=generator)
            if "sinks" in name:
                parameter.copy_(fresh)
            elif parameter.ndim >= 2:
                parameter.copy_(fresh * 1.5 * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.1 * fresh)
    return module.eval()


def _quiet(**more: Any) -> dict[str, Any]:
    """No token ends a text, so that what is generated has the length asked for."""
    return {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None, **more}


def _llama_like(**more: Any) -> dict[str, Any]:
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 40,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    return _quiet(**{**sizes, "num_key_value_heads": 2, "head_dim": HEAD, "max_position_embeddings": CONTEXT, **more})


def gpt2(**more: Any) -> nn.Module:
    config = hf.GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=CONTEXT, **_quiet(**more))
    return hf.GPT2LMHeadModel(config)


def llama(**more: Any) -> nn.Module:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**_llama_like(**more)))


def granite() -> nn.Module:
    more: dict[str, Any] = {
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.3,
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
    }
    return hf.GraniteForCausalLM(hf.GraniteConfig(**_llama_like(**more)))


def gemma2() -> nn.Module:
    more: dict[str, Any] = {"query_pre_attn_scalar": HEAD, "sliding_window": 4, "attn_logit_softcapping": 1.0}
    return hf.Gemma2ForCausalLM(hf.Gemma2Config(**_llama_like(**more, attn_implementation="eager")))


def mistral() -> nn.Module:
    return hf.MistralForCausalLM(hf.MistralConfig(**_llama_like(sliding_window=4)))


def gpt_oss() -> nn.Module:
    more: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4}
    return hf.GptOssForCausalLM(hf.GptOssConfig(**_llama_like(**more)))


def neox() -> nn.Module:
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 40,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(max_position_embeddings=CONTEXT, **_quiet(**sizes)))


def falcon() -> nn.Module:
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    return hf.FalconForCausalLM(hf.FalconConfig(multi_query=True, parallel_attn=True, **_quiet(**sizes)))


def bloom() -> nn.Module:
    return hf.BloomForCausalLM(hf.BloomConfig(hidden_size=WIDTH, n_layer=LAYERS, n_head=HEADS, **_quiet()))


def bert() -> nn.Module:
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 40,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    config = hf.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, **sizes)
    return hf.BertForMaskedLM(config)


def t5() -> nn.Module:
    sizes: dict[str, Any] = {
        "d_model": WIDTH,
        "d_ff": 40,
        "d_kv": HEAD,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": HEADS,
    }
    config = hf.T5Config(**_quiet(**sizes, decoder_start_token_id=1))
    return hf.T5ForConditionalGeneration(config)


def vit() -> nn.Module:
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 40,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    return hf.ViTForImageClassification(hf.ViTConfig(image_size=16, patch_size=4, **{**sizes, "num_labels": 5}))


def attention_only() -> nn.Module:
    return AttentionOnly(
        AttentionOnlyConfig(vocabulary=VOCABULARY, width=WIDTH, heads=HEADS, layers=2, context=CONTEXT)
    )


class Encoder(nn.Module):
    """`nn.TransformerEncoder` over tokens, which is made of `nn.MultiheadAttention`; post-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 40, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(input_ids)))


class Stage(nn.Module):
    """A residual block of a convolutional network, whose activations overwrite what convolutions return."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.relu(self.norm(self.first(x))))
        y += x
        return self.relu(y)


class Pictures(nn.Module):
    """A small ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.stages = nn.ModuleList(Stage(6) for _ in range(2))
        self.head = nn.Linear(6, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.relu(self.stem(pixels))
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


class Looped(nn.Module):
    """One layer applied three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return self.head(x)


class Perceptron(nn.Module):
    """Two linear maps over features."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(24, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": gpt2,
    "llama": llama,
    "granite": granite,
    "gemma2": gemma2,
    "mistral": mistral,
    "gpt-oss": gpt_oss,
    "neox": neox,
    "falcon": falcon,
    "bloom": bloom,
    "bert": bert,
    "t5": t5,
    "vit": vit,
    "attention-only": attention_only,
    "encoder": Encoder,
    "pictures": Pictures,
    "looped": Looped,
    "perceptron": Perceptron,
}
"""Every kind, by name."""

CAUSAL = ("gpt2", "llama", "granite", "gemma2", "mistral", "gpt-oss", "neox", "falcon", "bloom", "attention-only")
"""The kinds that predict a next token."""

REGISTRY = ("gpt2", "llama", "gemma2", "mistral", "gpt-oss", "neox", "bert", "vit")
"""The kinds whose attention transformers dispatches."""


def build(kind: str) -> Any:
    """The network of one kind, an `nn.Module` with its own attributes: the same weights on every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return settled(BUILDERS[kind]())


def token_ids(rows: int = 3, length: int = 9, seed: int = 0) -> Tensor:
    """(rows, length) random ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCABULARY, (rows, length), generator=generator)


def example(kind: str, rows: int = 3, length: int = 9, seed: int = 0) -> dict[str, Tensor]:
    """Keyword arguments of one call."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "vit":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    if kind == "pictures":
        return {"pixels": torch.randn(rows, 3, 8, 8, generator=generator)}
    if kind in ("looped", "perceptron"):
        return {"x": torch.randn(rows, 4, WIDTH, generator=generator)}
    ids = token_ids(rows, length, seed)
    if kind == "t5":
        return {"input_ids": ids, "decoder_input_ids": token_ids(rows, length - 2, seed + 100)}
    return {"input_ids": ids}
