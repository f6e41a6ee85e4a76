"""Tiny random models of every architecture of transformers that has a causal language model, for `check_models.py`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FAMILIES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY, POSITIONS, WINDOW, ORIGINAL = 64, 96, 8, 16
"""Of every tiny model: rows of the vocabulary, positions, the width of sliding and local attention, and the length up
to which LongRoPE and YaRN were trained. The rows of the checks go beyond the last two."""

SIZES: dict[int | float | bool, str] = {
    VOCABULARY: "vocab_size n_vocab vocab_size_per_layer_input",
    POSITIONS: "max_position_embeddings n_positions n_ctx max_seq_len context_length seq_length",
    WINDOW: "sliding_window window_size attention_window_size attention_chunk_size local_attention"
    " sliding_window_size head_dim dim_head kv_channels global_head_dim swa_head_dim swa_v_head_dim"
    " qk_nope_head_dim v_head_dim"
    " index_head_dim linear_key_head_dim linear_value_head_dim mamba_num_heads mamba_n_heads mamba_head_dim"
    " mamba_d_head mamba_d_state ssm_state_size state_size",
    32: "hidden_size n_embd d_model dim embed_dim embedding_size word_embed_proj_dim decoder_hidden_size emb_dim"
    " attention_hidden_size mamba_d_ssm lru_width dim_model attention_dim",
    48: "intermediate_size n_inner d_ff ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dim_ff dff ffn_size"
    " feed_forward_size intermediate_size_mlp dense_intermediate_size shared_intermediate_size",
    16: "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size q_lora_rank kv_lora_rank"
    " moe_shared_expert_intermediate_size o_lora_rank",
    12: "qk_head_dim",
    26: "index_topk",
    4: "num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads num_heads qk_rope_head_dim"
    " num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads num_experts num_local_experts"
    " n_routed_experts moe_num_experts linear_num_value_heads mamba_dt_rank time_step_rank mamba_chunk_size chunk_size"
    " mamba_d_conv",
    2: "num_hidden_layers n_layer num_layers decoder_layers n_layers encoder_layers num_decoder_layers mamba_expand"
    " num_encoder_layers num_key_value_heads multi_query_group_num num_kv_heads swa_num_key_value_heads expand"
    " num_global_key_value_heads num_experts_per_tok moe_topk top_k_experts moe_top_k moe_k index_n_heads"
    " linear_num_key_heads",
    1: "n_group topk_group n_shared_experts num_shared_experts num_expert_groups num_limited_groups"
    " first_k_dense_replace mamba_n_groups mamba_ngroups n_groups",
    0.15: "initializer_range init_std",
}
"""Settings and the names under which configurations know them; large weights make sharp distributions."""
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
SMALL = {name: value for value, names in SIZES.items() for name in names.split()} | IDS

KINDS = ("full_attention", "sliding_attention")
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "bailing_hybrid": {"layer_group_size": 2},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}},
    "cohere_compass_text": {
        "rope_parameters": {k: {"rope_type": "default", "rope_theta": 1e4} for k in KINDS}
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "reformer": {"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 12)},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    **dict.fromkeys(("codegen", "gptj"), {"rotary_dim": 4}),
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"), {"head_dim": 8}),
}
"""What a family needs beyond `SMALL` to be built."""

ROTARY: dict[str, Any] = {"rope_theta": 1e4, "original_max_position_embeddings": ORIGINAL}
LONG = ROTARY | {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 16.0, 32.0]}
DYNAMIC: dict[str, Any] = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "deepseek_v32, rows up to index_topk": ("deepseek_v32", {"index_topk": POSITIONS}),
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "llama, dynamic NTK": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 2 * ORIGINAL}),
    "llama, dynamic NTK, longer": (
        "llama",
        {"rope_parameters": DYNAMIC, "max_position_embeddings": ORIGINAL},
    ),
    "llama, YaRN": (
        "llama",
        {"rope_parameters": ROTARY | {"rope_type": "yarn", "factor": POSITIONS / ORIGINAL}},
    ),
    "opt, projection": ("opt", {"word_embed_proj_dim": 16}),
    "phi3, LongRoPE": ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": ORIGINAL}),
    "phi3, window": ("phi3", {"sliding_window": WINDOW}),
    "qwen2, window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
}
"""Settings of a family that change how its rows are read."""


def tiny(name: str) -> PreTrainedModel:
    """A random model of a family or a variant, in eval mode. Fails as transformers does where it cannot be built."""
    family, changes = VARIANTS.get(name, (name, {}))
    config = shrunk(type(AutoConfig.for_model(family)), SPECIAL.get(family, {}) | changes)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval()


def shrunk(kind: type[PreTrainedConfig], changes: dict[str, Any]) -> PreTrainedConfig:
    """A configuration whose sizes are those of `SMALL`, parts of it included, and then ``changes``."""
    whole = kind()
    parameters = inspect.signature(kind).parameters
    names = set(parameters) | set(vars(whole))
    values: dict[str, Any] = {}
    for name, value in SMALL.items():
        own = kind.attribute_map.get(name, name)
        if own in names and (own in IDS or isinstance(_default(whole, own), (int, float))):
            values[own] = value
    if "qk_rope_head_dim" in names:  # latent attention has a key for each head
        values |= {"head_dim": 4, "num_key_value_heads": 4}
    if "is_decoder" in parameters:
        values["is_decoder"] = True
    if getattr(whole, "is_encoder_decoder", False):
        values["is_encoder_decoder"] = False
    for name in kind.sub_configs:
        part = getattr(whole, name, None)
        if isinstance(part, PreTrainedConfig):
            values[name] = shrunk(type(part), {}).to_dict()
    return kind(**(values | changes))


def _default(config: PreTrainedConfig, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # a setting that differs between layers cannot be read of the whole
        return 0
