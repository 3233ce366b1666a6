"""Small families of plain torch modules, in the styles that vision libraries and hand-written code use.

Attention is written in every way it is met: fused projections with `scaled_dot_product_attention`,
`nn.MultiheadAttention`, `nn.TransformerEncoder`, einsum, an explicit softmax. The convolutional families are in
`tiny_plain_vision`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny_base import Tiny, finish, noise, seeded, token_ids
from tiny_plain_vision import VISION_FAMILIES

WIDTH, HEADS, DEPTH, VOCAB, CLASSES, LONGEST = 64, 4, 3, 128, 10, 32


def _mlp(width: int = WIDTH, ratio: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))


class PatchTokens(nn.Module):
    """Pictures to patch tokens with a class token and learned positions."""

    def __init__(self, patch: int = 8, size: int = 32) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, patch, stride=patch)
        self.cls_token = nn.Parameter(0.1 * torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(0.1 * torch.randn(1, 1 + (size // patch) ** 2, WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.proj(images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed


class FusedAttention(nn.Module):
    """One projection for q, k and v, cut by reshape and permute, then the fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c))


class LayerScale(nn.Module):
    """A learned scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(0.5 + 0.1 * torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class FusedBlock(nn.Module):
    """Pre-norm block; with `scaled`, each contribution is scaled channel by channel."""

    def __init__(self, scaled: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn, self.mlp = FusedAttention(), _mlp()
        self.ls1 = LayerScale() if scaled else nn.Identity()
        self.ls2 = LayerScale() if scaled else nn.Identity()
        self.drop_path = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class FusedViT(nn.Module):
    """A vision transformer with its blocks in a Sequential and the class token read out."""

    def __init__(self, scaled: bool = False) -> None:
        super().__init__()
        self.patch_embed = PatchTokens()
        self.blocks = nn.Sequential(*(FusedBlock(scaled) for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patch_embed(images)))[:, 0])


class ModuleBlock(nn.Module):
    """Pre-norm block around `nn.MultiheadAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.self_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.dropout, self.mlp = nn.Dropout(0.1), _mlp()

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        y, _ = self.self_attention(y, y, y, need_weights=False)
        x = x + self.dropout(y)
        return x + self.mlp(self.ln_2(x))


class ModuleViT(nn.Module):
    """A vision transformer on `nn.MultiheadAttention`, its blocks in a Sequential of an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = PatchTokens()
        self.encoder = nn.Sequential(*(ModuleBlock() for _ in range(DEPTH)))
        self.ln, self.heads = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.heads(self.ln(self.encoder(self.tokens(images)))[:, 0])


class TextEncoder(nn.Module):
    """`nn.TransformerEncoder` over tokens, post-norm as torch's default or pre-norm."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True, norm_first=norm_first)
        self.embed, self.place = nn.Embedding(VOCAB, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.encoder = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.head(self.encoder(self.embed(ids) + self.place(places)))


class Translator(nn.Module):
    """`nn.Transformer`: an encoder and a decoder with cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.transformer = nn.Transformer(WIDTH, HEADS, DEPTH, DEPTH, 2 * WIDTH, batch_first=True, norm_first=True)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.transformer(self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True))


class CausalAttention(nn.Module):
    """Causal attention over a fused projection cut by `split`; the kernel or an explicit softmax."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fused = fused
        self.register_buffer("mask", torch.ones(LONGEST, LONGEST, dtype=torch.bool).tril(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (y.view(b, t, HEADS, -1).transpose(1, 2) for y in self.c_attn(x).split(c, dim=2))
        if self.fused:
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) / math.sqrt(c // HEADS)
            scores = scores.masked_fill(~self.get_buffer("mask")[:t, :t], float("-inf"))
            z = F.softmax(scores, dim=-1) @ v
        return self.c_proj(z.transpose(1, 2).contiguous().view(b, t, c))


class CausalBlock(nn.Module):
    """Pre-norm block of a small language model."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH), CausalAttention(fused)
        self.ln_2, self.mlp = nn.LayerNorm(WIDTH), _mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class SmallGPT(nn.Module):
    """A minimal language model with tied embeddings in a ModuleDict."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCAB, WIDTH),
                "wpe": nn.Embedding(LONGEST, WIDTH),
                "h": nn.ModuleList(CausalBlock(fused) for _ in range(DEPTH)),
                "ln_f": nn.LayerNorm(WIDTH),
            }
        )
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)
        nn.init.normal_(self.lm_head.weight, std=0.3)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1], device=ids.device))
        for block in self.transformer["h"].children():
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


class EinsumAttention(nn.Module):
    """Separate head-shaped parameters and einsum, as code for interpretability writes it."""

    def __init__(self) -> None:
        super().__init__()
        shape, scale = (HEADS, WIDTH, WIDTH // HEADS), WIDTH**-0.5
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(scale * torch.randn(shape)) for _ in range(3))
        self.W_O = nn.Parameter(scale * torch.randn(HEADS, WIDTH // HEADS, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btc,hcd->bhtd", x, w) for w in (self.W_Q, self.W_K, self.W_V))
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1])
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        pattern = scores.masked_fill(ahead, -1e9).softmax(dim=-1)
        return torch.einsum("bhtd,hdc->btc", torch.einsum("bhqk,bhkd->bhqd", pattern, v), self.W_O)


class AttentionOnly(nn.Module):
    """Attention-only language model: the residual stream is a running sum in a for loop."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.pos = nn.Embedding(VOCAB, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.layers = nn.ModuleList(EinsumAttention() for _ in range(DEPTH))
        self.unembed = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.pos(torch.arange(ids.shape[1], device=ids.device))
        for layer in self.layers:
            x = x + layer(x)
        return self.unembed(x)


class LatentBlock(nn.Module):
    """Latents read the inputs by cross-attention, then each other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_q, self.norm_kv, self.norm = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.q, self.kv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.out, self.mlp = nn.Linear(WIDTH, WIDTH), _mlp()

    def forward(self, latents: Tensor, inputs: Tensor) -> Tensor:
        k, v = self.kv(self.norm_kv(inputs)).chunk(2, dim=-1)
        q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in (self.q(self.norm_q(latents)), k, v))
        latents = latents + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return latents + self.mlp(self.norm(latents))


class Perceiver(nn.Module):
    """A few learned latents that read a long input in every block."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(6, WIDTH))
        self.inputs = nn.Linear(5, WIDTH)
        self.blocks = nn.ModuleList(LatentBlock() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, series: Tensor) -> Tensor:
        inputs, latents = self.inputs(series), self.latents.expand(len(series), -1, -1)
        for block in self.blocks:
            latents = block(latents, inputs)
        return self.head(latents.mean(1))


class Recurrent(nn.Module):
    """Two recurrent layers: no attention and no blocks of the usual kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.rnn = nn.GRU(WIDTH, WIDTH, num_layers=2, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(ids))[0])


Family = tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]]]


def _images() -> dict[str, Tensor]:
    return {"images": noise(2, 3, 32, 32)}


def _ids() -> dict[str, Tensor]:
    return {"ids": token_ids()}


FAMILIES: dict[str, Family] = {
    "vit-fused": (FusedViT, _images),
    "vit-layer-scale": (lambda: FusedViT(scaled=True), _images),
    "vit-module-attention": (ModuleViT, _images),
    "encoder-post-norm": (lambda: TextEncoder(norm_first=False), _ids),
    "encoder-pre-norm": (lambda: TextEncoder(norm_first=True), _ids),
    "translator": (Translator, lambda: {"source": token_ids(), "target": token_ids(7, seed=3)}),
    "gpt-fused": (lambda: SmallGPT(fused=True), _ids),
    "gpt-softmax": (lambda: SmallGPT(fused=False), _ids),
    "attention-only": (AttentionOnly, _ids),
    "perceiver": (Perceiver, lambda: {"series": noise(2, 40, 5)}),
    "recurrent": (Recurrent, _ids),
} | {name: (make, _images) for name, make in VISION_FAMILIES.items()}


def plain_types() -> list[str]:
    """`plain/family` of every family here."""
    return [f"plain/{name}" for name in FAMILIES]


def build_plain(name: str) -> Tiny:
    """A tiny random model of one of `plain_types`."""
    make, example = FAMILIES[name.split("/", 1)[1]]
    return finish(name, "plain", seeded(make), example())
