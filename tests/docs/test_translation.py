"""Each row of docs/translation.md: its last column, evaluated, beside the other library or its published formula."""

from __future__ import annotations

import importlib.metadata
import itertools
import math
import re
from pathlib import Path

import diffusers
import numpy as np
import pytest
import scipy.stats
import torch
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.utils.torch_utils import randn_tensor
from einops import rearrange
from flow_matching.path import AffineProbPath
from flow_matching.path import scheduler as flow_matching_schedulers
from flow_matching.solver import ODESolver
from torch.testing import assert_close

import interpolants as ip
from models import create_model
from training import Field, Guidance, InterpolantLoss, log_likelihood, sample_ode, sample_sde
from training.diffusers_scheduler import ddpm_path
from training.likelihood import dequantize
from training.official import official_w, sample_official_sde

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {
    "ip": ip, "math": math, "torch": torch, "create_model": create_model, "Field": Field, "Guidance": Guidance,
    "InterpolantLoss": InterpolantLoss, "log_likelihood": log_likelihood, "sample_ode": sample_ode,
    "sample_sde": sample_sde, "official_w": official_w, "sample_official_sde": sample_official_sde,
    "ddpm_path": ddpm_path,
}  # fmt: skip


PAGE = (DOCS / "translation.md").read_text(encoding="utf-8")
TABLES = [
    [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for is_table, lines in itertools.groupby(PAGE.splitlines(), key=lambda line: line.startswith("|"))
    if is_table
]
ROWS = {
    _id: cells[-1] for table in TABLES[1:] for cells in table[2:] for _id in re.findall(r"<!-- (\w+) -->", cells[0])
}


@pytest.fixture
def here(request):
    """The last column of the row that the test is named after, run with these names."""
    *before, last = re.findall(r"`([^`]+)`", ROWS[request.node.name.split("[")[0].removeprefix("test_")])
    values = []

    def run(**names):
        names = {**NAMES, **names}
        for line in before:
            exec(line, names)
        values.append(eval(last, names))
        return values[-1]

    yield run
    assert values, "the test has not looked at its row"


def test_every_row_has_a_test():
    assert {f"test_{row}" for row in ROWS} <= set(globals())
    assert len(ROWS) == sum(len(table) - 2 for table in TABLES[1:])
    shown_by = [re.findall(r"\w+", re.search("<!-- (.*) -->", cells[0])[1]) for cells in TABLES[0][3:]]
    assert all(rows and {*rows} <= {*ROWS} for rows in shown_by)


def test_each_line_of_a_table_has_the_cells_of_its_head():
    assert [{len(cells) for cells in table} for table in TABLES] == [{len(table[0])} for table in TABLES]


def test_the_versions_on_the_page_are_those_compared():
    for name in ("flow_matching", "diffusers"):
        assert f"{name} {importlib.metadata.version(name)}" in PAGE


# Random numbers, in float64: where no tolerance is given the two agree to 1e-7

_generator = torch.Generator().manual_seed(0)
DATA, NOISE, X, V = torch.randn(4, 6, 3, dtype=torch.float64, generator=_generator)
T = torch.linspace(0.06, 0.94, 6, dtype=torch.float64)
IMAGES = torch.randn(4, 5, 4, 2, 2, dtype=torch.float64, generator=_generator)  # cond, uncond, x and another
PATH = ip.Path("t**2", "(1-t)**1.5")  # on which nothing is symmetric
ALPHA, SIGMA, D_ALPHA, D_SIGMA = T**2, (1 - T) ** 1.5, 2 * T, -1.5 * (1 - T) ** 0.5


def column(values):
    return torch.as_tensor(values)[:, None]


def model(x, t, y=None):
    return torch.sin(x) * column(t) + x**2


# SiT, the paper: of the same path in its time, alpha = (1 - tau)^2, sigma = tau^1.5

TAU = 1 - T
PAPER_ALPHA, PAPER_SIGMA, PAPER_D_ALPHA, PAPER_D_SIGMA = (1 - TAU) ** 2, TAU**1.5, -2 * (1 - TAU), 1.5 * TAU**0.5


def test_paper_state(here):
    alpha, sigma = torch.cos(math.pi * TAU / 2), torch.sin(math.pi * TAU / 2)
    assert_close(here(data=DATA, noise=NOISE, tau=TAU), column(alpha) * DATA + column(sigma) * NOISE)


def test_paper_velocity(here):
    there = column(PAPER_D_ALPHA) * DATA + column(PAPER_D_SIGMA) * NOISE
    assert_close(here(path=PATH, data=DATA, noise=NOISE, tau=TAU), there)


def test_paper_score(here):
    alpha, sigma, d_alpha, d_sigma = map(column, (PAPER_ALPHA, PAPER_SIGMA, PAPER_D_ALPHA, PAPER_D_SIGMA))
    there = (alpha * V - d_alpha * X) / (d_alpha * sigma - alpha * d_sigma) / sigma
    # Its sign: for one data point the score is -noise / sigma.
    point = -NOISE / sigma
    exact = (alpha * (d_alpha * DATA + d_sigma * NOISE) - d_alpha * (alpha * DATA + sigma * NOISE)) / (
        (d_alpha * sigma - alpha * d_sigma) * sigma
    )
    assert_close(exact, point)
    assert_close(here(path=PATH, v=V, x=X, tau=TAU), there)


def test_paper_sde(here):
    """As the time runs backwards, minus the drift is what is added to x."""
    alpha, sigma = column(PAPER_ALPHA), column(PAPER_SIGMA)
    d_alpha, d_sigma = column(PAPER_D_ALPHA), column(PAPER_D_SIGMA)
    score = (alpha * V - d_alpha * X) / (d_alpha * sigma - alpha * d_sigma) / sigma
    w = column(1 + T)
    assert_close(here(path=PATH, w="1 + t", x=X, v=V, tau=TAU), V - w / 2 * score)


def test_paper_w_kl(here):
    there = 2 * (PAPER_D_SIGMA * PAPER_SIGMA - PAPER_D_ALPHA * PAPER_SIGMA**2 / PAPER_ALPHA)
    assert_close(here(path=PATH, tau=TAU), there)


# SiT, the code: as shared facts on the release state it


def test_official_linear(here):
    t = column(T)
    assert_close(here(data=DATA, noise=NOISE, t=T), (t * DATA + (1 - t) * NOISE, DATA - NOISE))


def test_official_gvp(here):
    angle = column(math.pi * T / 2)
    x, v = angle.sin() * DATA + angle.cos() * NOISE, math.pi / 2 * (angle.cos() * DATA - angle.sin() * NOISE)
    assert_close(here(data=DATA, noise=NOISE, t=T), (x, v))


def test_official_vp(here):
    log_alpha = column(-0.25 * (1 - T) ** 2 * (20 - 0.1) - 0.5 * (1 - T) * 0.1)
    there = log_alpha.exp() * DATA + (1 - (2 * log_alpha).exp()).sqrt() * NOISE
    assert_close(here(data=DATA, noise=NOISE, t=T), there)


def test_official_w(here):
    """sqrt(w) dW is the release's sqrt(2 D) dW."""
    norm = 0.7
    assert_close(here(path=PATH, norm=norm, t=T), 2 * norm * SIGMA)


def test_official_drift(here):
    alpha, sigma, d_alpha, d_sigma = map(column, (ALPHA, SIGMA, D_ALPHA, D_SIGMA))
    ratio = alpha / d_alpha  # its score from a velocity, by the reverse of alpha' / alpha
    score = (ratio * V - X) / (sigma**2 - ratio * d_sigma * sigma)
    assert_close(here(path=PATH, diffusion="0.3 + t", x=X, v=V, t=T), V + column(0.3 + T) * score)


def prediction():
    x_t = column(ALPHA) * DATA + column(SIGMA) * NOISE
    return model(x_t, T)


def test_official_noise_loss(here):
    there = ((prediction() - NOISE) ** 2).mean(1)
    assert_close(here(path=PATH, model=model, data=DATA, noise=NOISE, t=T), there)


SCORE_ERROR = ((column(SIGMA) * prediction() + NOISE) ** 2).mean(1)
DRIFT = D_ALPHA / ALPHA * SIGMA**2 - SIGMA * D_SIGMA


def test_official_score_loss(here):
    assert_close(here(path=PATH, model=model, data=DATA, noise=NOISE, t=T), SCORE_ERROR)


def test_official_velocity_weight(here):
    assert_close(here(path=PATH, model=model, data=DATA, noise=NOISE, t=T), (DRIFT / SIGMA) ** 2 * SCORE_ERROR)


def test_official_likelihood_weight(here):
    assert_close(here(path=PATH, model=model, data=DATA, noise=NOISE, t=T), DRIFT / SIGMA**2 * SCORE_ERROR)


def test_official_guidance(here):
    cond, uncond, x, _ = IMAGES
    eps = uncond[:, :3] + 1.5 * (cond[:, :3] - uncond[:, :3])
    assert_close(here(scale=1.5, cond=cond, uncond=uncond, x=x), torch.cat([eps, cond[:, 3:]], dim=1))


def test_official_null_class(here):
    assert here() == 1000


def test_official_learn_sigma(here):
    """The last layer's patches are n (h w) (p q c), c of both halves."""
    torch.manual_seed(0)
    network = create_model("SiT-T/4", input_size=8, in_channels=3, num_classes=10, learn_sigma=True).eval()
    torch.nn.init.normal_(network.final_layer.linear.weight)
    kept = []
    network.final_layer.register_forward_hook(lambda *args: kept.append(args[2]))
    x, t, y = torch.randn(2, 3, 8, 8), torch.rand(2), torch.tensor([1, 2])
    output = here(model=network, x=x, t=t, y=y)
    whole = rearrange(kept[0], "n (h w) (p q c) -> n c (h p) (w q)", h=2, p=4, q=4)
    assert whole.shape[1] == 6
    assert_close(output, whole[:, :3])


def recorded(path, prediction="velocity"):
    times = []

    def network(x, t, y=None):
        times.append(t[0].item())
        return x

    return Field(network, path, prediction), times


def test_official_steps(here):
    field, times = recorded(ip.linear())
    here(field=field, noise=NOISE, N=6)
    assert times == pytest.approx([*np.linspace(0, 0.96, 6)[:-1], 0.96])


def test_steps(here):
    field, times = recorded(ip.linear())
    here(field=field, noise=NOISE, N=6)
    assert times == pytest.approx(np.linspace(0, 1, 7)[:-1])


# flow_matching, as installed

SCHEDULERS = [
    (flow_matching_schedulers.CondOTScheduler(), ip.linear()),
    (flow_matching_schedulers.VPScheduler(0.2, 15.0), ip.vp(0.2, 15.0)),
]


@pytest.mark.parametrize(("scheduler", "path"), SCHEDULERS)
def test_flow_matching_state(here, scheduler, path):
    there = AffineProbPath(scheduler).sample(x_0=NOISE, x_1=DATA, t=T).x_t
    assert_close(here(path=path, data=DATA, noise=NOISE, t=T), there)


@pytest.mark.parametrize(("scheduler", "path"), SCHEDULERS)
def test_flow_matching_velocity(here, scheduler, path):
    there = AffineProbPath(scheduler).sample(x_0=NOISE, x_1=DATA, t=T).dx_t
    assert_close(here(path=path, data=DATA, noise=NOISE, t=T), there)


def assert_same_path(path, scheduler):
    found = scheduler(T)
    there = (found.alpha_t, found.sigma_t, found.d_alpha_t, found.d_sigma_t)
    assert_close((path.alpha(T), path.sigma(T), path.d_alpha(T), path.d_sigma(T)), there)


def test_flow_matching_condot(here):
    assert_same_path(here(), flow_matching_schedulers.CondOTScheduler())


def test_flow_matching_polynomial(here):
    assert_same_path(here(n=3), flow_matching_schedulers.PolynomialConvexScheduler(3))


def test_flow_matching_vp(here):
    assert_same_path(here(beta_min=0.2, beta_max=15.0), flow_matching_schedulers.VPScheduler(0.2, 15.0))


def test_flow_matching_linear_vp(here):
    assert_same_path(here(), flow_matching_schedulers.LinearVPScheduler())


def test_flow_matching_cosine(here):
    assert_same_path(here(), flow_matching_schedulers.CosineScheduler())


@pytest.mark.parametrize(("scheduler", "path"), SCHEDULERS)
def test_flow_matching_data(here, scheduler, path):
    there = AffineProbPath(scheduler).velocity_to_target(V, X, column(T))
    assert_close(here(path=path, v=V, x=X, t=T), there)


@pytest.mark.parametrize(("scheduler", "path"), SCHEDULERS)
def test_flow_matching_noise(here, scheduler, path):
    there = AffineProbPath(scheduler).velocity_to_epsilon(V, X, column(T))
    assert_close(here(path=path, v=V, x=X, t=T), there)


@pytest.mark.parametrize(("scheduler", "path"), SCHEDULERS)
def test_flow_matching_snr(here, scheduler, path):
    snr = torch.tensor([0.1, 1.0, 7.0], dtype=torch.float64)
    assert_close(here(path=path, snr=snr), scheduler.snr_inverse(snr))


def test_flow_matching_solver(here):
    there = ODESolver(lambda x, t: torch.sin(x) * t + x).sample(NOISE, step_size=1 / 5, method="midpoint")
    field = Field(lambda x, t: torch.sin(x) * column(t) + x, ip.linear())
    assert_close(here(field=field, noise=NOISE, N=5), there)


def test_flow_matching_likelihood(here):
    field = Field(lambda x, t: torch.tanh(x) * column(t), ip.linear())
    normal = torch.distributions.Normal(0.0, 1.0)
    _, there = ODESolver(lambda x, t: torch.tanh(x) * t).compute_likelihood(
        DATA.clone(), lambda x: normal.log_prob(x).sum(1), step_size=None, method="dopri5", exact_divergence=True
    )
    assert_close(here(field=field, data=DATA), there, atol=1e-3, rtol=0)


# diffusers, as installed

DDPM = diffusers.DDPMScheduler()
STEP = torch.tensor([10, 150, 400, 600, 800, 990])
A = DDPM.alphas_cumprod[STEP].double()


def test_diffusers_state(here):
    there = DDPM.add_noise(DATA, NOISE, STEP)
    assert_close(here(data=DATA, noise=NOISE, a=A), there)


def test_diffusers_state_vp(here):
    there = DDPM.add_noise(DATA, NOISE, STEP)
    assert_close(here(data=DATA, noise=NOISE, a=A), there)


def test_diffusers_betas(here):
    """log prod(1 - beta) is -sum(beta) - sum(beta^2) / 2 - ...: at most 0.07 from the integral."""
    step = torch.arange(1000, dtype=torch.float64)
    assert_close(here(step=step).log(), DDPM.alphas_cumprod.double().log(), atol=0.07, rtol=0)


def ddim(prediction_type, step, output, x, eta=0.0, z=None):
    scheduler = diffusers.DDIMScheduler(clip_sample=False, prediction_type=prediction_type)
    scheduler.set_timesteps(10)
    return scheduler.step(output, int(step), x, eta=eta, variance_noise=z)


def each_step(function):
    """Of a scheduler that takes one step for the whole batch, row by row."""
    return torch.cat([function(STEP[i], slice(i, i + 1)) for i in range(len(STEP))])


def test_diffusers_epsilon(here):
    there = each_step(lambda step, row: ddim("epsilon", step, V[row], X[row]).pred_original_sample)
    assert_close(here(output=V, x=X, a=A), there, atol=1e-5, rtol=1e-5)


def test_diffusers_sample(here):
    """The step is the same whether the network gives the data, or the noise that belongs to it."""
    noise = here(output=V, x=X, a=A)
    for name in ("prev_sample", "pred_original_sample"):
        there = each_step(lambda step, row, name=name: ddim("sample", step, V[row], X[row])[name])
        ours = each_step(lambda step, row, name=name: ddim("epsilon", step, noise[row], X[row])[name])
        assert_close(ours, there, atol=1e-5, rtol=1e-5)


def test_diffusers_v_prediction(here):
    there = DDPM.get_velocity(DATA, NOISE, STEP)
    assert_close(here(data=DATA, noise=NOISE, a=A), there, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("row", range(1, 6))
def test_diffusers_ddim(here, row):
    step, one = STEP[row], slice(row, row + 1)
    found = ddim("epsilon", step, V[one], X[one])
    a, a_prev = float(A[row]), float(DDPM.alphas_cumprod[step - 100])
    there = here(x=X[one], x_0=found.pred_original_sample, a=a, a_prev=a_prev)
    assert_close(there, found.prev_sample, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("row", "eta"), [(1, 1.0), (3, 0.4), (5, 1.0)])
def test_diffusers_eta(here, row, eta):
    step, one = STEP[row], slice(row, row + 1)
    found = ddim("epsilon", step, V[one], X[one], eta, NOISE[one])
    a, a_prev = float(A[row]), float(DDPM.alphas_cumprod[step - 100])
    there = here(x=X[one], x_0=found.pred_original_sample, a=a, a_prev=a_prev, eta=eta, z=NOISE[one])
    assert_close(there, found.prev_sample, atol=1e-6, rtol=1e-6)


def test_diffusers_lambda(here):
    scheduler = diffusers.DPMSolverMultistepScheduler()
    a = scheduler.alphas_cumprod[STEP].double()
    assert_close(here(a=a), scheduler.lambda_t[STEP].double(), atol=1e-4, rtol=1e-4)


def test_diffusers_flow_state(here):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    timesteps = scheduler.timesteps[[5, 200, 400, 600, 800, 990]]
    there = scheduler.scale_noise(DATA, timesteps, NOISE)
    assert_close(here(data=DATA, noise=NOISE, sigma=timesteps.double() / 1000), there, atol=1e-6, rtol=1e-6)


def test_diffusers_flow_sampling(here):
    scheduler, N, x = diffusers.FlowMatchEulerDiscreteScheduler(), 8, NOISE.float()
    network = lambda x, timestep: torch.sin(x) + column(timestep) / 1000  # noqa: E731
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / N, N))
    for timestep in scheduler.timesteps:
        x = scheduler.step(network(x, timestep.expand(len(x))), timestep, x).prev_sample
    assert_close(here(network=network, noise=NOISE.float(), N=N), x, atol=1e-5, rtol=1e-5)


