"""Our scheduler and pipeline in diffusers, against its own DDIM and Euler, and against sample_ode and sample_sde."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)
from tiny_vae import LATENT, reconstruction, save_vae
from torch import Tensor

import interpolants as ip
from models import SiT
from training import Field, Guidance, sample_ode, sample_sde
from training.brownian import stream
from training.diffusers_pipeline import SiTPipeline
from training.diffusers_scheduler import ODE_METHODS, SDE_METHODS, PathScheduler, ddpm_path


def network(x: Tensor, t: Tensor | float) -> Tensor:
    """Smooth in both, and neither odd in x nor constant in t."""
    return torch.sin(1.3 * x + 2.0 * torch.as_tensor(t).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))) - 0.4 * x


def run(scheduler: Any, model: Any, x: Tensor, **step: Any) -> Tensor:
    """The loop of a pipeline of diffusers."""
    for timestep in scheduler.timesteps:
        x = scheduler.step(model(x, timestep), timestep, x, **step).prev_sample
    return x


def start(scheduler: PathScheduler, noise: Tensor) -> Tensor:
    """The first state of sample_ode and sample_sde."""
    assert scheduler.times is not None
    return noise * float(scheduler.path.sigma(float(scheduler.times[0])))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Networks of diffusers


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    torch.manual_seed(1)
    return UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        layers_per_block=1,
        norm_num_groups=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).requires_grad_(False)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_a_network_of_ddpm_sees_its_own_times_and_makes_the_samples_of_ddim(
    unet: UNet2DModel, schedule: str, prediction_type: str
) -> None:
    theirs = DDIMScheduler(beta_schedule=schedule, prediction_type=prediction_type, clip_sample=False)
    ours = PathScheduler.like(theirs, method="ddim")
    theirs.set_timesteps(20)
    ours.set_timesteps(timesteps=theirs.timesteps)
    asked: dict[str, list[float]] = {"theirs": [], "ours": []}

    def model(who: str) -> Any:
        def call(x: Tensor, t: Tensor) -> Tensor:
            asked[who].append(float(t))
            output: Tensor = unet(x, t).sample
            return output

        return call

    noise = draw(2, 2, 8, 8)
    expected = run(theirs, model("theirs"), noise)
    found = run(ours, model("ours"), noise)  # not init_noise_sigma times it: DDIM starts with 1
    assert asked["ours"] == asked["theirs"] == list(range(950, -1, -50))
    # Theirs takes roots of 1 - alpha_bar in float32, which next to the data has three digits.
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-4)


def test_ancestral_steps_are_those_of_ddim_with_eta_from_the_same_generator() -> None:
    theirs = DDIMScheduler(clip_sample=False)
    for eta in (0.3, 1.0):
        ours = PathScheduler.like(theirs, method="ancestral", eta=eta)
        theirs.set_timesteps(25)
        ours.set_timesteps(timesteps=theirs.timesteps)
        model = lambda x, t: network(x, t / 1000)  # noqa: E731
        noise = draw(4, 3, 4, 4).double()
        expected = run(theirs, model, noise, eta=eta, generator=torch.Generator().manual_seed(5))
        found = run(ours, model, noise, generator=torch.Generator().manual_seed(5))
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-4)
        assert (found - run(without_noise(ours, theirs), model, noise)).abs().max() > 0.1 * scale, "it has noise"


def without_noise(scheduler: PathScheduler, theirs: DDIMScheduler) -> PathScheduler:
    """The same without noise."""
    ddim = PathScheduler.from_config({**scheduler.config, "method": "ddim", "eta": 1.0})
    ddim.set_timesteps(timesteps=theirs.timesteps)
    return ddim


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_the_path_of_ddpm_meets_its_schedule_and_its_noised_samples(schedule: str) -> None:
    theirs = DDPMScheduler(beta_schedule=schedule)
    products = torch.cumprod(1 - theirs.betas.double(), 0)
    path = ddpm_path(products)
    t = 1 - torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(path.alpha(t) ** 2, products, rtol=1e-7, atol=0)
    torch.testing.assert_close(path.sigma(t) ** 2, 1 - products, rtol=1e-7, atol=0)
    assert (path.alpha(1.0), path.sigma(1.0)) == (1.0, 0.0)
    data, noise, steps = draw(5, 2, 4), draw(5, 2, 4, seed=1), torch.tensor([0, 3, 500, 998, 999])
    found = PathScheduler.like(theirs).add_noise(data, noise, steps)
    torch.testing.assert_close(found, theirs.add_noise(data, noise, steps), rtol=1e-4, atol=1e-4)


def test_a_schedule_that_is_no_polynomial_is_refused_and_its_path_is_named() -> None:
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    with pytest.raises(ValueError, match=r"exponential of a polynomial.*interpolants\.cosine\(\) is the path"):
        ddpm_path(theirs.alphas_cumprod)
    t = 1 - torch.arange(1, 1000, dtype=torch.float64) / 1000  # the last rate is clipped
    torch.testing.assert_close(ip.cosine().alpha(t).float() ** 2, theirs.alphas_cumprod[:-1], rtol=2e-3, atol=1e-7)
    with pytest.raises(ValueError, match=r"inside \(0, 1\)"):
        ddpm_path(DDPMScheduler(rescale_betas_zero_snr=True).alphas_cumprod)
    with pytest.raises(ValueError, match=r"one without alpha.*PathScheduler\.like"):
        PathScheduler.from_config(theirs.config)
    with pytest.raises(TypeError, match=r"must have alphas_cumprod .* got object"):
        PathScheduler.like(object())


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_network_of_diffusers_makes_the_samples_of_its_euler_scheduler(shift: float) -> None:
    torch.manual_seed(0)
    transformer = (
        DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=2,
            num_layers=1,
            sample_size=4,
            norm_num_groups=2,
            num_embeds_ada_norm=10,
        )
        .requires_grad_(False)
        .eval()
    )
    labels = torch.tensor([3, 7])

    def model(x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = transformer(x, t.expand(2), class_labels=labels).sample
        return output

    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    ours = PathScheduler.like(theirs, method="euler")
    theirs.set_timesteps(12)
    ours.set_timesteps(timesteps=theirs.timesteps)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, rtol=1e-6, atol=0)
    torch.testing.assert_close(1 - torch.from_numpy(ours.times).float(), theirs.sigmas, rtol=1e-5, atol=1e-6)
    noise = draw(2, 2, 4, 4)
    assert ours.init_noise_sigma == 1.0
    torch.testing.assert_close(run(ours, model, noise), run(theirs, model, noise), rtol=1e-5, atol=1e-5)


# The steps of sample_ode and sample_sde


@pytest.mark.parametrize("method", ODE_METHODS)
@pytest.mark.parametrize(("path", "prediction"), [(ip.linear(), "data"), (ip.vp(), "noise")], ids=["linear", "vp"])
def test_its_ode_steps_are_those_of_sample_ode(method: str, path: ip.Path, prediction: str) -> None:
    """On the linear path a predicted data has a pole at t = 1 for methods on the velocity, which stop short of it."""
    scheduler = PathScheduler.from_path(path, prediction_type=prediction, method=method, grid="cosine")
    scheduler.set_timesteps(7)
    noise = draw(3, 2, 4).double()
    calls: list[float] = []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t.flatten()[0]))
        return network(x, t)

    expected = sample_ode(Field(counted, path, prediction), noise, num_steps=7, method=method, grid="cosine")
    found = run(scheduler, network, start(scheduler, noise))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # the timesteps are float32
    torch.testing.assert_close(scheduler.timesteps.double(), torch.tensor(calls).double(), rtol=1e-6, atol=1e-7)
    assert len(scheduler.timesteps) == len(calls)
    assert scheduler.order == (2 if method == "heun2" else 1)


def test_a_configuration_states_its_path_exactly() -> None:
    for path in (ip.vp(), ip.shifted(ip.vp(), 3), ip.Path("t", "sqrt((1-t)**2)")):
        scheduler = PathScheduler.from_path(path)
        assert PathScheduler.from_config(scheduler.config).path == scheduler.path == path
    assert PathScheduler("t**p", "1-t", parameters={"p": 2}).path == ip.Path("t**2", "1-t")
    for name in ("name", "sigma"):
        with pytest.raises(ValueError, match=rf"^PathScheduler: parameters: .*, got '{name}'\. Rename it\.$"):
            PathScheduler(f"t**{name}", "1-t", parameters={name: 2})


@pytest.mark.parametrize("method", SDE_METHODS)
@pytest.mark.parametrize(("w", "prediction"), [("sigma", "velocity"), ("2*t*(1-t)", "score"), ("sigma", "data")])
def test_its_sde_steps_are_those_of_sample_sde(method: str, w: str, prediction: str) -> None:
    noise = draw(3, 4, 5)
    expected = sample_sde(Field(network, ip.gvp(), prediction), noise, w=w, num_steps=9, seed=4, method=method)
    scheduler = PathScheduler.from_path(ip.gvp(), prediction_type=prediction, method=method, w=w)
    scheduler.set_timesteps(9)
    streams = [stream(4, i, noise.device) for i in range(3)]
    found = run(scheduler, network, start(scheduler, noise), generator=streams)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_an_sde_with_much_noise_has_the_variance_of_its_data() -> None:
    """For data N(0, s^2) on the linear path the exact velocity is linear in x, and any w leads to the data's law."""
    s, path = 0.6, ip.linear()
    exact = lambda x, t: x * (t * s**2 - (1 - t)) / (t**2 * s**2 + (1 - t) ** 2)  # noqa: E731
    for method in ("euler", "exponential2"):
        scheduler = PathScheduler.from_path(path, method=method, w="3*(1-t)")
        scheduler.set_timesteps(200)
        x = run(scheduler, exact, draw(20_000, 1), generator=torch.Generator().manual_seed(1))
        assert float(x.std()) == pytest.approx(s, rel=0.02)  # three standard errors are 1.5 %


