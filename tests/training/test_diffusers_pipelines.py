"""Our scheduler in pipelines of diffusers itself, as they are: the images are those of its own DDIM and Euler."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin

pytest.importorskip("transformers")  # without it diffusers leaves out every pipeline that takes text

from tiny_pipelines import DDPM, FLOW, Case, draw, images, pixel_unet, unet, vae

import interpolants as ip
from training.diffusers_scheduler import PathScheduler

STEPS = 5
SIGMAS = np.linspace(1, 1 / STEPS, STEPS).tolist()
DDIM = {"clip_sample": False, "timestep_spacing": "trailing", "steps_offset": 1}
"""Equal steps down from 999, as ours are, to the data."""


def pair(case: Case, theirs: Any, ours: Any, batch: int, **steps: Any) -> tuple[Any, Any]:
    pipeline = case.make(theirs)
    expected = images(pipeline, case, batch, **steps)
    pipeline.scheduler = ours
    return images(pipeline, case, batch, **steps), expected


@pytest.mark.parametrize(
    ("batch", "options"),
    [(1, {"shift": 3.0}), (2, {"shift": 3.0}), (2, {"use_dynamic_shifting": True, "max_shift": 3.0})],
    ids=["one", "two", "two of a dynamic shift"],
)
@pytest.mark.parametrize("name", FLOW)
def test_a_pipeline_for_flow_matching_makes_the_images_of_its_euler(name: str, batch: int, options: Any) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(**options)
    found, expected = pair(FLOW[name], theirs, PathScheduler.like(theirs, method="euler"), batch, sigmas=SIGMAS)
    assert len(found) == batch
    assert found.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", DDPM)
def test_a_pipeline_of_ddpm_makes_the_images_of_ddim(name: str, batch: int) -> None:
    theirs = DDIMScheduler(**DDIM, prediction_type="v_prediction")
    ours = PathScheduler.like(theirs, method="ddim")
    found, expected = pair(DDPM[name], theirs, ours, batch, num_inference_steps=STEPS)
    assert len(found) == batch
    assert found.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # theirs has sqrt(1 - alpha_bar) in float32


def native(name: str) -> tuple[Case, Any]:
    """A pipeline, and a scheduler of diffusers for its network."""
    if name in FLOW:
        return FLOW[name], FlowMatchEulerDiscreteScheduler()
    return DDPM[name], DDIMScheduler(**DDIM, prediction_type="v_prediction")


def steps(name: str, number: int = STEPS) -> dict[str, Any]:
    return {"sigmas": np.linspace(1, 1 / number, number).tolist()} if name in FLOW else {"num_inference_steps": number}


@pytest.mark.parametrize(
    "name", ["FluxInpaintPipeline", "StableDiffusion3InpaintPipeline", "StableDiffusionInpaintPipeline"]
)
@pytest.mark.parametrize("method", ["heun2", "adams_pc2", "unipc3"])
def test_outside_the_mask_the_image_is_kept(name: str, method: str) -> None:
    """The pipeline writes the image there after each step; a method that corrects the step before must not undo it."""
    case, theirs = native(name)
    pipeline = case.make(theirs)

    def last(scheduler: Any) -> Any:
        latents: list[Any] = []

        def keep(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
            latents.append(values["latents"])
            return values

        pipeline.scheduler = scheduler
        images(pipeline, case, 2, **steps(name), callback_on_step_end=keep)
        # Flux has tokens of 2 x 2 latent pixels, row by row.
        return latents[-1].reshape(2, 4, 4, 16).movedim(3, 1) if "Flux" in name else latents[-1]

    found, expected = last(PathScheduler.like(theirs, method=method)), last(theirs)
    half = found.shape[-1] // 2
    torch.testing.assert_close(found[..., :half], expected[..., :half], rtol=0, atol=1e-5)
    assert (found - expected)[..., half:].abs().max() > 1e-2


def test_a_stable_diffusion_takes_the_sigmas_of_the_euler_scheduler() -> None:
    """Published schedules are lists of sigma / alpha; theirs finds the steps by interpolation."""
    theirs = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    ours = PathScheduler.like(theirs, method="ddim")
    sigmas = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]
    images(DDPM["StableDiffusionPipeline"].make(ours), DDPM["StableDiffusionPipeline"], 1, sigmas=sigmas)
    theirs.set_timesteps(sigmas=sigmas)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps.float(), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["DiTPipeline", "FluxPipeline", "StableDiffusion3Pipeline"])
def test_a_pipeline_that_does_not_scale_its_noise_is_told(name: str) -> None:
    """EDM's path starts at 80 times the noise; these pipelines start from the noise as it is, unless it is passed."""
    case = {**FLOW, **DDPM}[name]
    scheduler = PathScheduler.from_path(ip.edm(), prediction_type="data", method="ddim", timestep="1000*(1 - t)")
    scheduler.set_timesteps(STEPS)
    assert scheduler.init_noise_sigma == pytest.approx(6401**0.5)
    calls = {"sigmas": [0.98, 0.8]} if name in FLOW else {"num_inference_steps": STEPS}
    with pytest.raises(
        ValueError, match=r"sample must start as init_noise_sigma = .* got a standard deviation of [01]\."
    ):
        images(case.make(scheduler), case, 2, **calls)