def test_diffusers_shift(here):
    plain, shifted = (diffusers.FlowMatchEulerDiscreteScheduler(shift=shift) for shift in (1.0, 3.0))
    sigma = plain.sigmas.double().numpy()
    assert_close(torch.from_numpy(here(sigma=sigma)), shifted.sigmas.double(), atol=1e-6, rtol=1e-6)


def test_diffusers_mu(here):
    theirs, sigma = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), torch.linspace(1, 0.1, 10)
    there = theirs.time_shift(0.8, 1.0, sigma.double())
    assert_close(torch.from_numpy(here(mu=0.8, sigma=sigma.double().numpy())), there)


def test_diffusers_sigmas(here):
    theirs = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear")
    sigma = torch.tensor([14.0, 2.0, 0.3, 0.05])
    theirs.set_timesteps(sigmas=[*sigma.tolist(), 0.0])
    found = here(sigma=sigma.double(), alphas_cumprod=torch.cumprod(1 - theirs.betas.double(), 0))
    assert_close(found, theirs.timesteps.double(), atol=0.02, rtol=0)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_diffusers_guidance(here, guidance_scale):
    cond, uncond, x, _ = IMAGES
    guider = ClassifierFreeGuidance(guidance_scale=guidance_scale)
    there = guider.forward(cond, uncond).pred
    assert_close(here(guidance_scale=guidance_scale, cond=cond, uncond=uncond, x=x), there)


