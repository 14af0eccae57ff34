"""Write tests/fixtures/schedulers.npz, starts.npz, pictures.npz, interpolations.npz and noise.npz.

They hold what diffusers and torch give.

Run by hand when a case is added, with torch, diffusers and scipy: python scripts/make_fixtures.py
The unit tests compare with these files, so they need none of them. `schedulers.npz` holds `cases`,
a JSON list of [name, config, steps], and for all of them, one after the other, `timesteps` (a value
a call), `sigmas` (init_noise_sigma), `inputs` (the first model input) and `latents` (those before
the first call, then those after each). `starts.npz` holds `cases`, [name, config, steps, strength],
of images that start from the picture `clean`, and their `latents`, as above. `pictures.npz` holds
what diffusers' image processor makes of `picture_cases.CASES`: sample, mask and, of those that are
cropped, the whole picture with what was drawn of it. `interpolations.npz` holds `latents` and, by
`INTERPOLATION_HEIGHTxWIDTH`, what torch makes of them in that size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "parity")]

from diffusers.image_processor import VaeImageProcessor
from diffusers_reference import ENTRIES, PLAIN, trajectory, trajectory_from_picture
from picture_cases import CASES, DRAWN, pictures
from scheduler_run import DEMO, SD15, SD21

from triptych.second_pass import INTERPOLATIONS

SHAPE, SEED = (2, 3, 4), 7
NOISE_SEEDS = (0, 42, 2**63 + 11, -5)
NOISE_SHAPES = ((2, 4, 4), (3,), (4, 1, 5), (2,), (16,), (31,), (1,), (15,))
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
FLAGS = {
    "ddim": [{"clip_sample_range": 2.0}, {"rescale_betas_zero_snr": True, **DEMO}],
    "ddpm": [
        {"variance_type": "fixed_large", "clip_sample": False, "steps_offset": 1},
        {"rescale_betas_zero_snr": True, **DEMO},
    ],
    "pndm": [{}, {"set_alpha_to_one": True}],
    "lms": [{"use_karras_sigmas": True}],
    "euler": [
        {"use_karras_sigmas": True},
        {"final_sigmas_type": "sigma_min"},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **DEMO},
    ],
    "euler_ancestral": [{"steps_offset": 1, "timestep_spacing": "leading"}],
    "heun": [{"clip_sample": True, "clip_sample_range": 2.0}],
    "dpm2": [],
    "dpm2_ancestral": [],
    "dpmpp_2m": [
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_type": "heun"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
    ],
    "dpmpp_2m_karras": [{"beta_schedule": "squaredcos_cap_v2"}],
    "dpmpp_2m_sde": [
        {"solver_order": 3},
        {"solver_type": "heun", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    ],
    "dpmpp_2s": [
        {"solver_order": 3},
        {"solver_order": 3, "solver_type": "heun", "final_sigmas_type": "sigma_min"},
        {"solver_type": "heun", "lower_order_final": True},
    ],
    "dpmpp_2s_sde": [
        {"solver_order": 3},
        {"solver_type": "heun", "final_sigmas_type": "sigma_min"},
    ],
    "deis": [{"solver_order": 1}, {"solver_order": 3}],
    "unipc": [
        {"solver_order": 1},
        {"solver_order": 3},
        {"disable_corrector": [0]},
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"use_karras_sigmas": True},
    ],
    "lcm": [{"original_inference_steps": 100}, {"timestep_scaling": 3.0, "clip_sample": True}],
    "tcd": [{"original_inference_steps": 100}],
}
NO_SAMPLE = ("pndm", "euler_ancestral", "dpm2", "dpm2_ancestral")


def cases():
    for name in PLAIN:
        for prediction_type, spacing in itertools.product(PREDICTIONS, SPACINGS):
            if prediction_type == "sample" and name in NO_SAMPLE:
                continue
            config = {"prediction_type": prediction_type, "timestep_spacing": spacing}
            yield name, {**config, "skip_prk_steps": True, "clip_sample": False}, 7
        for flags in FLAGS[name]:
            yield name, flags, 9
        # With two steps the middle timestep of DPM2 ancestral is rounding noise in diffusers.
        few = 5 if name == "dpm2_ancestral" else 2
        for steps in (1, few, 20):
            yield name, SD15, steps
        yield name, SD21, 7
        yield name, DEMO, 16
    for name in [name for name in ENTRIES if name not in PLAIN]:
        for flags in FLAGS.get(name, []):
            yield name, flags, 9
        yield name, SD15, 9
        yield name, DEMO, 4


def starts():
    for name in ENTRIES:
        yield name, SD15, 9, 0.5
    for name in PLAIN:
        yield name, SD21, 7, 0.8
        yield name, {**SD15, "solver_order": 3, "skip_prk_steps": False}, 20, 0.65


def write_starts(folder):
    listed = [list(case) for case in starts()]
    clean = np.random.RandomState(SEED).standard_normal(SHAPE).astype(np.float32)
    latents = [trajectory_from_picture(*case, clean, SEED)[1] for case in listed]
    assert all(np.isfinite(array).all() for array in latents)
    np.savez_compressed(
        folder / "starts.npz",
        cases=np.array(json.dumps(listed)),
        clean=clean,
        latents=np.concatenate(latents),
    )


def write_pictures(folder):
    images = VaeImageProcessor(vae_scale_factor=8)
    masks = VaeImageProcessor(
        vae_scale_factor=8, do_normalize=False, do_binarize=True, do_convert_grayscale=True
    )
    found = {}
    for number, case in enumerate(CASES):
        picture, mask = pictures(case)
        size = {"width": case.size[0], "height": case.size[1]}
        if case.mask_blur:
            mask = masks.blur(mask, case.mask_blur)
        box = None
        if case.padding is not None:
            box = masks.get_crop_region(mask, *case.size, pad=case.padding)
            size["resize_mode"] = "fill"
        sample = images.preprocess(picture, crops_coords=box, **size)[0]
        found[f"sample_{number}"] = ((sample + 1) * 127.5).round().to(torch.uint8).numpy()
        whole = masks.preprocess(mask, crops_coords=box, **size)
        small = torch.nn.functional.interpolate(whole, (case.size[1] // 8, case.size[0] // 8))
        found[f"mask_{number}"] = small[0].bool().numpy()
        if box is not None:
            drawn = DRAWN.resize(case.size)
            over = images.apply_overlay(mask, picture, drawn, box)
            found[f"over_{number}"] = np.asarray(over)
    np.savez_compressed(folder / "pictures.npz", **found)


def write_interpolations(folder):
    random = np.random.RandomState(SEED)
    latents = torch.tensor(random.standard_normal((1, 2, 6, 9)), dtype=torch.float32)
    found = {"latents": latents[0].numpy()}
    for mode, size in itertools.product(INTERPOLATIONS, ((12, 18), (8, 12), (10, 15), (4, 6))):
        scaled = torch.nn.functional.interpolate(latents, size, mode=mode)
        found[f"{mode}_{size[0]}x{size[1]}"] = scaled[0].numpy()
    np.savez_compressed(folder / "interpolations.npz", **found)


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    listed = [list(case) for case in cases()]
    runs = [trajectory(*case, SHAPE, SEED) for case in listed]
    timesteps, sigmas, inputs, latents = zip(*runs)
    assert all(np.isfinite(array).all() for array in latents)
    folder = ROOT / "tests" / "fixtures"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(
        folder / "schedulers.npz",
        cases=np.array(json.dumps(listed)),
        timesteps=np.concatenate(timesteps),
        sigmas=np.array(sigmas),
        inputs=np.array([array[0] for array in inputs]),
        latents=np.concatenate(latents),
    )
    write_starts(folder)
    write_pictures(folder)
    write_interpolations(folder)
    values = []
    for seed in NOISE_SEEDS:
        generator = torch.Generator("cpu").manual_seed(seed)
        values += [torch.randn(shape, generator=generator).numpy() for shape in NOISE_SHAPES]
    np.savez_compressed(
        folder / "noise.npz",
        seeds=np.array(json.dumps(NOISE_SEEDS)),
        shapes=np.array(json.dumps(NOISE_SHAPES)),
        values=np.concatenate([array.ravel() for array in values]),
    )
    print(f"{len(listed)} runs of schedulers, {len(values)} calls of randn")


if __name__ == "__main__":
    main()