@pytest.mark.parametrize("method", ["heun2", "adams3", "exponential_pc2", "unipc2"])
@pytest.mark.parametrize("told", [False, True], ids=["by the timestep", "by its number"])
def test_begun_in_the_middle_it_makes_the_steps_of_the_remaining_grid(method: str, told: bool) -> None:
    path, noise = ip.gvp(), draw(3, 4)
    scheduler = PathScheduler.from_path(path, method=method)
    scheduler.set_timesteps(10)
    index, times = 4 * scheduler.order, scheduler.times
    assert times is not None
    expected = sample_ode(Field(network, path), noise, method=method, grid=times[4:])
    x = noise * float(path.sigma(times[4]))
    if told:
        scheduler.set_begin_index(index)
    for timestep in scheduler.timesteps[index:]:
        x = scheduler.step(network(x, timestep), timestep, x).prev_sample
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)
    assert (scheduler.begin_index, scheduler.step_index) == (index if told else None, len(scheduler.timesteps))
    with pytest.raises(ValueError, match="got no step that is left"):
        scheduler.step(x, timestep, x)


def test_steps_counted_in_timesteps_begin_at_any_of_them() -> None:
    """A pipeline that passes sigmas counts timesteps: heun2 has two a step, and the second alone is not a start."""
    path, noise = ip.linear(), draw(3, 4)
    scheduler = PathScheduler.from_path(path, method="heun2")
    for sigmas, order in [(None, 2), (np.linspace(1, 0.1, 10), 1)]:
        scheduler.set_timesteps(*([10] if sigmas is None else []), sigmas=sigmas)
        assert (scheduler.order, len(scheduler.timesteps)) == (order, 20)
    for index in (7, 8):  # both ask the network at times[4]
        scheduler.set_timesteps(sigmas=np.linspace(1, 0.1, 10))
        scheduler.set_begin_index(index)
        assert scheduler.times is not None
        x = noise * float(path.sigma(scheduler.times[4]))
        expected = sample_ode(Field(network, path), noise, method="heun2", grid=scheduler.times[4:])
        for timestep in scheduler.timesteps[index:]:
            x = scheduler.step(network(x, timestep), timestep, x).prev_sample
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)


