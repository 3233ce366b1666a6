"""Tiny random models of every model type of transformers for causal language modelling."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tiny_base import BATCH, LENGTH, CannotBuild, Tiny, finish, seeded, token_ids
from tiny_config import small

_PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_CODEBOOKS = 2

# What the names of the attributes do not tell.
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 16, "attn_layer_indices": [1]},
    "blt": {"num_hidden_layers": 3},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _PLAIN_ROPE, "sliding_attention": _PLAIN_ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "dots3_note": {
        "swa_num_attention_heads": 2,
        "swa_num_key_value_heads": 2,
        "swa_q_lora_rank": 24,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 16,
        "head_dim": 16,
    },
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 16},
    "gemma4": {"text_config": {"global_head_dim": 32}},
    "gemma4_text": {"global_head_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local", "local"], 1]]},
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "hrm_text": {"num_layers_per_stack": None},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"num_heads": 8},
    "mimo_v2_flash": {"num_attention_heads": 8},
    "musicgen": {"num_codebooks": _CODEBOOKS},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "output_gate_type": "sigmoid",
    },
    "reformer": {
        "axial_pos_shape": (8, 8),
        "axial_pos_embds_dim": (32, 32),
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "attn_layers": ("local", "lsh", "local"),
        "hash_seed": 0,
    },
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "num_key_value_heads": 4,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
    },
}
OWN |= {
    "dots3_note_text": OWN["dots3_note"],
    "gemma4_unified": OWN["gemma4"],
    "gemma4_unified_text": OWN["gemma4_text"],
    "musicgen_melody": OWN["musicgen"],
    "qwen4_exp": OWN["qwen4_exp_text"],
}

NOT_BUILT = {
    "gemma3n": "its vision tower is a timm model and timm does not run here",
    "gemma4_assistant": "a drafter that reads the key-value states of another model: no forward of its own",
    "gemma4_unified_assistant": "a drafter that reads the key-value states of another model: no forward of its own",
}


def causal_types() -> list[str]:
    """Every model type of the installed transformers for causal language modelling."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def build_causal(name: str) -> Tiny:
    """A tiny random model of one of `causal_types`."""
    if name in NOT_BUILT:
        raise CannotBuild(NOT_BUILT[name])
    model_class = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name])
    config = small(model_class.config_class(), **OWN.get(name, {}))
    if hasattr(config, "is_decoder"):
        config.is_decoder = True
    ids = token_ids()
    if name in ("musicgen", "musicgen_melody"):
        ids = torch.cat([token_ids(seed=i) for i in range(_CODEBOOKS)]).reshape(BATCH * _CODEBOOKS, LENGTH)
    return finish(name, "causal", seeded(lambda: model_class(config)), {"input_ids": ids})
