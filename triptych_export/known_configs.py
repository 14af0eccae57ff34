"""The keys of the networks' config.json that this export knows, and the values it can serve.

A key that no list has could change what a network computes, and what would be served were
something else. Such a key is refused unless its value is null, which turns nothing on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from triptych_export.errors import ExportError


def _keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


UNET = _keys(
    """act_fn addition_embed_type addition_embed_type_num_heads addition_time_embed_dim
    attention_head_dim attention_type block_out_channels center_input_sample class_embed_type
    class_embeddings_concat conv_in_kernel conv_out_kernel cross_attention_dim cross_attention_norm
    data_format down_block_types downsample_padding dropout dual_cross_attention encoder_hid_dim
    encoder_hid_dim_type flip_sin_to_cos freq_shift in_channels layers_per_block
    mid_block_only_cross_attention mid_block_scale_factor mid_block_type norm_eps norm_num_groups
    num_attention_heads num_class_embeds only_cross_attention out_channels
    projection_class_embeddings_input_dim resnet_out_scale_factor resnet_pre_temb_non_linearity
    resnet_skip_time_act resnet_time_scale_shift reverse_transformer_layers_per_block sample_size
    time_cond_proj_dim time_embedding_act_fn time_embedding_dim time_embedding_type
    timestep_post_act transformer_layers_per_block up_block_types upcast_attention
    use_linear_projection"""
)
"""Of UNet2DConditionModel."""

VAE = _keys(
    """act_fn block_out_channels down_block_out_channels down_block_types force_upcast in_channels
    latent_channels latents_mean latents_std layers_per_block mid_block_add_attention
    norm_num_groups out_channels sample_size scaling_factor shift_factor up_block_out_channels
    up_block_types use_post_quant_conv use_quant_conv"""
)
"""Of AutoencoderKL."""

TINY_DECODER = _keys(
    """act_fn block_out_channels decoder_block_out_channels encoder_block_out_channels force_upcast
    in_channels latent_channels latent_magnitude latent_shift num_decoder_blocks num_encoder_blocks
    out_channels scaling_factor shift_factor upsample_fn upsampling_scaling_factor"""
)
"""Of AutoencoderTiny."""

TEXT_ENCODER = _keys(
    """attention_dropout attn_implementation bos_token_id classifier_dropout dropout eos_token_id
    gradient_checkpointing hidden_act hidden_size initializer_factor initializer_range
    intermediate_size layer_norm_eps max_position_embeddings num_attention_heads num_hidden_layers
    pad_token_id projection_dim vocab_size"""
)
"""Of CLIPTextModel."""

ANY_TRANSFORMER = _keys(
    """add_cross_attention architectures bad_words_ids begin_suppress_tokens chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id id2label is_decoder is_encoder_decoder label2id
    length_penalty max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams
    num_choices num_return_sequences output_attentions output_hidden_states output_scores
    paddlenlp_version prefix problem_type pruned_heads recompute_use_reentrant remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_parallel_degree sep_token_id
    suppress_tokens task_specific_params temperature tensor_parallel_degree tensor_parallel_output
    tensor_parallel_rank tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class
    top_k top_p torch_dtype torchscript transformers_version typical_p use_bfloat16 use_cache
    use_flash_attention"""
)
"""Of every configuration of transformers and paddlenlp: nothing that changes CLIP's last layer."""

NEUTRAL = {
    "addition_embed_type": ("text_time",),
    "attention_type": ("default",),
    "class_embed_type": (),
    "data_format": ("NCHW",),
    "encoder_hid_dim": (),
    "encoder_hid_dim_type": (),
    "num_class_embeds": (),
    "resnet_pre_temb_non_linearity": (False,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
}
"""The values beside null with which a known key leaves the network to its usual inputs."""


def refuse_unknown_keys(path: Path, config: dict[str, Any], known: frozenset[str]) -> None:
    """ExportError if `config`, read from `path`, says what this export does not know."""
    said = {key: value for key, value in config.items() if key[0] != "_" and value is not None}
    for key in sorted(said.keys() - known):
        raise ExportError(
            f"{path}: {key} is no key that this export knows; it could change what the network "
            "computes (if it does not, take it out of the file)"
        )
    for key, allowed in NEUTRAL.items():
        if key in said and said[key] not in allowed:
            raise ExportError(
                f"{path}: {key} is {said[key]!r}, which the served stages have no part for"
            )