# Levels of noise


SHIFTS: list[dict[str, Any]] = [
    {},
    {"shift": 3.0},
    {"shift": 0.5, "shift_terminal": 0.1},
    {"use_dynamic_shifting": True},
    {"use_dynamic_shifting": True, "time_shift_type": "linear", "shift_terminal": 0.02},
]


@pytest.mark.parametrize("options", SHIFTS, ids=str)
def test_sigmas_are_shifted_as_those_of_the_euler_scheduler_for_flow_matching(options: dict[str, Any]) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(**options)
    ours = PathScheduler.like(theirs)
    again = PathScheduler.from_config(ours.config)
    for scheduler in (theirs, ours, again):
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8), mu=0.9)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, rtol=1e-6, atol=1e-4)
    assert torch.equal(again.timesteps, ours.timesteps)
    if not options.get("shift_terminal"):  # a grid has its end at the data; equal steps are these sigmas
        ours.set_timesteps(8, mu=0.9)
        torch.testing.assert_close(ours.timesteps, theirs.timesteps, rtol=1e-6, atol=1e-4)
    ours.set_timesteps(timesteps=[900.0, 300.0], mu=0.9)
    assert ours.timesteps.tolist() == [900.0, 300.0]
    if theirs.config.use_dynamic_shifting:
        for arguments in ({"num_inference_steps": 8}, {"sigmas": [1.0, 0.5]}):
            with pytest.raises(ValueError, match="mu must be given where use_dynamic_shifting is True"):
                ours.set_timesteps(**arguments)
        with pytest.raises(ValueError, match=r"mu must make a positive factor, got -(inf|1)"):
            ours.set_timesteps(8, mu=-1.0 if theirs.config.time_shift_type == "linear" else -float("inf"))


