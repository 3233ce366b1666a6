"""Shrink any configuration of transformers: every size-like attribute becomes small, sub-configurations too.

The shrinker reads the default configuration of a class and returns the keyword arguments of a small one. It knows
names, not architectures; the few types for which the names are not enough have a line in `SPECIAL`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from transformers import PreTrainedConfig

HIDDEN, LAYERS, HEADS, KEY_HEADS, HEAD_DIM, VOCAB, WINDOW = 64, 3, 4, 2, 16, 128, 4

FIXED: dict[str, int] = {
    r"(num_hidden|n|num|encoder|decoder|num_encoder|num_decoder|num_global|conf_num_hidden)_layers?": LAYERS,
    r"layers|(encoder|decoder)_num_hidden_layers|depth|num_blocks|num_layers_per_stack": LAYERS,
    r"(hidden_size|n_embd|d_model|emb_dim|embed_dim|dim|n_embed|embedding_dim|hidden_dim)": HIDDEN,
    r"(embedding_size|word_embed_proj_dim|input_embedding_size|output_embedding_size)": HIDDEN,
    r"(attention_hidden_size|lru_width|hidden_size_global|out_hidden_size|output_hidden_size)": HIDDEN,
    r"(num_key_value_heads|num_kv_heads|kv_n_heads|swa_num_key_value_heads|num_global_key_value_heads)": KEY_HEADS,
    r"(head_dim|swa_head_dim|attention_head_dim|attention_head_size|d_kv|d_head|dim_head|kv_channels)": HEAD_DIM,
    r"(global_head_dim|v_head_dim|query_pre_attn_scalar)": HEAD_DIM,
    r"(linear_key_head_dim|linear_value_head_dim|linear_head_dim|index_head_dim)": HEAD_DIM,
    r"linear_num_key_heads": KEY_HEADS,
    r"(.*_)?(num_|n_)?(attention_|value_)?heads?": HEADS,
    r"qk_nope_head_dim|qk_rope_head_dim": HEAD_DIM // 2,
    r"kv_lora_rank": 16,
    r"q_lora_rank|o_lora_rank": 24,
    r"(ffn_hidden_size|n_inner|d_inner|dff|dim_ff|d_ff|mlp_dim|feed_forward_size|inner_dim)": 96,
    r"(.*_)?(intermediate_size|ffn_dim|intermediate_size_mlp|ffn_hidden_size|intermediate_dim)": 96,
}
AT_MOST: dict[str, int] = {
    r"(.*_)?vocab_size(_.*)?|encoder_hash_byte_group_vocab|unpadded_vocab_size|codebook_size": VOCAB,
    r"moe_num_experts|num_(local_|routed_)?experts|n_routed_experts|zero_expert_num": 4,
    r"num_experts_per_tok(en)?|moe_top_?k|moe_k|top_k_experts": 2,
    r"n_group|num_expert_group": 2,
    r"topk_group|n_shared_experts|num_shared_experts|moe_num_shared_experts|num_dense_layers|num_kv_shared_layers": 1,
    r"first_k_dense_replace|num_nextn_predict_layers|moe_layer_start_index": 1,
    r"moe_layer_end_index": LAYERS - 1,
    r"(.*_)?(sliding_window|sliding_window_size|attention_window_size|local_attention|attention_chunk_size)": WINDOW,
    r"(attention_window|local_attention_window_len|local_radius|keep_window_size)": WINDOW,
    r"(max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length|model_max_length)": 64,
    r"(max_source_positions|max_target_positions|original_max_position_embeddings|num_position_embeddings)": 64,
    r"(ssm_)?state_size|mamba_d_state|ssm_state_size": 8,
    r"mamba_dt_rank|time_step_rank": 4,
    r"(mamba_)?chunk_size|mamba_num_chunks": 8,
    r"mamba_head_dim|mamba_d_head|mamba_headdim": HEAD_DIM,
    r"n_groups|mamba_n_groups|mamba_ngroups": 2,
    r"mamba_n_heads|mamba_num_heads": 8,
    r"mamba_d_ssm": 128,
    r"rotary_dim": 8,
    r"index_topk(_blocks)?": 8,
    r"(laurel|adapter|gated_norm)_rank|hc_lowrank|router_hidden_size": 8,
    r"hidden_size_per_layer_input|ple_embed_dim|d_rel": 16,
    r"rel_extent|position_bias_max_distance|relative_max_distance|relative_attention_max_distance": 16,
    r"position_bias_num_buckets|num_buckets|relative_attention_num_buckets|mem_len": 16,
    r"(vision_)?projection_dim|pooler_output_size|projection_size|projector_hidden_size": HIDDEN,
    r"image_size|crop_size": 32,
    r"patch_size": 8,
}
UNSET = {"head_dim": HEAD_DIM, "num_key_value_heads": KEY_HEADS, "num_experts_per_tok": 2}
UNSET |= {"n_routed_experts": 4, "n_shared_experts": 1}
SPECIAL_TOKEN = re.compile(r".*(_token_id|_token_index|_token_ids|_index|_id)s?")


def small(default: PreTrainedConfig, **own: Any) -> PreTrainedConfig:
    """A small configuration of the same class; `own` wins over every rule and may hold dicts for sub-configurations."""
    return type(default)(**keywords(default, own))


def keywords(default: PreTrainedConfig, own: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that make a small configuration of the class of `default`."""
    fields = {field.name for field in dataclasses.fields(default)}
    stored = vars(default)
    values = {name: stored.get(name, stored.get(default.attribute_map.get(name, name))) for name in sorted(fields)}
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, PreTrainedConfig):
            inner = own.get(name, {})
            result[name] = small(value, **inner) if isinstance(inner, dict) else inner
        elif name.startswith("_") or name in ("id2label", "label2id", "dtype"):
            continue
        else:
            shrunk = _shrink(name, value)
            if shrunk is not value:
                result[name] = shrunk
    result |= _layer_lists(values, result)
    result |= _tokens(values, result)
    if "qk_rope_head_dim" in values:
        result |= {key: HEADS for key in ("num_key_value_heads",) if key in values}
        result |= {key: HEAD_DIM // 2 for key in ("head_dim",) if key in values}
    result |= {key: value for key, value in own.items() if not isinstance(values.get(key), PreTrainedConfig)}
    return result


def _shrink(name: str, value: Any) -> Any:
    """The small value of one attribute, or the same object where no rule speaks of it."""
    if name == "rope_parameters" and isinstance(value, dict):
        return _rope(value)
    if value is None:
        return UNSET.get(name)
    if name in ("initializer_range", "init_std"):
        return 0.1
    if name in ("intermediate_size", "image_size", "patch_size") and isinstance(value, (list, tuple)):
        return type(value)(_shrink(name, item) for item in value)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        return value
    for pattern, size in FIXED.items():
        if re.fullmatch(pattern, name):
            return size
    for pattern, size in AT_MOST.items():
        if re.fullmatch(pattern, name):
            return min(value, size)
    return value


def _rope(value: dict[str, Any]) -> dict[str, Any]:
    """Rotary parameters for a head of 16: shorter factor lists, sections and lengths."""
    result: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            result[key] = _rope(item)
        elif key in ("long_factor", "short_factor"):
            result[key] = item[: HEAD_DIM // 2]
        elif key == "mrope_section":
            result[key] = [4, 2, 2]
        elif key == "original_max_position_embeddings":
            result[key] = 32
        else:
            result[key] = item
    return result


def _layer_lists(values: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Cut all lists with one entry a layer at the same layers, so that every kind of layer appears once if it can."""
    count = next((values[n] for n in ("num_hidden_layers", "n_layer", "num_layers") if values.get(n)), 0)
    values = values | result
    lists = {n: v for n, v in values.items() if isinstance(v, (list, tuple)) and len(v) == count and count > 1}
    if not lists:
        return {}
    kinds = list(zip(*(map(str, v) for v in lists.values()), strict=True))
    firsts = [i for i, kind in enumerate(kinds) if kinds.index(kind) == i]
    chosen = sorted((firsts + [i for i in range(len(kinds)) if i not in firsts])[: max(LAYERS, min(len(firsts), 4))])
    cut: dict[str, Any] = {n: type(v)(v[i] for i in chosen) for n, v in lists.items()}
    return cut | {n: len(chosen) for n in ("num_hidden_layers", "n_layer", "num_layers") if n in result}


def _tokens(values: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Special tokens beyond the ordinary ones: distinct numbers from 100 on, those below 10 unchanged."""
    large = sorted(n for n, v in values.items() if isinstance(v, int) and SPECIAL_TOKEN.fullmatch(n) and v >= 10)
    return {name: 100 + i for i, name in enumerate(large)}
