"""Tiny random models of transformers beyond causal language modelling: text, vision, audio.

A name is `family/type`. The models that see and read together are in `tiny_multimodal`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

from tiny_base import Tiny, finish, noise, seeded, token_ids
from tiny_config import small

Example = Callable[[], dict[str, Any]]
FOUR = {"hidden_sizes": [16, 32, 32, 64], "depths": [2, 1, 2, 1]}
WIDE = {"hidden_sizes": [16, 32, 64, 64], "depths": [2, 1, 2, 1], "num_attention_heads": [1, 2, 4, 4]}
WINDOWS = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "patch_size": 4}
NARROW = {"intra_bottleneck_size": 32, "true_hidden_size": 32, "embedding_size": 32}
SPECTRUM = {"max_length": 32, "num_mel_bins": 16, "frequency_stride": 8, "time_stride": 8}
MOBILE = {"hidden_sizes": [32, 48, 64], "neck_hidden_sizes": [8, 16, 16, 24, 32, 40, 64]}
CONFORMER = {"vocab_size": 32, "conv_depthwise_kernel_size": 5}
CONVOLUTIONS = {
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 4, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}

MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("AlbertForMaskedLM", {}),
    "bert": ("BertForMaskedLM", {}),
    "big_bird": ("BigBirdForMaskedLM", {}),
    "camembert": ("CamembertForMaskedLM", {}),
    "convbert": ("ConvBertForMaskedLM", {}),
    "data2vec-text": ("Data2VecTextForMaskedLM", {}),
    "deberta": ("DebertaForMaskedLM", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": ("DebertaV2ForMaskedLM", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "distilbert": ("DistilBertForMaskedLM", {}),
    "electra": ("ElectraForMaskedLM", {}),
    "ernie": ("ErnieForMaskedLM", {}),
    "esm": ("EsmForMaskedLM", {"vocab_size": 128, "mask_token_id": 100, "pad_token_id": 1}),
    "eurobert": ("EuroBertForMaskedLM", {}),
    "flaubert": ("FlaubertWithLMHeadModel", {}),
    "fnet": ("FNetForMaskedLM", {}),
    "funnel": ("FunnelForMaskedLM", {"block_sizes": [2, 2, 2], "d_inner": 96}),
    "gte": ("GteForMaskedLM", {}),
    "ibert": ("IBertForMaskedLM", {}),
    "jina_embeddings_v3": ("JinaEmbeddingsV3ForMaskedLM", {}),
    "longformer": ("LongformerForMaskedLM", {"attention_window": 4}),
    "luke": ("LukeForMaskedLM", {}),
    "megatron-bert": ("MegatronBertForMaskedLM", {}),
    "mobilebert": (
        "MobileBertForMaskedLM",
        {"intra_bottleneck_size": 32, "true_hidden_size": 32, "embedding_size": 32},
    ),
    "modernbert": ("ModernBertForMaskedLM", {}),
    "mpnet": ("MPNetForMaskedLM", {"relative_attention_num_buckets": 32}),
    "mra": ("MraForMaskedLM", {}),
    "nomic_bert": ("NomicBertForMaskedLM", {}),
    "nystromformer": ("NystromformerForMaskedLM", {}),
    "rembert": ("RemBertForMaskedLM", {}),
    "roberta": ("RobertaForMaskedLM", {}),
    "roberta-prelayernorm": ("RobertaPreLayerNormForMaskedLM", {}),
    "roc_bert": ("RoCBertForMaskedLM", {}),
    "roformer": ("RoFormerForMaskedLM", {}),
    "squeezebert": ("SqueezeBertForMaskedLM", {}),
    "xlm-roberta": ("XLMRobertaForMaskedLM", {}),
    "xlm-roberta-xl": ("XLMRobertaXLForMaskedLM", {}),
    "xmod": ("XmodForMaskedLM", {"default_language": "en_XX"}),
    "yoso": ("YosoForMaskedLM", {}),
}

ENCODER_DECODER: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("BartForConditionalGeneration", {}),
    "bigbird_pegasus": ("BigBirdPegasusForConditionalGeneration", {}),
    "blenderbot": ("BlenderbotForConditionalGeneration", {}),
    "blenderbot-small": ("BlenderbotSmallForConditionalGeneration", {}),
    "encoder-decoder": ("EncoderDecoderModel", {"decoder": {"is_decoder": True, "add_cross_attention": True}}),
    "fsmt": ("FSMTForConditionalGeneration", {}),
    "led": ("LEDForConditionalGeneration", {"attention_window": 4, "max_encoder_position_embeddings": 64}),
    "longt5": ("LongT5ForConditionalGeneration", {}),
    "m2m_100": ("M2M100ForConditionalGeneration", {}),
    "marian": ("MarianMTModel", {}),
    "mbart": ("MBartForConditionalGeneration", {}),
    "mt5": ("MT5ForConditionalGeneration", {}),
    "mvp": ("MvpForConditionalGeneration", {}),
    "nllb-moe": ("NllbMoeForConditionalGeneration", {}),
    "pegasus": ("PegasusForConditionalGeneration", {}),
    "pegasus_x": ("PegasusXForConditionalGeneration", {}),
    "plbart": ("PLBartForConditionalGeneration", {}),
    "prophetnet": ("ProphetNetForConditionalGeneration", {}),
    "switch_transformers": ("SwitchTransformersForConditionalGeneration", {}),
    "t5": ("T5ForConditionalGeneration", {}),
    "t5gemma": ("T5GemmaForConditionalGeneration", {}),
    "umt5": ("UMT5ForConditionalGeneration", {}),
}

VISION: dict[str, tuple[str, dict[str, Any]]] = {
    "beit": ("BeitForImageClassification", {}),
    "bit": (
        "BitForImageClassification",
        FOUR | {"embedding_size": 16, "num_groups": 4},
    ),
    "clip_vision_model": ("CLIPVisionModel", {}),
    "convnext": ("ConvNextForImageClassification", FOUR | {"patch_size": 2}),
    "convnextv2": ("ConvNextV2ForImageClassification", FOUR | {"patch_size": 2}),
    "data2vec-vision": ("Data2VecVisionForImageClassification", {}),
    "deit": ("DeiTForImageClassification", {}),
    "dinov2": ("Dinov2ForImageClassification", {}),
    "dinov2_with_registers": ("Dinov2WithRegistersForImageClassification", {}),
    "dinov3_vit": ("DINOv3ViTModel", {"num_register_tokens": 2}),
    "focalnet": ("FocalNetForImageClassification", {"embed_dim": 16, "patch_size": 2, "depths": (2, 1, 2, 1)}),
    "ijepa": ("IJepaForImageClassification", {}),
    "mobilenet_v1": ("MobileNetV1ForImageClassification", {"depth_multiplier": 0.25}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", {"depth_multiplier": 0.25}),
    "mobilevit": (
        "MobileViTForImageClassification",
        MOBILE,
    ),
    "poolformer": ("PoolFormerForImageClassification", FOUR),
    "pvt": ("PvtForImageClassification", WIDE | {"image_size": 64}),
    "pvt_v2": ("PvtV2ForImageClassification", WIDE | {"image_size": 64}),
    "regnet": ("RegNetForImageClassification", FOUR | {"embedding_size": 16, "groups_width": 8}),
    "resnet": ("ResNetForImageClassification", FOUR | {"embedding_size": 16}),
    "segformer": ("SegformerForImageClassification", WIDE),
    "siglip_vision_model": ("SiglipVisionModel", {}),
    "siglip2_vision_model": ("Siglip2VisionModel", {"num_patches": 16}),
    "swin": (
        "SwinForImageClassification",
        WINDOWS,
    ),
    "swinv2": (
        "Swinv2ForImageClassification",
        WINDOWS | {"pretrained_window_sizes": (0, 0)},
    ),
    "timesformer": ("TimesformerForVideoClassification", {"num_frames": 2}),
    "videomae": ("VideoMAEForVideoClassification", {"num_frames": 4}),
    "vit": ("ViTForImageClassification", {}),
    "vit_mae": ("ViTMAEModel", {"mask_ratio": 0.0}),
    "vit_msn": ("ViTMSNForImageClassification", {}),
    "vivit": ("VivitForVideoClassification", {"num_frames": 4, "tubelet_size": (2, 8, 8)}),
}

AUDIO: dict[str, tuple[str, dict[str, Any]]] = {
    "audio-spectrogram-transformer": ("ASTForAudioClassification", SPECTRUM),
    "data2vec-audio": ("Data2VecAudioForCTC", CONVOLUTIONS),
    "hubert": ("HubertForCTC", CONVOLUTIONS),
    "moonshine": ("MoonshineForConditionalGeneration", {}),
    "speech_to_text": ("Speech2TextForConditionalGeneration", {"conv_channels": 32, "input_feat_per_channel": 16}),
    "unispeech": ("UniSpeechForCTC", CONVOLUTIONS),
    "wav2vec2": ("Wav2Vec2ForCTC", CONVOLUTIONS),
    "wav2vec2-bert": ("Wav2Vec2BertForCTC", CONFORMER | {"feature_projection_input_dim": 16}),
    "wav2vec2-conformer": ("Wav2Vec2ConformerForCTC", CONVOLUTIONS | CONFORMER),
    "wavlm": ("WavLMForCTC", CONVOLUTIONS),
    "whisper": ("WhisperForConditionalGeneration", {"num_mel_bins": 16}),
}

_TABLES = {"masked": MASKED, "encoder-decoder": ENCODER_DECODER, "vision": VISION, "audio": AUDIO}


def single_types() -> list[str]:
    """`family/type` of every further model that takes text, images or sound alone."""
    return [f"{family}/{name}" for family, table in _TABLES.items() for name in table]


def build_single(name: str) -> Tiny:
    """A tiny random model of one of `single_types`."""
    family, kind = name.split("/", 1)
    class_name, own = _TABLES[family][kind]
    model_class = getattr(transformers, class_name)
    config = small(model_class.config_class(), **own)
    return finish(name, family, seeded(lambda: model_class(config)), _example(family, kind))


def _example(family: str, kind: str) -> dict[str, Any]:
    """The arguments of one forward of that type."""
    if family == "masked":
        return {"input_ids": token_ids()}
    if family == "encoder-decoder":
        return {"input_ids": token_ids(), "decoder_input_ids": token_ids(7, seed=3)}
    if family == "vision":
        return _pictures(kind)
    return _sounds(kind)


def _pictures(kind: str) -> dict[str, Any]:
    if kind in ("timesformer", "videomae", "vivit"):
        return {"pixel_values": noise(2, 2 if kind == "timesformer" else 4, 3, 32, 32)}
    if kind == "siglip2_vision_model":
        return patches()
    if kind == "vit_mae":
        return {"pixel_values": noise(2, 3, 32, 32), "noise": noise(2, 16)}
    side = 64 if kind.startswith(("pvt", "resnet", "regnet", "bit", "mobile")) else 32
    return {"pixel_values": noise(2, 3, side, side)}


def patches() -> dict[str, Any]:
    """Pictures as SigLIP 2 takes them: rows of patches with their grid."""
    return {
        "pixel_values": noise(2, 16, 3 * 8 * 8),
        "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4], [4, 4]]),
    }


def _sounds(kind: str) -> dict[str, Any]:
    words = {"decoder_input_ids": token_ids(7, seed=3)}
    if kind == "whisper":
        return {"input_features": noise(2, 16, 128)} | words
    if kind == "speech_to_text":
        return {"input_features": noise(2, 40, 16)} | words
    if kind == "moonshine":
        return {"input_values": noise(2, 4000)} | words
    if kind == "audio-spectrogram-transformer":
        return {"input_values": noise(2, 32, 16)}
    if kind == "wav2vec2-bert":
        return {"input_features": noise(2, 11, 16)}
    return {"input_values": noise(2, 1000)}