def test_a_shift_that_was_set_later_is_taken_over_and_another_may_be_chosen() -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0, base_shift=0.7)
    theirs.set_shift(5.0)
    assert PathScheduler.like(theirs).config.shift == 5.0
    assert PathScheduler.like(theirs).config.base_shift == 0.7
    assert PathScheduler.like(theirs, shift=1.0).config.shift == 1.0


@pytest.mark.parametrize("grid", ["uniform", "cosine"])
def test_a_shift_multiplies_sigma_over_alpha_on_any_path(grid: str) -> None:
    path = ip.gvp()
    ratio = lambda times: np.exp(-path.log_snr(times[1:-1]) / 2)  # noqa: E731
    times = []
    for shift in (1.0, 4.0):
        scheduler = PathScheduler.from_path(path, grid=grid, shift=shift)
        scheduler.set_timesteps(6)
        assert scheduler.times is not None
        times.append(scheduler.times)
    np.testing.assert_allclose(ratio(times[1]), 4.0 * ratio(times[0]), rtol=1e-9)
    assert times[1][[0, -1]].tolist() == [0.0, 1.0]
    scheduler.set_timesteps(sigmas=[1.0, 0.5])
    assert ratio(scheduler.times)[0] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": 0.0}, "shift must be positive and finite"),
        ({"shift_terminal": 1.0}, r"shift_terminal in \[0, 1\), got 1\.0 and 1\.0"),
        ({"time_shift_type": "log"}, "time_shift_type must be one of exponential, linear, got 'log'"),
        ({"shift": 2.0, "prediction_type": "epsilon"}, "must be left at their defaults"),
        (
            {"use_dynamic_shifting": True, "alpha": "1", "sigma": "80 - 80*t"},
            "a path that does not start with pure noise",
        ),
    ],
)
def test_a_shift_that_means_nothing_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PathScheduler(**arguments)