@pytest.mark.parametrize("guidance_scale", [0.0, 2.5])
def test_diffusers_guidance_original(here, guidance_scale):
    cond, uncond, x, _ = IMAGES
    guider = ClassifierFreeGuidance(guidance_scale=guidance_scale, use_original_formulation=True)
    there = guider.forward(cond, uncond).pred
    assert_close(here(guidance_scale=guidance_scale, cond=cond, uncond=uncond, x=x), there)


def test_diffusers_generators(here):
    """A sample's noise is its own, there by its generator, here by its number."""

    def there(seeds):
        return randn_tensor((len(seeds), 3), generator=[torch.Generator().manual_seed(seed) for seed in seeds])

    assert_close(there([7, 3, 9])[1:2], there([3]))
    field = Field(lambda x, t: -x, ip.linear())
    together = here(field=field, noise=NOISE[:3], seed=5, indices=[7, 3, 9])
    alone = here(field=field, noise=NOISE[1:2], seed=5, indices=[3])
    assert_close(together[1:2], alone)
    assert (together[0] - together[2]).abs().max() > 1e-3


# EDM: formulas of its equations, and diffusers' preconditioning

LEVELS = torch.tensor([0.01, 0.1, 0.5, 1.0, 5.0, 40.0], dtype=torch.float64)


