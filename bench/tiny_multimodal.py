"""Tiny random models of transformers that see and read together."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from tiny_base import BATCH, LENGTH, Tiny, finish, noise, seeded, token_ids
from tiny_config import small
from tiny_further import patches

_TILES = 2
_SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}}
_DEEP = {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
_TILED = {
    "max_num_tiles": _TILES,
    "intermediate_layers_indices": [0, 1],
    "vision_output_dim": 192,
    "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
}
_SHUFFLED = {"projector_input_dim": 64, "projector_output_dim": 64, "vision_output_dim": 64, "intermediate_size": 256}
_FLAT = {"patch_embed_hidden_size": 24, "seq_len": 64}
_BANDED = {"window_size": 16, "fullatt_block_indexes": [1]}
_QUERIES = {"num_query_tokens": 4, "qformer_config": {"encoder_hidden_size": 64}}

# type: class, tokens of one image in the text, what the names of the attributes do not tell
TOGETHER: dict[str, tuple[str, int, dict[str, Any]]] = {
    "aria": ("AriaForConditionalGeneration", 4, {"projector_patch_to_query_dict": {16: 4}}),
    "aya_vision": ("AyaVisionForConditionalGeneration", 4, {}),
    "blip": ("BlipForConditionalGeneration", 0, {}),
    "blip-2": ("Blip2ForConditionalGeneration", 4, _QUERIES | {"image_token_id": 100}),
    "cohere2_vision": ("Cohere2VisionForConditionalGeneration", 4, {}),
    "deepseek_vl": ("DeepseekVLForConditionalGeneration", 16, {}),
    "fuyu": ("FuyuForCausalLM", 16, {}),
    "gemma3": ("Gemma3ForConditionalGeneration", 4, {"mm_tokens_per_image": 4}),
    "git": ("GitForCausalLM", 0, {}),
    "glm4v": ("Glm4vForConditionalGeneration", 4, {"text_config": _SECTIONS}),
    "idefics": ("IdeficsForVisionText2Text", 0, {}),
    "idefics2": ("Idefics2ForConditionalGeneration", 4, {"perceiver_config": {"resampler_n_latents": 4}}),
    "idefics3": ("Idefics3ForConditionalGeneration", 4, {}),
    "instructblip": ("InstructBlipForConditionalGeneration", 4, _QUERIES | {"image_token_index": 100}),
    "internvl": ("InternVLForConditionalGeneration", 4, {}),
    "kosmos-2": ("Kosmos2ForConditionalGeneration", 4, {"latent_query_num": 4}),
    "lfm2_vl": ("Lfm2VlForConditionalGeneration", 4, {"vision_config": {"num_patches": 16}}),
    "lighton_ocr": ("LightOnOcrForConditionalGeneration", 4, {}),
    "llama4": (
        "Llama4ForConditionalGeneration",
        4,
        {"vision_config": _SHUFFLED},
    ),
    "llava": ("LlavaForConditionalGeneration", 16, {}),
    "llava_next": ("LlavaNextForConditionalGeneration", 36, {"image_grid_pinpoints": [[32, 32]]}),
    "llava_onevision": ("LlavaOnevisionForConditionalGeneration", 36, {"image_grid_pinpoints": [[32, 32]]}),
    "mistral3": ("Mistral3ForConditionalGeneration", 4, {}),
    "mllama": (
        "MllamaForConditionalGeneration",
        1,
        {
            "vision_config": _TILED,
            "text_config": {"cross_attention_layers": [1]},
        },
    ),
    "ovis2": ("Ovis2ForConditionalGeneration", 16, {}),
    "paligemma": ("PaliGemmaForConditionalGeneration", 16, {"hidden_size": 64}),
    "pix2struct": (
        "Pix2StructForConditionalGeneration",
        0,
        {"vision_config": _FLAT},
    ),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", 4, {"text_config": _SECTIONS}),
    "qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration",
        4,
        {"text_config": _SECTIONS, "vision_config": _BANDED},
    ),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", 4, {"vision_config": _DEEP}),
    "qwen3_vl_moe": ("Qwen3VLMoeForConditionalGeneration", 4, {"vision_config": _DEEP}),
    "smolvlm": ("SmolVLMForConditionalGeneration", 4, {"scale_factor": 2}),
    "video_llava": ("VideoLlavaForConditionalGeneration", 16, {}),
    "vipllava": ("VipLlavaForConditionalGeneration", 16, {"vision_feature_layers": [-1, -2]}),
    # two towers side by side, compared at the end
    "altclip": ("AltCLIPModel", 0, {}),
    "blip-dual": ("BlipModel", 0, {}),
    "chinese_clip": ("ChineseCLIPModel", 0, {}),
    "clip": ("CLIPModel", 0, {}),
    "clipseg": ("CLIPSegModel", 0, {}),
    "metaclip_2": ("MetaClip2Model", 0, {}),
    "siglip": ("SiglipModel", 0, {}),
    "siglip2": ("Siglip2Model", 0, {"vision_config": {"num_patches": 16}}),
}


def together_types() -> list[str]:
    """`vision-language/type` of every further model with pictures and text."""
    return [f"vision-language/{name}" for name in TOGETHER]


def build_together(name: str) -> Tiny:
    """A tiny random model of one of `together_types`."""
    kind = name.split("/", 1)[1]
    class_name, tokens, own = TOGETHER[kind]
    model_class = getattr(transformers, class_name)
    config = small(model_class.config_class(), **own)
    image = next((v for k in ("image_token_id", "image_token_index") if (v := getattr(config, k, None)) is not None), 0)
    example = _pictures(kind, tokens)
    if kind != "pix2struct":
        example["input_ids"] = _words(image, tokens)
    return finish(name, "vision-language", seeded(lambda: model_class(config)), example)


def _words(image: int, tokens: int) -> torch.Tensor:
    """Two ordinary tokens, the image's tokens, the other ordinary tokens."""
    words = token_ids()
    return torch.cat([words[:, :2], torch.full((BATCH, tokens), image), words[:, 2:]], dim=1)


