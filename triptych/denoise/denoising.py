"""One image on its way from noise to latents: everything that belongs to it alone."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from triptych import schedulers
from triptych.denoise.call import CallKey
from triptych.denoise.conditioning import Conditioning, of_size
from triptych.denoise.deep_cache import Deep, is_due
from triptych.denoise.interpolation import covering
from triptych.denoise.noise import Noise
from triptych.denoise.start import Start, latents
from triptych.errors import Expired, InvalidRequest, NotFinite
from triptych.lora.folder import Adapters
from triptych.model_files import ModelFiles
from triptych.schedulers.heun import Heun
from triptych.settings import Settings


class Denoising:
    """The state of one image between two calls of the UNet.

    `latents`, float32 [channels, h, w], are at first the seed's noise times the scheduler's
    `init_noise_sigma`; with a Start, the picture's latents with noise. `call` is the number of
    calls of the UNet that were made. `watcher` is called after each of them, with the image and the
    UNet's output after guidance, before the scheduler's step. `span` is an Observer's: the image in
    the trace of its request. With a second pass in the settings this is the first one, and
    `following` the second; `calls_before` are those of the passes before this one, `calls_in_all`
    those of both.
    """

    def __init__(
        self,
        settings: Settings,
        prompt: Conditioning,
        negative_prompt: Conditioning,
        model_files: ModelFiles,
        start: Start | None = None,
        adapters: Adapters = (),
    ) -> None:
        """Both conditionings have the same shapes. `start` is what the image starts from, None for
        noise alone. `adapters` are its LoRAs. Raises InvalidRequest for what this model cannot do.
        """
        if model_files.paints_in and (start is None or start.mask is None):
            missing = "image" if start is None else "mask_image"
            allowed = "a picture and its mask, in which this model paints"
            raise InvalidRequest(missing, None, allowed)
        self._settings = settings
        self._prompts = prompt, negative_prompt
        self._model_files = model_files
        self._adapters = adapters
        self._guidance_scale = np.float32(settings.guidance_scale)
        self._scaling_factor = np.float32(model_files.scaling_factor)
        self._shift_factor = np.float32(model_files.shift_factor)
        self._scheduler = _scheduler(settings, model_files)
        self._cache_interval = settings.cache_interval or 1
        if self._cache_interval > 1 and (adapters or isinstance(self._scheduler, Heun)):
            reason = "LoRAs" if adapters else "heun, which calls the UNet twice at a timestep"
            raise InvalidRequest("cache_interval", self._cache_interval, f"1 with {reason}")
        self.deep_name = uuid.uuid4().hex
        self._noise = Noise(settings.seed)
        self.call = 0
        self.watcher: Callable[[Denoising, np.ndarray], None] | None = None
        self.span: Any = None
        width = model_files.time_cond_proj_dim
        if width is not None:
            embedding = guidance_embedding(settings.guidance_scale, width)
            self._rows = (Conditioning(**prompt, timestep_cond=embedding),)
        elif settings.guidance_scale > 1:
            self._rows = (negative_prompt, prompt)
        else:
            self._rows = (prompt,)
        self._guided_steps = settings.guided_steps(self._scheduler.step_of(self.calls - 1) + 1)
        self._put_back: Callable[[], np.ndarray] | None = None
        self._second = _of_second_pass(settings)
        self.calls_before, self.calls_in_all = 0, self.calls
        if self._second is not None:
            model_files.latent_shape(self._second.height, self._second.width)
            self.calls_in_all += _calls(_scheduler(self._second, model_files))
        shape = model_files.latent_shape(settings.height, settings.width)
        if start is None:
            noise = self._noise.randn(shape)
            self.latents = noise * np.float32(self._scheduler.init_noise_sigma)
        else:
            self._begin(start, shape, model_files)

    def _begin(self, start: Start, shape: tuple[int, int, int], model_files: ModelFiles) -> None:
        """The first latents, by noise in the order in which diffusers' pipelines draw it."""
        randn, scheduler = self._noise.randn, self._scheduler
        clean = start.latents
        if start.moments is not None:
            clean = latents(start.moments, randn(shape), model_files)
        noise = randn(shape)
        if start.mask is not None and self._settings.strength == 1:
            self.latents = noise * np.float32(scheduler.init_noise_sigma)
        else:
            self.latents = scheduler.add_noise(clean, noise, scheduler.begin)
        if start.mask is None:
            return
        of_masked = randn(shape)  # drawn for a UNet of 4 channels too
        if start.masked_moments is not None:
            masked = latents(start.masked_moments, of_masked, model_files)
            more = {"mask": start.mask, "masked_image_latents": masked}
            self._rows = tuple(Conditioning(**one, **more) for one in self._rows)
            return
        anew = start.mask > 0

        def put_back() -> np.ndarray:
            kept = clean if self.finished else scheduler.add_noise(clean, noise, self._index)
            return np.where(anew, self.latents, kept)

        self._put_back = put_back

    @property
    def call_key(self) -> CallKey:
        """What other images must have in common with this one to share its calls."""
        shapes, deep_cache = self._rows[0].shapes, self._cache_interval > 1
        return CallKey(self.latents.shape, shapes, self._adapters, deep_cache)

    @property
    def conditioning(self) -> tuple[Conditioning, ...]:
        """A Conditioning for each row that the image takes in the next call.

        With guidance two, the negative prompt's first, as diffusers has it; without, and in steps
        outside of `guidance_start` and `guidance_stop`, the prompt's. A model that takes an
        embedding of the guidance scale (`time_cond_proj_dim`) has one row always.
        """
        return self._rows_of(self.call)

    def _rows_of(self, call: int) -> tuple[Conditioning, ...]:
        guided = self._scheduler.step_of(call) in self._guided_steps
        return self._rows if guided else self._rows[-1:]

    @property
    def deep(self) -> Deep:
        """The image's part in the next call, for `cache_interval` over 1."""
        since = next(call for call in range(self.call, -1, -1) if self._is_deep_due(call))
        return Deep(self.deep_name, len(self.conditioning), since, since == self.call)

    @property
    def deep_due(self) -> bool:
        """Whether the next call runs the deep part for the image: `deep.due`, found sooner."""
        return self._is_deep_due(self.call)

    def _is_deep_due(self, call: int) -> bool:
        """Also where the rows are others than in the call before, which gave features for those."""
        timesteps, begin = self._scheduler.timesteps, self._scheduler.begin
        if is_due(self._cache_interval, timesteps, begin, begin + call):
            return True
        return len(self._rows_of(call)) != len(self._rows_of(call - 1))

    @property
    def calls(self) -> int:
        """Calls of the UNet in all; PNDM has more of them than steps."""
        return _calls(self._scheduler)

    @property
    def _index(self) -> int:
        """The next call's place in the scheduler's table."""
        return self._scheduler.begin + self.call

    @property
    def finished(self) -> bool:
        """Whether every call of the UNet has been made."""
        return self.call == self.calls

    @property
    def timestep(self) -> np.float32:
        """The timestep of the next call."""
        return self._scheduler.timesteps[self._index]

    def check_deadline(self) -> None:
        """Raise Expired, which says how far it came, if nobody waits for the image any more."""
        if self._settings.expired:
            made = self.calls_before + self.call
            calls = f"{made} of {self.calls_in_all} calls of the UNet"
            raise Expired(f"timeout: the request's time was over after {calls}")

    def model_input(self) -> np.ndarray:
        """What the next call takes, the same for each row: float32 [channels, h, w]."""
        return self._scheduler.scale_model_input(self.latents, self._index)

    def advance(self, model_output: np.ndarray) -> None:
        """Take one scheduler step with the UNet's output, float32 [rows, channels, h, w], not kept.

        Where a mask is black, the picture is put back, with the noise of the next call.

        With guidance the output is `negative + scale * (prompt - negative)` (Ho and Salimans 2022,
        "Classifier-free diffusion guidance", in the form that diffusers gives it).
        """
        with np.errstate(all="ignore"):  # `result` says what became NaN or infinite.
            if len(model_output) == 2:
                negative, prompt = model_output
                guided = prompt - negative
                guided *= self._guidance_scale
                guided += negative
                if self._settings.guidance_rescale:
                    rescale(guided, prompt, self._settings.guidance_rescale)
            else:
                guided = model_output[0]
            if self.watcher is not None:
                self.watcher(self, guided)
            sample = self.latents
            self.latents = self._scheduler.step(guided, self._index, sample, self._noise.randn)
            self.call += 1
            if self._put_back is not None:
                self.latents = self._put_back()

    def following(self) -> Denoising | None:
        """The second pass of a finished image: its latents in another size, noised again.

        It has the watcher of the first one, and draws its noise from the seed anew. None without
        one. Raises NotFinite as `result`.
        """
        if self._second is None:
            return None
        self.result()
        _, *size = self._model_files.latent_shape(self._second.height, self._second.width)
        enlarged = covering(self.latents, size, self._settings.second_pass.interpolation)
        start = Start(None, latents=enlarged)
        prompts = of_size(self._second, *self._prompts)
        image = Denoising(self._second, *prompts, self._model_files, start, self._adapters)
        image.watcher, image.span = self.watcher, self.span
        image.calls_before, image.calls_in_all = self.calls, self.calls_in_all
        return image

    def result(self) -> np.ndarray:
        """What the VAE's decoder takes, float32 [channels, h, w].

        Raises NotFinite if the latents have become NaN or infinite: they make no picture.
        """
        if not np.isfinite(self.latents).all():
            raise NotFinite("latents are not finite: the UNet or its precision overflowed")
        return self.latents / self._scaling_factor + self._shift_factor


