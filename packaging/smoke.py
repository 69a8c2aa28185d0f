"""What an installation must do, with nothing else in its environment: ``python -I smoke.py interpolants training``.

Run from a folder without the sources, by packaging/check.py. One line a check; the first that fails ends it.
"""

import importlib
import pkgutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

import interpolants as ip

CHECKS = {"interpolants": [], "training": []}


def check(name):
    """Add a function to the checks of one distribution."""
    return lambda function: CHECKS[name].append(function) or function


def run(*arguments, code=0):
    """A module as a command: what it printed. It must exit with ``code``, without a traceback."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def refuses(extra, function, *arguments):
    """Without the extra, a call says how to install it."""
    try:
        function(*arguments)
    except ImportError as error:
        said = str(error)
    else:
        raise AssertionError(f"{function} works without the extra {extra}")
    assert f"sit-interpolants[{extra}]" in said, said


def carries_its_facts(name, *packages):
    """The version, the licence and the markers of types of a distribution."""
    distribution = metadata.distribution(name)
    assert distribution.version == ip.__version__, distribution.version
    files = {str(file) for file in distribution.files}
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in files), files
    assert {f"{package}/py.typed" for package in packages} <= files
    assert not any(file.startswith(("tests/", "docs/", "examples/")) for file in files)


@check("interpolants")
def version_licence_and_types():
    """Of the distribution with the mathematics."""
    carries_its_facts("sit-interpolants", "interpolants")


@check("interpolants")
def every_module_imports_without_extras():
    """But those of the explorer, whose command names its extra."""
    for module in pkgutil.walk_packages(ip.__path__, "interpolants."):
        if not module.name.startswith("interpolants.explorer") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    if find_spec("matplotlib") is None:
        refuses("plot", ip.linear().plot)
    if find_spec("plotly") is None:
        assert "sit-interpolants[explore]" in run("interpolants", "explore", "--html", "page.html", code=2)


@check("interpolants")
def a_path_is_derived_and_proved():
    """By the command too, which refuses what is no path."""
    path = ip.Path("sin(pi*t/2)", "cos(pi*t/2)")
    assert str(path.wronskian.expr) == "pi/2", path.wronskian.expr
    printed = run("interpolants", "t", "1-t")
    assert "proved" in printed
    assert "failed" not in printed
    assert "(t, t) is no path" in run("interpolants", "t", "t", code=2)


@check("interpolants")
def a_network_of_ones_own_learns():
    """The best affine velocity of Gaussian data at t = 1/2 is known: x -> (v - 1) / (v + 1) * 2 * x."""
    torch.manual_seed(0)
    path, network = ip.linear(), torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(300):
        data, noise, t = 2 * torch.randn(4096, 1), torch.randn(4096, 1), torch.full((4096,), 0.5)
        error = network(path.interpolate(data, noise, t)) - path.target("velocity", data, noise, t)
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    assert abs(network.weight.item() - 1.2) < 0.05, network.weight
    assert abs(network.bias.item()) < 0.1, network.bias


@check("interpolants")
def ode_and_sde_draw_from_the_mixture():
    """With its exact velocity: mean and variance of the samples are those of the data."""
    torch.manual_seed(0)
    path, steps = ip.gvp(), 100
    means, stds, weights = torch.tensor([[-2.0], [1.0]]).double(), torch.tensor([0.3, 0.5]), torch.tensor([0.4, 0.6])
    mixture = ip.oracle.GaussianMixture(means, stds.double(), weights.double())
    ode, sde = path.ode("velocity"), path.sde("velocity", w=ip.diffusion.sigma())
    x = y = torch.randn(20_000, 1, dtype=torch.float64)
    for step in range(steps):
        t = torch.full((), step / steps, dtype=torch.float64)
        x = x + ode.drift(x, mixture.velocity(x, t, path), t) / steps
        noise = torch.randn_like(y) * steps**-0.5
        y = y + sde.drift(y, mixture.velocity(y, t, path), t) / steps + sde.diffusion(t) * noise
    mean = 0.4 * -2.0 + 0.6 * 1.0
    variance = 0.4 * (0.3**2 + 4.0) + 0.6 * (0.5**2 + 1.0) - mean**2
    for samples in (x, y):
        assert abs(samples.mean().item() - mean) < 0.06, samples.mean()
        assert abs(samples.var().item() / variance - 1) < 0.06, samples.var()


@check("training")
def version_licence_types_and_the_other_distribution():
    """Of the distribution with the networks, and that it wants the mathematics of its own version."""
    carries_its_facts("sit-interpolants-training", "models", "training", "sit")
    requires = metadata.requires("sit-interpolants-training")
    assert requires == [f"sit-interpolants[training]=={ip.__version__}"], requires


@check("training")
def a_step_lowers_the_loss_and_samplers_run():
    """Also a Field written to a folder and read back."""
    from models import create_model
    from training import Field, InterpolantLoss, sample_ode, sample_sde

    torch.manual_seed(0)
    model = create_model("SiT-T/2", input_size=8, in_channels=1, num_classes=10)
    loss, data, y = InterpolantLoss(ip.linear()), torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(20):
        torch.manual_seed(1)  # the same noise, times and dropped labels in each step
        losses.append(loss(model, data, y=y).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0], losses
    field, noise, y = Field(model.eval(), ip.linear(), guidance_scale=1.5), torch.randn(4, 1, 8, 8), torch.arange(4)
    for method in ("adams_pc2", "heun2"):  # derived, and torchdiffeq's
        assert sample_ode(field, noise, num_steps=4, method=method, y=y).isfinite().all()
    for method in ("euler", "srk"):  # derived, and torchsde's
        images = sample_sde(field, noise, w=ip.diffusion.sigma(), num_steps=4, seed=0, method=method, y=y)
        assert images.isfinite().all()
    with tempfile.TemporaryDirectory() as folder:
        Field(model, ip.linear()).save_pretrained(folder, license="mit")
        again = Field.from_pretrained(folder)
    t = torch.full((4,), 0.3)
    assert torch.equal(again.velocity(noise, t, y=y), Field(model, ip.linear()).velocity(noise, t, y=y))


@check("training")
def the_command_trains():
    """By a configuration that comes along, in a folder without a repository; and it says its version."""
    (script,) = metadata.entry_points(group="console_scripts", name="sit")
    assert script.dist.name == "sit-interpolants-training"
    assert callable(script.load())
    assert ip.__version__ in run("sit", "--version")
    with tempfile.TemporaryDirectory() as folder:
        small = ("--model.name=SiT-T/8", "--data.batch_size=8", "--training.steps=2")
        run("sit", "train", "--config", "digits", f"--run={folder}/run", *small)
        assert list(Path(folder, "run", "checkpoints").iterdir())
    assert "train" in run("sit", "trains", code=2)


@check("training")
def extras_that_are_missing_are_named():
    """One that the networks know and one that the data knows, where they are not installed."""
    from models import create_model, quantize
    from training.autoencoder import Autoencoder

    if find_spec("torchao") is None:
        refuses("quantize", quantize, create_model("SiT-T/2", input_size=8), "int8")
    if find_spec("diffusers") is None:
        refuses("vae", Autoencoder, Path.cwd())


def main(names):
    """Run the checks of the distributions named."""
    print(f"  Python {sys.version.split()[0]}, " + ", ".join(map(installed, ("torch", "numpy", "sympy", "mpmath"))))
    here = Path.cwd()
    assert not (here / "interpolants").exists(), f"{here} holds the sources"
    for name in names:
        for function in CHECKS[name]:
            start = time.perf_counter()
            function()
            print(f"  ok: {function.__name__.replace('_', ' ')}, {time.perf_counter() - start:.1f} s", flush=True)


def installed(name):
    """A package with the version that is imported."""
    return f"{name} {importlib.import_module(name).__version__}"


if __name__ == "__main__":
    main(sys.argv[1:])