def test_noise_is_scaled_as_by_the_euler_scheduler_for_flow_matching() -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    ours = PathScheduler.like(theirs)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(sigmas=np.linspace(1, 0.1, 10))
    x, noise = draw(3, 4, 8, 8), draw(3, 4, 8, 8, seed=1)
    for timestep in (theirs.timesteps[4][None], theirs.timesteps[[2, 0, 7]]):
        expected = theirs.scale_noise(x, timestep, noise)
        torch.testing.assert_close(ours.scale_noise(x, timestep, noise), expected, rtol=1e-5, atol=1e-5)
    one = ours.scale_noise(x, float(theirs.timesteps[4]), noise)
    torch.testing.assert_close(one, theirs.scale_noise(x, theirs.timesteps[4][None], noise), rtol=1e-5, atol=1e-5)


def test_a_first_state_has_the_variance_of_its_noise_and_of_data_of_variance_one() -> None:
    """As init_noise_sigma of the schedulers for EDM, and 1 for every path that preserves the variance."""
    for theirs in (DDIMScheduler(), DDPMScheduler(beta_schedule="scaled_linear"), FlowMatchEulerDiscreteScheduler()):
        assert PathScheduler.like(theirs).init_noise_sigma == pytest.approx(getattr(theirs, "init_noise_sigma", 1.0))
    assert PathScheduler.from_path(ip.edm()).init_noise_sigma == pytest.approx(
        diffusers.EDMEulerScheduler(sigma_max=80.0).init_noise_sigma
    )
    scheduler = PathScheduler.from_path(ip.edm(), prediction_type="data", method="ddim")
    scheduler.set_timesteps(4)
    noise = draw(2, 3, 16, 16)
    scheduler.step(noise, scheduler.timesteps[0], scheduler.init_noise_sigma * noise)
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="sample must start as init_noise_sigma = 80"):
        scheduler.step(noise, scheduler.timesteps[0], noise)


def test_a_narrow_state_is_led_on_in_float32_and_returned_as_it_came() -> None:
    scheduler = PathScheduler(method="euler")
    scheduler.set_timesteps(10)
    x, output = draw(3, 4).bfloat16(), draw(3, 4, seed=1).bfloat16()
    assert scheduler.scale_model_input(x, scheduler.timesteps[0]) is x
    after = scheduler.step(output, scheduler.timesteps[0], x).prev_sample
    assert torch.equal(after, (x.float() + 0.1 * output.float()).bfloat16())


