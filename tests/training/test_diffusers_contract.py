"""What diffusers asks of any scheduler: its own common tests where its source is at hand, and the contract itself.

The wheel of diffusers has no tests. With DIFFUSERS_SOURCE set to a checkout of its repository, SchedulerCommonTest of
tests/schedulers/test_schedulers.py runs here unchanged. The contract below it needs no checkout: each law is shown to
hold for schedulers of diffusers, and must hold for ours.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import unittest
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

import interpolants as ip
from training.diffusers_scheduler import ODE_METHODS, SDE_METHODS, PathScheduler

SOURCE: Final = os.environ.get("DIFFUSERS_SOURCE")
NOT_OURS: Final = {
    "test_trained_betas": "a path has alpha and sigma, and takes no betas",
    "test_compatibles": "it makes a scheduler of diffusers from our configuration, which none of them can be made of",
}
"""The common tests that cannot hold here, and why."""
CONFIGURATIONS: Final = [
    *({"method": method} for method in ODE_METHODS),
    *({"method": method, "w": "sigma"} for method in SDE_METHODS),
    {"method": "ancestral", "eta": 0.5},
    {
        "alpha": "sin(pi*t/2)",
        "sigma": "cos(pi*t/2)",
        "prediction_type": "v_prediction",
        "grid": "cosine",
        "method": "unipc2",
    },
    {"alpha": "t**p", "sigma": "1 - t**p", "parameters": {"p": 1.5}, "prediction_type": "data", "method": "ddim"},
]


def common_tests() -> type[unittest.TestCase]:
    """The class, imported as a part of the package of tests of the checkout, by a name that no other package has."""
    assert SOURCE is not None, "else it is skipped"
    name, folder = "tests_of_diffusers", Path(SOURCE) / "tests"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None, "a path of a file"
    sys.modules[name] = importlib.util.module_from_spec(spec)
    module = importlib.import_module(f"{name}.schedulers.test_schedulers")
    found: type[unittest.TestCase] = module.SchedulerCommonTest
    return found


@pytest.mark.skipif(SOURCE is None, reason="DIFFUSERS_SOURCE names no checkout of diffusers")
def test_the_common_tests_of_diffusers_hold() -> None:
    common = common_tests()
    for configuration in CONFIGURATIONS:

        class Ours(common):  # type: ignore[misc, valid-type]
            scheduler_classes = (PathScheduler,)
            # They step at the timesteps 0 and 1: here the first two of 50.
            forward_default_kwargs = (("num_inference_steps", 50),)

            def get_scheduler_config(self, configuration=configuration, **changes: Any) -> dict[str, Any]:
                return {"timestep": "50*t", **configuration, **changes}

        names = unittest.TestLoader().getTestCaseNames(Ours)
        assert set(NOT_OURS) < set(names)
        result = unittest.TestResult()
        unittest.TestSuite(Ours(name) for name in names if name not in NOT_OURS).run(result)
        assert result.testsRun == len(names) - len(NOT_OURS)
        assert result.wasSuccessful(), (configuration, [text for _, text in result.failures + result.errors])


THEIRS: Final = [
    DDIMScheduler(clip_sample=False),
    DDPMScheduler(),
    DPMSolverMultistepScheduler(),
    EulerDiscreteScheduler(),
    HeunDiscreteScheduler(),
    UniPCMultistepScheduler(),
    FlowMatchEulerDiscreteScheduler(shift=3.0),
]
OURS: Final = [
    *(PathScheduler(**configuration) for configuration in CONFIGURATIONS),
    *(PathScheduler.like(scheduler) for scheduler in (THEIRS[0], THEIRS[-1])),
    PathScheduler.from_path(ip.edm(), prediction_type="data", method="unipc2"),
]
any_scheduler = pytest.mark.parametrize(
    "scheduler",
    [*THEIRS, *OURS],
    ids=lambda scheduler: f"{type(scheduler).__name__}-{scheduler.config.get('method', '')}",
)


def scaled(scheduler: Any, x: torch.Tensor) -> torch.Tensor:
    """What a network sees; theirs for flow matching see the state, and have no such function."""
    if not hasattr(scheduler, "scale_model_input"):
        return x
    found: torch.Tensor = scheduler.scale_model_input(x, scheduler.timesteps[0])
    return found


def first_state(scheduler: Any, steps: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """At the first of the timesteps, with what a network might return."""
    scheduler.set_timesteps(steps)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x *= getattr(scheduler, "init_noise_sigma", 1.0)
    return x, 0.1 * scaled(scheduler, x)


def step(scheduler: Any, output: torch.Tensor, x: torch.Tensor, **options: Any) -> Any:
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = torch.Generator().manual_seed(1)
    return scheduler.step(output, scheduler.timesteps[0], x, **options)


@any_scheduler
def test_a_step_keeps_shape_and_type_and_returns_an_object_or_a_tuple(scheduler: Any) -> None:
    x, output = first_state(scheduler)
    found = step(scheduler, output, x)
    first_state(scheduler)
    again = step(scheduler, output, x, return_dict=False)
    assert isinstance(again, tuple)
    assert torch.equal(found.prev_sample, again[0])
    assert (found.prev_sample.shape, found.prev_sample.dtype) == (x.shape, x.dtype)


@any_scheduler
def test_saved_or_made_again_it_has_the_same_configuration_and_makes_the_same_step(
    scheduler: Any, tmp_path: Any
) -> None:
    scheduler.save_pretrained(tmp_path)
    loaded = type(scheduler).from_pretrained(tmp_path)
    assert loaded.config == {name: v for name, v in scheduler.config.items() if name != "_use_default_values"}
    assert dict(type(scheduler).from_config(loaded.config).config) == dict(loaded.config)
    x, output = first_state(scheduler)
    expected = step(scheduler, output, x).prev_sample
    first_state(loaded)
    assert torch.equal(step(loaded, output, x).prev_sample, expected)


@any_scheduler
def test_noise_is_added_to_many_at_one_time_or_at_a_time_each(scheduler: Any) -> None:
    scheduler.set_timesteps(10)
    x, noise = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    times = scheduler.timesteps[[5, 7]]

    def noised(at: torch.Tensor) -> Any:
        if hasattr(scheduler, "scale_noise"):
            return scheduler.scale_noise(x, at, noise)
        return scheduler.add_noise(x, noise, at)

    for row in range(2):
        assert torch.equal(noised(times[row : row + 1])[row], noised(times)[row])


@any_scheduler
def test_what_the_configuration_has_is_an_attribute_with_a_warning_and_nothing_else_is(scheduler: Any) -> None:
    scheduler = type(scheduler).from_config(scheduler.config)
    scheduler.register_to_config(noted=5)
    with pytest.warns(FutureWarning, match="noted"):
        assert scheduler.noted == 5
    with pytest.raises(AttributeError, match="has no attribute 'does_not_exist'"):
        scheduler.does_not_exist  # noqa: B018
    takes_any = "kwargs" in inspect.signature(type(scheduler).__init__).parameters
    assert takes_any == bool(type(scheduler)._deprecated_kwargs)