def test_edm_state(here):
    assert_close(here(path=ip.gvp(), data=DATA, noise=NOISE, sigma=LEVELS), DATA + column(LEVELS) * NOISE)


def test_edm_steps(here):
    N, rho = 18, 7
    i = torch.arange(N, dtype=torch.float64)
    low, high = 0.002 ** (1 / rho), 80 ** (1 / rho)
    assert_close(here(i=i, N=N), (high + i / (N - 1) * (low - high)) ** rho)


def edm_levels():
    path = ip.edm()
    return path, path.sigma(T)  # alpha is 1: these are EDM's


def test_edm_score(here):
    path, sigma = edm_levels()
    assert_close(here(path=path, D=V, x=X, t=T), (V - X) / column(sigma) ** 2)


def test_edm_ode(here):
    path, sigma = edm_levels()
    assert_close(here(path=path, D=V, x=X, t=T), (X - V) / column(sigma))


def edm_scheduler():
    return diffusers.EDMEulerScheduler(sigma_data=0.5, prediction_type="epsilon")


def test_edm_network(here):
    """With F as the row has it, the denoiser gives the data."""
    F = here(data=DATA, noise=NOISE, sigma=LEVELS, sigma_data=0.5)
    x = DATA + column(LEVELS) * NOISE
    assert_close(edm_scheduler().precondition_outputs(x, F, column(LEVELS)), DATA)