def test_what_is_not_valid_is_refused() -> None:
    for arguments, message in [
        ({"alpha": "1 - t", "sigma": "t"}, "no path"),
        ({"alpha": "a*t", "parameters": {"b": 1.0}}, "b"),
        ({"prediction_type": "eps"}, "prediction_type must be one of velocity, score, noise, data, epsilon"),
        ({"method": "dpm"}, "method must be one of euler, heun2, adams2"),
        ({"method": "adams_pc2", "w": "sigma"}, "method with w must be one of euler, exponential1"),
        ({"method": "exponential1"}, "method without w must be one of euler, heun2"),
        ({"method": "ancestral", "w": "sigma"}, "method with w must be one of euler"),
        ({"method": "euler", "w": "1"}, "must be finite on \\[0, 1\\]"),
        ({"method": "euler", "w": "t - 1"}, r"w: .* must be finite and >= 0"),
        ({"eta": 0.5}, "eta must be in \\[0, 1\\] for ancestral and 1 for others, got 0.5 for adams_pc2"),
        ({"grid": "karras"}, "grid: must be one of uniform"),
        ({"timestep": "t**2"}, "timestep must be linear in t, got 't\\*\\*2'"),
        ({"timestep": "7"}, "timestep must be linear in t"),
    ]:
        with pytest.raises(ValueError, match=message):
            PathScheduler(**arguments)
    scheduler, x = PathScheduler(), draw(2, 3)
    with pytest.raises(ValueError, match="must follow set_timesteps, got none"):
        scheduler.step(x, 0.0, x)
    for arguments, message in [
        ({}, "one of num_inference_steps, timesteps and sigmas must be given"),
        ({"sigmas": [1.0, 0.5], "timesteps": [0.0, 0.5]}, "one of num_inference_steps, timesteps and sigmas"),
        (
            {"num_inference_steps": 3, "timesteps": [0.0]},
            "num_inference_steps must be the number of values, 1, got 3",
        ),
        ({"num_inference_steps": 3, "sigmas": [1.0]}, "num_inference_steps must be the number of values, 1, got 3"),
        (
            {"sigmas": [14.6, 2.0]},
            r"sigmas must lie in \(0, 1\], as sigma / \(alpha \+ sigma\) on this path, got \[14\.6",
        ),
        ({"sigmas": [0.5, 0.9]}, "the times of sigmas, and the end: must be at least two increasing"),
        ({"sigmas": []}, "sigmas must lie in"),
        ({"sigmas": [[1.0, 0.5]]}, r"sigmas must have shape \(n,\), got \(1, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            scheduler.set_timesteps(**arguments)
    with pytest.raises(ValueError, match="must be at least two increasing times"):
        scheduler.set_timesteps(timesteps=[0.5, 0.2])
    with pytest.raises(ValueError, match="begin_index must be at least 0, got -1"):
        scheduler.set_begin_index(-1)
    with pytest.raises(ValueError, match=r"last of sigmas must be below 1.*shift_terminal, got \[1\.0\]"):
        PathScheduler(shift_terminal=0.1).set_timesteps(sigmas=[1.0])
    with pytest.raises(ValueError, match=r"mu must make a positive factor, got 1000\.0"):
        PathScheduler(use_dynamic_shifting=True).set_timesteps(4, mu=1000.0)
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="timestep must be one of"):
        scheduler.step(x, 0.3, x)
    with pytest.raises(ValueError, match=r"must have the shape of sample, \(2, 3\), got \(2, 6\).*first half"):
        scheduler.step(draw(2, 6), 0.0, x)
    noise = PathScheduler(prediction_type="noise")
    with pytest.raises(ValueError, match=r"t >= 0\.001\d*, got 0"):
        noise.set_timesteps(timesteps=[0.0, 0.5])


def test_a_saved_scheduler_makes_the_same_steps(tmp_path: Path) -> None:
    saved = PathScheduler(
        "t**p", "1 - t**p", {"p": 1.5}, "data", "exponential2", w="2*(1 - t)", grid="edm", timestep="1000*(1 - t)"
    )
    saved.save_pretrained(tmp_path)
    loaded = PathScheduler.from_pretrained(tmp_path)
    assert loaded.path == saved.path == ip.polynomial(1.5)
    results = []
    for scheduler in (saved, loaded):
        scheduler.set_timesteps(6)
        results.append(run(scheduler, network, draw(2, 5), generator=torch.Generator().manual_seed(0)))
    assert torch.equal(*results)
    torch.testing.assert_close(loaded.timesteps.double(), torch.from_numpy(1000 * (1 - loaded.times[:-1])))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
@pytest.mark.parametrize("method", ["heun2", "adams_pc2", "exponential2"])
def test_a_copy_goes_on_by_itself_from_any_step(method: str, copied: Callable[[PathScheduler], PathScheduler]) -> None:
    scheduler = PathScheduler(method=method, w="sigma" if method == "exponential2" else None)
    scheduler.set_timesteps(5)
    expected = run(scheduler, network, draw(2, 5), generator=torch.Generator().manual_seed(0))
    for start in (0, 3):
        scheduler.set_timesteps(5)
        x, generator = draw(2, 5), torch.Generator().manual_seed(0)
        for number, time in enumerate(scheduler.timesteps):
            if number == start:
                scheduler, other = copied(scheduler), scheduler
                other.step(draw(2, 5, seed=1), time, x)  # of which the copy sees nothing
            x = scheduler.step(network(x, time), time, x, generator=generator).prev_sample
        assert torch.equal(x, expected)


# The pipeline


@pytest.fixture(scope="module")
def field() -> Field:
    return tiny_field(ip.gvp(), in_channels=3)


def tiny_field(path: ip.Path, **changes: Any) -> Field:
    torch.manual_seed(0)
    sizes = {"input_size": 4, "in_channels": 3, "patch_size": 2, "hidden_size": 16, "depth": 1, "num_heads": 2}
    model = SiT(**{**sizes, "num_classes": 10, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return Field(model, path, "data")


def quiet(pipeline: SiTPipeline) -> SiTPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_pipeline_makes_the_samples_of_its_field_guided_as_it_is_told() -> None:
    field = tiny_field(ip.Path("t", "2 - 2*t"))  # whose noise starts with another standard deviation than 1
    pipeline = quiet(SiTPipeline.from_field(field, method="unipc2", grid="cosine"))
    y, noise = torch.tensor([1, 8, 0]), draw(3, 3, 4, 4)
    for guidance in (Guidance(), Guidance(3.0), Guidance(2.0, channels=2, interval=(0.2, 0.7), rescale=0.5)):
        guided = Field(field.model, field.path, "data", guidance=guidance)
        expected = sample_ode(guided, noise, num_steps=6, method="unipc2", grid="cosine", y=y)
        for given in (guidance, guidance.scale) if guidance == Guidance(guidance.scale) else (guidance,):
            (found,) = pipeline(
                [1, 8, 0],
                guidance_scale=given,
                num_inference_steps=6,
                latents=noise,
                output_type="latent",
                return_dict=False,
            )
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert pipeline.field(2.0).guidance == Guidance(2.0)
    assert pipeline.transformer.network is field.model


def test_a_saved_pipeline_makes_the_same_images_offline(tmp_path: Path, field: Field) -> None:
    saved = quiet(SiTPipeline.from_field(field, method="exponential1", w="sigma"))
    saved.save_pretrained(tmp_path)
    loaded = quiet(SiTPipeline.from_pretrained(tmp_path, local_files_only=True, low_cpu_mem_usage=False))
    images = [
        pipeline([4, 5], num_inference_steps=3, generator=torch.Generator().manual_seed(2), output_type="np").images
        for pipeline in (saved, loaded)
    ]
    assert (images[0] == images[1]).all()
    assert images[0].shape == (2, 4, 4, 3)
    assert loaded.vae is None


def test_a_sample_with_a_generator_of_its_own_is_the_same_in_any_batch(field: Field) -> None:
    pipeline = quiet(SiTPipeline.from_field(field, method="euler", w="sigma"))
    draws = lambda *seeds: [torch.Generator().manual_seed(seed) for seed in seeds]  # noqa: E731
    both = pipeline([1, 2], num_inference_steps=5, generator=draws(10, 20), output_type="pt").images
    alone = pipeline([2], num_inference_steps=5, generator=draws(20), output_type="pt").images
    torch.testing.assert_close(both[1:], alone, rtol=1e-5, atol=1e-6)
    assert 0 <= float(both.min()) < float(both.max()) <= 1


def test_a_label_alone_is_one_sample(field: Field) -> None:
    pipeline = quiet(SiTPipeline.from_field(field))
    settings: dict[str, Any] = {"num_inference_steps": 2, "latents": draw(1, 3, 4, 4), "output_type": "latent"}
    expected = pipeline([2], **settings).images
    for label in (2, torch.tensor(2)):
        assert torch.equal(pipeline(label, **settings).images, expected)


def test_latents_are_decoded_by_the_vae_in_its_own_units(tmp_path: Path) -> None:
    save_vae(tmp_path / "vae", scaling_factor=0.5, shift_factor=0.1)
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae", low_cpu_mem_usage=False)
    field = tiny_field(ip.linear(), input_size=LATENT[1:], in_channels=LATENT[0], num_classes=0)
    pipeline = quiet(SiTPipeline.from_field(field, vae=vae))
    noise = draw(2, *LATENT)
    settings = {"num_images": 2, "num_inference_steps": 3, "latents": noise}
    latents = pipeline(**settings, output_type="latent").images
    expected = reconstruction(tmp_path / "vae", latents / 0.5 + 0.1) / 2 + 0.5
    torch.testing.assert_close(pipeline(**settings, output_type="pt").images, expected, rtol=1e-5, atol=1e-6)
    pictures = pipeline(**settings).images
    assert [picture.size for picture in pictures] == [(16, 16)] * 2
    pipeline.save_pretrained(tmp_path / "pipeline")
    loaded = quiet(SiTPipeline.from_pretrained(tmp_path / "pipeline", low_cpu_mem_usage=False))
    torch.testing.assert_close(loaded(**settings, output_type="pt").images, expected, rtol=1e-5, atol=1e-6)


def test_a_network_of_narrow_weights_is_asked_in_them_from_a_state_in_float32(field: Field) -> None:
    pipeline = quiet(SiTPipeline.from_field(tiny_field(ip.gvp()), method="euler"))
    noise = draw(2, 3, 4, 4)
    settings: dict[str, Any] = {"num_inference_steps": 4, "latents": noise, "output_type": "latent"}
    exact = pipeline([1, 2], **settings).images
    narrow = pipeline.to(torch.bfloat16)([1, 2], **settings).images
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, exact, rtol=0.05, atol=0.05)
    assert not torch.equal(narrow, exact)


def test_a_pipeline_refuses_what_is_not_its_own(field: Field) -> None:
    with pytest.raises(TypeError, match="the network must be a SiT, got function"):
        SiTPipeline.from_field(Field(network, ip.linear()))
    pipeline = SiTPipeline.from_field(field)
    with pytest.raises(TypeError, match="scheduler must be a PathScheduler, got DDIMScheduler"):
        SiTPipeline(pipeline.transformer, DDIMScheduler())
    with pytest.raises(ValueError, match=r"timestep must be 't', got '1000\*\(1 - t\)'"):
        SiTPipeline(pipeline.transformer, PathScheduler(timestep="1000*(1 - t)"))
    for arguments, message in [
        ({}, "one of class_labels and num_images"),
        ({"class_labels": [1], "num_images": 1}, "one of class_labels and num_images"),
        ({"class_labels": [1], "output_type": "jpg"}, "output_type must be one of pil, np, pt, latent, got 'jpg'"),
        ({"class_labels": [1], "latents": draw(2, 3, 4, 4)}, r"latents must have shape \(1, 3, 4, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            pipeline(**arguments)


@pytest.mark.parametrize(
    ("scheduler", "options", "reason"),
    [
        (diffusers.CogVideoXDDIMScheduler, {}, "alphas_cumprod must be those of the betas"),
        (diffusers.UniPCMultistepScheduler, {"use_flow_sigmas": True}, "use_flow_sigmas must be False"),
        (diffusers.EulerDiscreteScheduler, {"timestep_type": "continuous"}, "timestep_type must be 'discrete'"),
        (diffusers.FlowMatchEulerDiscreteScheduler, {"invert_sigmas": True}, "invert_sigmas must be False"),
    ],
)
def test_like_refuses_what_has_another_path_or_other_times(scheduler, options, reason):
    with pytest.raises(ValueError, match=reason):
        PathScheduler.like(scheduler(**options))


def test_noise_is_added_at_one_time_for_all() -> None:
    """As image-to-image and inpainting pipelines ask for it: timesteps of shape (1,) for any batch."""
    scheduler = PathScheduler.like(diffusers.DDIMScheduler())
    scheduler.set_timesteps(10)
    x, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    one = scheduler.add_noise(x, noise, scheduler.timesteps[5][None])
    assert torch.equal(one, scheduler.add_noise(x, noise, scheduler.timesteps[5].expand(2)))
    reference = diffusers.DDIMScheduler()
    reference.set_timesteps(10)
    torch.testing.assert_close(
        one, reference.add_noise(x, noise, scheduler.timesteps[5][None].long()), rtol=1e-5, atol=1e-5
    )