def _scheduler(settings: Settings, model_files: ModelFiles) -> schedulers.Scheduler:
    return schedulers.create(
        settings.scheduler,
        model_files.scheduler_config,
        settings.num_inference_steps,
        settings.timestep_spacing,
        settings.eta,
        settings.strength,
    )


def _calls(scheduler: schedulers.Scheduler) -> int:
    return len(scheduler.timesteps) - scheduler.begin


def _of_second_pass(settings: Settings) -> Settings | None:
    """The settings of the second pass as of an image that starts from a picture."""
    second = settings.second_pass
    if second is None:
        return None
    return dataclasses.replace(
        settings,
        height=second.height,
        width=second.width,
        strength=second.strength,
        num_inference_steps=second.num_inference_steps,
        second_pass=None,
    )


def rescale(guided: np.ndarray, prompt: np.ndarray, part: float) -> None:
    """Bring the deviation of `guided` to that of the prompt's own output, as far as `part` says.

    Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed", equations 15
    and 16 (diffusers' rescale_noise_cfg). Changes `guided`, float32 [channels, h, w].
    """
    whole = np.std(prompt, ddof=1) / np.std(guided, ddof=1)
    guided *= np.float32(part) * whole + np.float32(1 - part)


def guidance_embedding(guidance_scale: float, width: int) -> np.ndarray:
    """What a latent consistency model's UNet takes as `timestep_cond`, float32 [width].

    Sines, then cosines, of (guidance_scale - 1) * 1000 at frequencies from 1 down to 1/10000 (Luo
    et al. 2023, "Latent consistency models"; diffusers' get_guidance_scale_embedding).
    """
    half = width // 2
    step = np.log(np.float32(10000)) / np.float32(half - 1)
    frequencies = np.exp(-step * np.arange(half, dtype=np.float32))
    angles = np.float32(guidance_scale - 1) * np.float32(1000) * frequencies
    embedding = np.zeros(width, np.float32)
    embedding[:half], embedding[half : 2 * half] = np.sin(angles), np.cos(angles)
    return embedding