def test_edm_input(here):
    x = DATA + column(LEVELS) * NOISE
    there = edm_scheduler().precondition_inputs(x, column(LEVELS))
    assert_close(here(data=DATA, noise=NOISE, sigma=LEVELS, sigma_data=0.5), there)


def test_edm_c_noise(here):
    path, sigma = edm_levels()
    assert_close(here(path=path, t=T), edm_scheduler().precondition_noise(sigma))


def test_edm_weight(here):
    path, sigma = edm_levels()
    assert_close(here(path=path, sigma_data=0.5, t=T), (sigma**2 + 0.25) / (0.5 * sigma) ** 2)


def test_edm_density(here):
    torch.manual_seed(0)
    path = ip.edm()
    levels = path.sigma(here(path=path).double()).log()
    assert scipy.stats.kstest(levels.numpy(), "norm", (-1.2, 1.2)).pvalue > 0.01


# azula: the formulas of its files


def test_azula_rectified(here):
    path = here(a=0.001, s=0.002)
    assert_close((path.alpha(1 - TAU), path.sigma(1 - TAU)), (TAU * 0.001 + (1 - TAU), TAU + (1 - TAU) * 0.002))


def test_azula_vp(here):
    path = here(a=0.001, s=0.002)
    alpha = torch.exp(math.log(0.001) * TAU**2)
    assert_close((path.alpha(1 - TAU), path.sigma(1 - TAU)), (alpha, torch.sqrt(1 - alpha**2 + 0.002**2)))