def test_a_pipeline_that_scales_its_noise_or_gets_it_scaled_runs_on_a_path_of_any_scale() -> None:
    scheduler = PathScheduler.from_path(ip.edm(), prediction_type="data", method="ddim", timestep="1000*(1 - t)")
    case = DDPM["StableDiffusionPipeline"]
    assert images(case.make(scheduler), case, 2, num_inference_steps=STEPS).isfinite().all()
    case = FLOW["StableDiffusion3Pipeline"]
    latents = draw(1, 16, 8, 8) * scheduler.init_noise_sigma
    assert images(case.make(scheduler), case, 1, num_inference_steps=STEPS, latents=latents).isfinite().all()


def replaced(name: str) -> tuple[Any, dict[str, Any]]:
    """A pipeline that replaces its scheduler, and its other parts."""
    if "LEdits" not in name:
        return getattr(diffusers, name), {"unet": pixel_unet()}
    pipeline = getattr(diffusers, name)
    parts = dict.fromkeys(set(inspect.signature(pipeline).parameters) - {"scheduler", "requires_safety_checker"})
    return pipeline, {**parts, "vae": vae(), "unet": unet()}


@pytest.mark.parametrize(
    "name", ["DDIMPipeline", "PNDMPipeline", "LEditsPPPipelineStableDiffusion", "LEditsPPPipelineStableDiffusionXL"]
)
@pytest.mark.parametrize("scheduler", [PathScheduler(), PathScheduler.like(DDIMScheduler())], ids=["linear", "ddpm"])
def test_a_pipeline_that_replaces_its_scheduler_is_refused(name: str, scheduler: PathScheduler) -> None:
    pipeline, parts = replaced(name)
    with pytest.raises(NotImplementedError, match=r"path of a PathScheduler .* DDPMPipeline.* is not implemented for"):
        pipeline(**parts, scheduler=scheduler)


def test_no_scheduler_with_betas_is_made_of_our_configuration(tmp_path: Path) -> None:
    """As ``Other.from_config(pipe.scheduler.config)`` would, with other betas than the path has."""
    ours = PathScheduler.like(DDIMScheduler())
    ours.save_pretrained(tmp_path)
    classes = [c for _, c in inspect.getmembers(diffusers.schedulers, inspect.isclass) if issubclass(c, SchedulerMixin)]
    beta = [c for c in classes if "beta_schedule" in inspect.signature(c.__init__).parameters]
    assert len(beta) > 20
    for other in beta:
        for make in (
            lambda other=other: other.from_config(ours.config),
            lambda other=other: other.from_pretrained(tmp_path),
        ):
            with pytest.raises(
                (NotImplementedError, ValueError, TypeError), match=r"PathScheduler|beta_schedule|missing"
            ):
                make()


def test_the_length_of_the_range_of_timesteps_is_in_the_configuration(tmp_path: Path) -> None:
    """Pipelines divide by it, such as those for Lumina2, or cut off a part of the steps, as SDXL's."""
    for text, length in [("1000*(1 - t)", 1000), ("1000*(1 - t) - 1", 1000), ("t", 1), ("2.5*t", 2.5)]:
        scheduler = PathScheduler(timestep=text)
        scheduler.save_pretrained(tmp_path)
        for found in (scheduler, PathScheduler.from_config(scheduler.config), PathScheduler.from_pretrained(tmp_path)):
            assert found.config.num_train_timesteps == length
    shorter = PathScheduler.like(FlowMatchEulerDiscreteScheduler(num_train_timesteps=500))
    assert shorter.config.num_train_timesteps == 500


@pytest.mark.parametrize("name", ["sigmas", "alphas_cumprod", "betas"])
def test_what_only_one_path_has_is_not_there_for_a_pipeline_that_has_formulas_for_that_path(name: str) -> None:
    for scheduler in (PathScheduler.like(DDIMScheduler()), PathScheduler.like(FlowMatchEulerDiscreteScheduler())):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(scheduler, name)


def test_a_saved_pipeline_of_diffusers_comes_back_with_our_scheduler(tmp_path: Path) -> None:
    case = DDPM["DDPMPipeline"]
    theirs = DDIMScheduler(prediction_type="v_prediction")
    pipeline = case.make(PathScheduler.like(theirs, method="unipc2", grid="cosine"))
    pipeline.save_pretrained(tmp_path)
    loaded = diffusers.DDPMPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert type(loaded.scheduler) is PathScheduler
    made = [images(one, case, 2, num_inference_steps=STEPS) for one in (pipeline, loaded)]
    assert torch.equal(*made)
