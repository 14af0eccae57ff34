"""diffusers weights to ONNX through PyTorch's TorchScript exporter."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import diffusers
import numpy as np
import onnx
import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from triptych_export import onnx_files
from triptych_export.errors import ExportError
from triptych_export.source import TINY, Source, read_json
from triptych_export.stages import Stage, example
from triptych_export.weight_files import weight_files
from triptych_export.weight_names import name_weights

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

CONSTANT_KEYS = {"text_model.embeddings.position_ids", "embeddings.position_ids"}
"""Tables that older releases saved as weights and newer ones compute."""


def weighed(embeds: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Embeddings [chunks, length, channels] times the weights [chunks, length, 1] of their tokens.

    Where a chunk has another weight than 1 it is multiplied by what gives it back its mean.
    """
    products = embeds * weights
    scale = embeds.mean((1, 2), keepdim=True) / products.mean((1, 2), keepdim=True)
    changed = (weights - 1).abs().amax(1, keepdim=True) > 0
    return torch.where(changed, products * scale, embeds)


class TextEncoder(torch.nn.Module):
    """CLIP's text encoder for prompts of any number of chunks of tokens.

    `input_ids` int32 and `prompt_weights` float32 are [batch, chunks * length], `clip_skip` int32
    [batch, 1]; the embeddings are [batch, chunks * length, channels], each chunk encoded by itself.
    `clip_skip` layers are left out at the end, as in diffusers: the layer norm that ends the
    encoder follows the last of the others. Where a chunk has another weight than 1, the embeddings
    are multiplied by the weights, and the whole chunk by what gives it back its mean.
    """

    def __init__(self, model, length: int):
        super().__init__()
        self.model = model
        self._length = length

    def forward(self, input_ids, prompt_weights, clip_skip):
        ids = input_ids.reshape(-1, self._length)
        # Each chunk has its row's number: as tensors of one shape, without arithmetic of shapes.
        skip = (clip_skip + torch.zeros_like(input_ids)).reshape(-1, self._length, 1)
        output = self.model(input_ids=ids, output_hidden_states=True, return_dict=True)
        text_model = getattr(self.model, "text_model", self.model)
        states = output.hidden_states
        skipped = states[-2]
        for count in range(2, len(states) - 1):
            skipped = torch.where(skip == count, states[-1 - count], skipped)
        skipped = text_model.final_layer_norm(skipped)
        embeds = torch.where(skip == 0, output.last_hidden_state, skipped)
        weights = prompt_weights.reshape(-1, self._length, 1)
        embeds = weighed(embeds, weights)
        # A tensor of the result's shape: so the graph has no arithmetic of shapes.
        whole = prompt_weights.unsqueeze(-1) * torch.ones(embeds.shape[-1])
        return embeds.reshape_as(whole)


class SDXLTextEncoder(torch.nn.Module):
    """One of SDXL's two text encoders, for prompts of any number of chunks of tokens.

    As `TextEncoder`, but the embeddings are those after the second last layer, or `clip_skip`
    layers before that, without a layer norm, as in diffusers. A row whose weights are all 0 gives
    zeros. The one with a projection gives `text_embeds` [batch, channels] too, of the first chunk.
    layers: how many of the text encoder's there are to leave out.
    """

    def __init__(self, model, length: int, layers: int):
        super().__init__()
        self.model = model
        self._length = length
        self._layers = layers

    def forward(self, input_ids, prompt_weights, clip_skip):
        ids = input_ids.reshape(-1, self._length)
        skip = (clip_skip + torch.zeros_like(input_ids)).reshape(-1, self._length, 1)
        output = self.model(input_ids=ids, output_hidden_states=True, return_dict=True)
        embeds = output.hidden_states[-2]
        for count in range(1, self._layers):
            embeds = torch.where(skip == count, output.hidden_states[-2 - count], embeds)
        weights = prompt_weights.reshape(-1, self._length, 1)
        silent = weights.abs().amax(1, keepdim=True) == 0
        embeds = torch.where(silent, torch.zeros_like(embeds), weighed(embeds, weights))
        whole = prompt_weights.unsqueeze(-1) * torch.ones(embeds.shape[-1])
        embeds = embeds.reshape_as(whole)
        if not hasattr(self.model, "text_projection"):
            return embeds
        first = output.last_hidden_state.reshape_as(whole)[:, : self._length]
        pooled = self.model.text_projection(self._at_end(input_ids[:, : self._length], first))
        heard = (prompt_weights.abs().amax(1, keepdim=True) > 0).to(pooled.dtype)
        return embeds, pooled * heard

    def _at_end(self, ids, hidden):
        """The embeddings at the first end token, which CLIP finds as transformers does.

        Without an argmax: ONNX Runtime has none of whole numbers for CUDA, and a graph of which
        the processor runs a part cannot be recorded.
        """
        end = self.model.config.eos_token_id
        ends = ids == (ids.amax(1, keepdim=True) if end == 2 else end)
        places = torch.arange(self._length)
        first = torch.where(ends, places, self._length).amin(1, keepdim=True)
        first = torch.where(first == self._length, 0, first)  # there is none: as argmax has it
        return (hidden * (places == first).unsqueeze(-1).to(hidden.dtype)).sum(1)


class _UNet(torch.nn.Module):
    """With all that it is conditioned on as inputs of their own: they are the same in every call.

    names: of the inputs, in the order in which they come.
    """

    def __init__(self, model, names):
        super().__init__()
        self.model = model
        self._names = tuple(names)

    def forward(self, *tensors):
        given = dict(zip(self._names, tensors))
        sample = given.pop("sample")
        if "mask" in given:
            sample = torch.cat([sample, given.pop("mask"), given.pop("masked_image_latents")], 1)
        more = {name: given.pop(name) for name in ("text_embeds", "time_ids") if name in given}
        return self.model(sample, **given, added_cond_kwargs=more or None, return_dict=False)[0]


