"""The tables that the schedulers share: noise levels, timesteps, and what a prediction means.

Notation of diffusers: with a = alphas_cumprod[t], a noisy latent is sqrt(a) * x_0 + sqrt(1 - a) *
noise, and sigma[t] = sqrt((1 - a) / a). Both tables are float32, as there: where almost no signal
is left, their rounding changes the latents.
"""

from __future__ import annotations

import numpy as np

from triptych.errors import InvalidRequest


def alphas_cumprod(config) -> np.ndarray:
    """The part of the signal's variance that is left at each training timestep, [T], falling.

    Linear betas are DDPM's (Ho et al., 2020), scaled_linear those of latent diffusion (Rombach et
    al., 2022), squaredcos_cap_v2 the cosine of Nichol and Dhariwal (2021), equation 17. Rescaling
    to zero terminal SNR is algorithm 1 of Lin et al. (2023): the last value becomes 0.
    """
    levels = _cumprod(1 - _betas(config))
    if config.get("rescale_betas_zero_snr"):
        root = np.sqrt(levels)
        levels = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
        betas = 1 - np.append(levels[0], levels[1:] / levels[:-1])
        levels = _cumprod(1 - betas)
    return levels


def _cumprod(alphas) -> np.ndarray:
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def _betas(config) -> np.ndarray:
    count = config["num_train_timesteps"]
    if config["trained_betas"] is not None:
        betas = np.array(config["trained_betas"], np.float32)
        if len(betas) != count:
            raise InvalidRequest("trained_betas", f"{len(betas)} of them", f"{count} of them")
        return betas
    if config["beta_schedule"] == "linear":
        return _linspace(config["beta_start"], config["beta_end"], count)
    if config["beta_schedule"] == "scaled_linear":
        return _linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, count) ** 2
    signal = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - signal[1:] / signal[:-1], 0.999).astype(np.float32)


def _linspace(start, end, count) -> np.ndarray:
    """torch.linspace in float32, to the bit: a float32 step, counted from the nearer end."""
    start, end = np.float32(start), np.float32(end)
    step = float((end - start) / np.float32(count - 1))
    i = np.arange(count)
    values = np.where(i < count // 2, start + step * i, end - step * (count - 1 - i))
    return values.astype(np.float32)


def training_sigmas(config) -> np.ndarray:
    """Noise over signal at each training timestep, [T].

    With zero terminal SNR the last would be infinite; 2**-24 stands for the signal there.
    """
    signal = alphas_cumprod(config)
    return np.sqrt((1 - signal) / np.where(signal > 0, signal, np.float32(2**-24)))


def spacing(config, steps, last=None, intervals=False) -> np.ndarray:
    """The `steps` timesteps at which the model is asked, falling, float64.

    The spacings are those of table 2 of Lin et al. (2023). `last` is the number of training
    timesteps to spread them over, all if not given. With `intervals` the steps are the intervals
    between steps + 1 points, of which the lowest is not asked.
    """
    total = config["num_train_timesteps"]
    last = total if last is None else last
    points = steps + 1 if intervals else steps
    if config["timestep_spacing"] == "linspace":
        timesteps = np.linspace(0, last - 1, points)[::-1]
    elif config["timestep_spacing"] == "leading":
        timesteps = np.arange(points)[::-1] * float(last // points) + config["steps_offset"]
    else:
        # Rounding makes arange give one value too many for some counts, such as 61 of 1000.
        timesteps = np.arange(last, 0, -total / steps).round() - 1
    return timesteps[:steps]


def training_timesteps(config, steps) -> np.ndarray:
    """`spacing` for the schedulers that look timesteps up in a table: integers, all found there."""
    timesteps = spacing(config, steps).round().astype(int)
    total, offset = config["num_train_timesteps"], config["steps_offset"]
    if timesteps[0] >= total:
        allowed = f"fewer: with steps_offset {offset} the first timestep would be {timesteps[0]}"
        raise InvalidRequest("num_inference_steps", steps, f"{allowed}, the last is {total - 1}")
    return timesteps


def distilled_timesteps(config, steps, scheduler) -> np.ndarray:
    """`steps` of the `original_inference_steps` timesteps that the model was distilled on."""
    total, original = config["num_train_timesteps"], config["original_inference_steps"]
    if original > total:
        raise InvalidRequest("original_inference_steps", original, f"1 to {total}")
    if steps > original:
        allowed = f"1 to {original}, for scheduler {scheduler} with this original_inference_steps"
        raise InvalidRequest("num_inference_steps", steps, allowed)
    distilled = np.arange(original, 0, -1) * (total // original) - 1
    return distilled[np.linspace(0, original, steps, endpoint=False).astype(int)]


def signal_at(timesteps, config) -> np.ndarray:
    """alphas_cumprod at integer timesteps; below 0, set_alpha_to_one says: 1 or the first."""
    signal = alphas_cumprod(config)
    final = np.float32(1) if config["set_alpha_to_one"] else signal[0]
    return np.where(timesteps >= 0, signal[timesteps], final)


def require_distinct(sigmas, config, steps) -> None:
    """For the solvers that divide by differences of sigmas."""
    if not np.diff(sigmas).all():
        allowed = f"fewer: {config['timestep_spacing']} spacing gives two steps the same sigma"
        raise InvalidRequest("num_inference_steps", steps, allowed)


def x0_weights(prediction_type, alpha, sigma) -> np.ndarray:
    """Weights of (sample, model_output) that give x_0, [steps, 2].

    The sample is alpha * x_0 + sigma * noise with alpha**2 + sigma**2 = 1. The v of v_prediction is
    alpha * noise - sigma * x_0 (Salimans and Ho, 2022, appendix D).
    """
    if prediction_type == "epsilon":
        return np.stack([1 / alpha, -sigma / alpha], axis=1)
    if prediction_type == "v_prediction":
        return np.stack([alpha, -sigma], axis=1)
    return np.stack([np.zeros_like(alpha), np.ones_like(alpha)], axis=1)


def noise_weights(x0, alpha, sigma) -> np.ndarray:
    """Weights of (sample, model_output) that give the noise, [steps, 2], from those of x_0."""
    return ([1, 0] - alpha[:, None] * x0) / sigma[:, None]


def weighted_sum(weights, arrays) -> np.ndarray:
    """The sum of weight * array, a new float32 array; what one list has more of is left out."""
    pairs = zip(weights, arrays)
    weight, array = next(pairs)
    total = weight * array
    for weight, array in pairs:
        total += weight * array
    return total