def test_azula_ve(here):
    path = here(sigma_min=1e-3, sigma_max=1e3)
    sigma = torch.exp((1 - TAU) * math.log(1e-3) + TAU * math.log(1e3))
    assert_close((path.alpha(1 - TAU), path.sigma(1 - TAU)), (torch.ones_like(TAU), sigma))


def test_azula_time(here):
    assert_close(here(path=PATH, tau=TAU), (SIGMA / ALPHA).log())


def test_azula_karras(here):
    """With the backbone's output as the row has it, the denoiser's mean is the data."""
    alpha, sigma = column(ALPHA), column(SIGMA)
    x = alpha * DATA + sigma * NOISE
    c_out, c_skip = sigma * torch.rsqrt(alpha**2 + sigma**2), alpha / (alpha**2 + sigma**2)
    assert_close(c_skip * x + c_out * here(path=PATH, data=DATA, noise=NOISE, tau=TAU), DATA)


def test_azula_eta(here):
    path, eta = ip.linear(), 0.3
    t, s = 0.4, 0.7  # in our time, from noise to data: its t and s are 0.6 and 0.3
    alpha_t, sigma_t, alpha_s, sigma_s = t, 1 - t, s, 1 - s
    tau = eta * (1 - (alpha_t / alpha_s * sigma_s / sigma_t) ** 2)
    there = alpha_s * DATA
    there = there + sigma_s * math.sqrt(1 - tau) / sigma_t * (X - alpha_t * DATA)
    there = there + sigma_s * math.sqrt(tau) * NOISE
    assert_close(here(path=path, x=X, mean=DATA, z=NOISE, tau=0.6, tau_next=0.3, eta=eta), there)


