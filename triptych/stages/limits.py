"""What this server lets a request ask for, the same for all stages that take requests."""

from __future__ import annotations

from triptych import config_pbtxt
from triptych.model_files import ModelFiles
from triptych.settings import Limits
from triptych.stages import triton


def limits(model: triton.Model, model_files: ModelFiles) -> Limits:
    """The operator's limits, `parameters` of the tokenizer's config.pbtxt, and the UNet's sides.

    The model's own size, steps and guidance are within them whatever the parameters say.
    A picture is no larger than the latents in the `max_shape` that unet's config.pbtxt declares,
    where it does: TensorRT's engine is built for that, and FastDeploy would build another one while
    the request waits. Raises ValueError, naming the file or parameter, for what makes no sense.
    """
    if model.name == model.names.stage("tokenizer"):
        parameters = model.parameters
    else:
        parameters = config_pbtxt.parameters(model.config_beside("tokenizer"))
    known = Limits.from_parameters(parameters).widened(model_files)
    unet = config_pbtxt.accelerators(model.config_beside("unet"))
    most = unet.get("max_shape", {}).get("sample", "")
    return known.within_latents(most, model_files.vae_scale_factor)