def _pictures(kind: str, tokens: int) -> dict[str, Any]:
    """The arguments beside `input_ids`."""
    length = LENGTH + tokens
    picture = {"pixel_values": noise(BATCH, 3, 32, 32)}
    sizes = torch.tensor([[32, 32]] * BATCH)
    is_image = _words(1, tokens) == 1
    if kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v"):
        return {
            "pixel_values": noise(BATCH * 16, 3 * 2 * 8 * 8),
            "image_grid_thw": torch.tensor([[1, 4, 4]] * BATCH),
            "mm_token_type_ids": is_image.int(),
        }
    if kind in ("idefics", "idefics2", "idefics3", "smolvlm"):
        extra = {"image_attention_mask": torch.ones(BATCH, length, 1, dtype=torch.long)} if kind == "idefics" else {}
        return {"pixel_values": noise(BATCH, 1, 3, 32, 32)} | extra
    if kind in ("llava_next", "llava_onevision"):
        return {"pixel_values": noise(BATCH, 2, 3, 32, 32), "image_sizes": sizes}
    if kind in ("mistral3", "lighton_ocr"):
        return picture | {"image_sizes": sizes}
    if kind == "mllama":
        return {
            "pixel_values": noise(BATCH, 1, _TILES, 3, 32, 32),
            "aspect_ratio_ids": torch.ones(BATCH, 1, dtype=torch.long),
            "aspect_ratio_mask": torch.ones(BATCH, 1, _TILES, dtype=torch.long),
            "cross_attention_mask": torch.ones(BATCH, length, 1, _TILES, dtype=torch.long),
        }
    if kind == "instructblip":
        return picture | {"qformer_input_ids": token_ids(5, seed=3)}
    if kind == "kosmos-2":
        return picture | {"image_embeds_position_mask": is_image}
    if kind == "fuyu":
        return {"image_patches": noise(BATCH, 16, 3 * 8 * 8)}
    if kind == "gemma3":
        return picture | {"token_type_ids": is_image.long()}
    if kind in ("siglip2", "lfm2_vl"):
        return patches()
    if kind == "pix2struct":
        places = torch.arange(1, 13).reshape(1, 12, 1).expand(BATCH, 12, 2)
        return {
            "flattened_patches": torch.cat([places.float(), noise(BATCH, 12, 24)], dim=2),
            "decoder_input_ids": token_ids(7),
        }
    return picture