def test_azula_guidance(here):
    positive, negative, x, _ = IMAGES
    there = positive + 0.7 * (positive - negative)
    assert_close(here(omega=0.7, positive=positive, negative=negative, x=x), there)


# torchcfm: the formulas of its file


def test_torchcfm_cfm(here):
    t = column(T)
    assert_close(here(data=DATA, noise=NOISE, t=T), (t * DATA + (1 - t) * NOISE, DATA - NOISE))


def test_torchcfm_target(here):
    t, sigma = column(T), 0.1
    assert_close(here(sigma=sigma, data=DATA, noise=NOISE, t=T), t * DATA + (1 - (1 - sigma) * t) * NOISE)


def test_torchcfm_target_velocity(here):
    t, sigma = column(T), 0.1
    there = (DATA - (1 - sigma) * X) / (1 - (1 - sigma) * t)
    assert_close(here(sigma=sigma, data=DATA, x=X, t=T), there)


def test_torchcfm_vp(here):
    t = column(T)
    x = torch.cos(math.pi / 2 * t) * NOISE + torch.sin(math.pi / 2 * t) * DATA
    v = math.pi / 2 * (torch.cos(math.pi / 2 * t) * DATA - torch.sin(math.pi / 2 * t) * NOISE)
    assert_close(here(data=DATA, noise=NOISE, t=T), (x, v))