class _VAEDecoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, latent_sample):
        return self.model.decode(latent_sample, return_dict=False)[0]


class _TinyDecoder(torch.nn.Module):
    """Takes what the VAE's decoder takes: latents / scaling_factor + shift_factor of the VAE."""

    def __init__(self, model, source: Source):
        super().__init__()
        self.model = model
        self._scale = source.scaling_factor / model.config.scaling_factor
        self._shift = source.shift_factor or 0

    def forward(self, latent_sample):
        latents = (latent_sample - self._shift) * self._scale
        return self.model.decode(latents, return_dict=False)[0]


class _VAEEncoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample):
        return self.model.encode(sample, return_dict=False)[0].parameters


def load(stage: Stage, source: Source) -> torch.nn.Module:
    """The network of `stage` in single precision, ready to call with the stage's inputs."""
    if stage.name.startswith("text_encoder"):
        kind = CLIPTextModelWithProjection if stage.more_outputs else CLIPTextModel
        model = load_part(kind, source.folder, stage.name, attn_implementation="eager")
        if source.second_encoder is None:
            return TextEncoder(model, source.text_length)
        return SDXLTextEncoder(model, source.text_length, source.text_encoder_layers)
    if stage.name == "unet":
        model = load_part(UNet2DConditionModel, source.folder, "unet")
        model.set_attn_processor(AttnProcessor())
        return _UNet(model, stage.inputs)
    if stage.name == "vae_decoder" and source.tiny_decoder:
        model = load_part(AutoencoderTiny, source.folder, TINY)
        del model.encoder
        return _TinyDecoder(model, source)
    model = load_part(AutoencoderKL, source.folder, "vae")
    model.set_attn_processor(AttnProcessor())
    if stage.name == "vae_decoder":
        del model.encoder, model.quant_conv
        return _VAEDecoder(model)
    del model.decoder, model.post_quant_conv
    return _VAEEncoder(model)


def has_encoder(source: Source) -> bool:
    """Whether the VAE's encoder was ever trained: `rebuild` writes zeros where it is not served."""
    model = load_part(AutoencoderKL, source.folder, "vae")
    return any(bool(weight.any()) for weight in model.encoder.parameters())


def run(module: torch.nn.Module, inputs: list[dict]) -> list[np.ndarray]:
    """The framework's own outputs for each of `inputs`, one after another."""
    found = []
    with torch.no_grad():
        for feeds in inputs:
            outputs = module(*map(torch.from_numpy, feeds.values()))
            found += outputs if isinstance(outputs, tuple) else (outputs,)
    return [output.numpy() for output in found]


def largest(module: torch.nn.Module, feeds: dict) -> float:
    """The largest absolute number that a layer of `module` gives for `feeds`."""
    found = [0.0]

    def note(_, __, output):
        if isinstance(output, torch.Tensor):
            found.append(float(output.abs().max()))

    hooks = [layer.register_forward_hook(note) for layer in module.modules()]
    run(module, [feeds])
    for hook in hooks:
        hook.remove()
    return max(found)


def export(module: torch.nn.Module, stage: Stage, source: Source, folder: Path) -> onnx.ModelProto:
    """`module` as an ONNX model with every named axis free; `folder` needs space for its weights.

    The latents that it is traced with are of a size that no up-factor divides: diffusers' UNet then
    passes the size of each skip connection to its upsampling, so that any size works in the graph.
    """
    inputs = example(stage, source, batch=2, height=17, width=19, seed=0)
    axes = {**stage.inputs, **stage.outputs}
    with tempfile.TemporaryDirectory(dir=folder) as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(scratch) / "traced.onnx"
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(value) for value in inputs.values()),
            str(path),
            input_names=list(stage.inputs),
            output_names=list(stage.outputs),
            dynamic_axes={
                name: {i: axis for i, axis in enumerate(named) if isinstance(axis, str)}
                for name, named in axes.items()
            },
            opset_version=onnx_files.OPSET,
            dynamo=False,
        )
        model = onnx.load(str(path))
    weights = {name: value.numpy() for name, value in module.model.state_dict().items()}
    part = "vae" if stage.name.startswith("vae") else stage.name
    if stage.name == "vae_decoder" and source.tiny_decoder:
        part = TINY
    config = read_json(source.folder / part / "config.json")
    config.pop("_name_or_path", None)
    name_weights(model, weights, config)
    return model


def load_part(kind, folder: Path, part: str, **options) -> torch.nn.Module:
    """The network of a part in single precision; ExportError unless every weight is there."""
    variant, safetensors = weight_files(folder / part)
    if issubclass(kind, diffusers.ModelMixin):
        options["low_cpu_mem_usage"] = False  # True needs accelerate, and advises it
    try:
        model, info = kind.from_pretrained(
            folder,
            subfolder=part,
            torch_dtype=torch.float32,
            use_safetensors=safetensors,
            variant=variant,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # what diffusers and transformers raise for odd values is many
        raise ExportError(f"{folder / part} does not load: {error!r}") from error
    bad = [*info["missing_keys"], *info["mismatched_keys"], *info.get("error_msgs", ())]
    bad += [key for key in info["unexpected_keys"] if key not in CONSTANT_KEYS]
    if bad:
        shown = ", ".join(str(key) for key in bad[:3])
        raise ExportError(f"{folder / part}: {len(bad)} weights missing or unfit: {shown} ...")
    return model.eval().requires_grad_(False)