# Networks that know one data point exactly, in the convention of each: the field then gives its velocity and noise


def assert_knows(field, path, t):
    x = path.interpolate(DATA, NOISE, t)
    y = torch.zeros(len(x))
    assert_close(field.velocity(x, t, y), path.target("velocity", DATA, NOISE, t), atol=1e-5, rtol=1e-5)
    assert_close(field.data(x, t, y), DATA, atol=1e-5, rtol=1e-5)


def test_networks_lightningdit(here):
    def network(x, t, y):
        noise = (x - column(t) * DATA) / (1 - column(t))
        return DATA - noise

    assert_knows(here(model=network), ip.linear(), T)


def test_networks_repa(here):
    def network(x, t, y):
        noise = (x - (1 - column(t)) * DATA) / column(t)  # x = (1 - t) data + t noise
        return noise - DATA

    assert_knows(here(model=network), ip.linear(), T)


def test_networks_dit(here):
    def network(x, step, y):
        a = column(DDPM.alphas_cumprod.double()[step])
        return (x - a.sqrt() * DATA) / (1 - a).sqrt()

    alphas_cumprod = DDPM.alphas_cumprod.double()
    assert_knows(here(model=network, alphas_cumprod=alphas_cumprod), ip.linear_vp(), alphas_cumprod[STEP].sqrt())


# Papers on diffusion


def test_papers_alpha_bar(here):
    integral = 0.1 * TAU + 19.9 * TAU**2 / 2
    assert_close(here(tau=TAU), torch.exp(-integral))


def test_papers_vp_sde(here):
    beta = 0.1 + 19.9 * TAU
    assert_close(here(tau=TAU), [-beta / 2, beta])


def test_papers_v(here):
    phi = column(torch.linspace(0.1, 1.4, 6, dtype=torch.float64))
    there = phi.cos() * NOISE - phi.sin() * DATA
    assert_close(here(data=DATA, noise=NOISE, phi=phi[:, 0]), there)


def test_papers_gamma(here):
    """gamma(t) is all that VDM has of a schedule."""
    gamma = here(t=T)
    assert_close(torch.sigmoid(-gamma), torch.sin(math.pi * T / 2) ** 2)


def test_papers_lambda(here):
    assert_close(here(path=PATH, t=T), (ALPHA**2 / SIGMA**2).log())


def test_papers_guidance(here):
    cond, uncond, x, _ = IMAGES
    assert_close(here(w=0.5, cond=cond, uncond=uncond, x=x), 1.5 * cond - 0.5 * uncond)


def test_papers_dropout(here):
    torch.manual_seed(0)
    labels = torch.arange(10).repeat(2000)
    embedded = here(p_uncond=0.2, labels=labels)
    rows, counts = torch.unique(embedded, dim=0, return_counts=True)
    assert len(rows) == 11
    assert counts.max() / len(labels) == pytest.approx(0.2, abs=0.02)  # the null class is the most frequent


def test_papers_bits(here):
    """One Gaussian of the pixels, in the units of either: the same bits for the same dequantization."""
    images = torch.randint(60, 200, (5, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean, std = 120.0, 30.0  # of k + u
    u = (dequantize(images) + 1).double() * 127.5 + 0.5 - images  # what it has drawn
    x = (images + u) / 128 - 1
    log_p = torch.distributions.Normal(mean / 128 - 1, std / 128).log_prob(x).flatten(1).sum(1)
    there = -log_p / (4 * math.log(2)) + 7
    m, s = (mean - 0.5) / 127.5 - 1, std / 127.5

    def velocity(x, t):  # of data N(m, s^2) on the linear path
        t = t[:, None, None, None]
        variance = t**2 * s**2 + (1 - t) ** 2
        return m + (t * s**2 - (1 - t)) / variance * (x - t * m)

    bits = here(field=Field(velocity, ip.linear()), images=images)
    assert_close(bits.double(), there, atol=2e-3, rtol=0)
