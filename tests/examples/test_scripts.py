"""The scripts as a user runs them, on a network of one token an image, and what they say to a mistake."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from scripts import EXAMPLES, call

import interpolants as ip
from examples import sample
from models import create_model
from training import Field
from training.checkpoint import latest, load_field
from training.config import SamplingConfig
from training.data import digits
from training.generate import labels_of

SMALL = (
    "--model.name=SiT-T/8", "--data.batch_size=8", "--training.steps=3", "--training.checkpoint_every=2",
    "--sampling.num_samples=20", "--sampling.ode.num_steps=2", "--sampling.sde.num_steps=2",
)  # fmt: skip


def arguments(folder: Path, *flags: str) -> list[str]:
    return ["--config", str(EXAMPLES / "configs" / "digits.yaml"), "--run", str(folder), *SMALL, *flags]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    for name in ("train.py", "sample.py", "evaluate_digits.py"):
        assert call(name, *arguments(folder)) == 0
    return folder


def test_the_chain_leaves_what_it_promises(run):
    files = ("loss", "path", "samples_ode", "samples_sde", "trajectory")
    assert all((run / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in files)
    assert latest(run).step == 3
    for kind in ("ode", "sde"):
        with np.load(run / f"samples_{kind}.npz", allow_pickle=False) as content:
            assert content["samples"].shape == (20, 1, 8, 8)
            assert content["samples"].dtype == np.float32
            assert np.bincount(content["labels"]).tolist() == [2] * 10


def test_every_picture_is_whole_or_not_there(tmp_path, monkeypatch):
    """A picture that a kill may cut short is written to a stream, which is a file's of another name; see test_files."""
    saved = []

    def noted(save):
        def noting(picture, target, *how, **options):
            saved.append(target if isinstance(target, io.BytesIO) else Path(getattr(target, "name", target)))
            return save(picture, target, *how, **options)

        return noting

    monkeypatch.setattr(Figure, "savefig", noted(Figure.savefig))
    monkeypatch.setattr(Image.Image, "save", noted(Image.Image.save))
    assert call("train.py", *arguments(tmp_path, "--log.samples_every=2")) == 0
    assert call("sample.py", *arguments(tmp_path, "--sampler=ode")) == 0
    assert call("generate.py", *arguments(tmp_path, f"--output={tmp_path}/many", "--png=true")) == 0
    files = {file.name.removesuffix(".unfinished") for file in saved if isinstance(file, Path)}
    assert files >= {"path.png", "loss.png", "step-00000002.png", "samples_ode.png", "trajectory.png", "000019.png"}
    assert all(file.suffix == ".unfinished" for file in saved if isinstance(file, Path))


def test_the_samples_are_those_of_the_picture_unless_a_number_is_given(run, tmp_path, capsys):
    flags = ("--run", str(run), "--sampler=ode", f"--output={tmp_path}")
    assert call("sample.py", *flags, "--sampling.num_samples=null") == 0
    assert capsys.readouterr().out.startswith("80 samples by ODE, heun2, 2 steps, after 3 steps")
    with np.load(tmp_path / "samples_ode.npz") as content:
        assert np.bincount(content["labels"]).tolist() == [8] * 10
    assert call("sample.py", *flags) == 0
    assert capsys.readouterr().out.startswith("20 samples")  # as the settings of the run say


@pytest.mark.parametrize(
    ("classes", "num_classes", "labels"),
    [
        ("balanced", 10, [*range(10)] * 8),
        ("balanced", 1000, [*range(10)] * 8),
        ("balanced", 3, [*range(3)] * 8),
        ("balanced", 1, [0] * 100),
        ("balanced", 0, [0] * 100),
        ((207, 5, 207), 1000, [5, 207] * 8),
    ],
)
def test_a_picture_shows_all_of_the_samples_that_are_drawn_for_it(classes, num_classes, labels):
    settings = sample.as_shown(SamplingConfig(classes=classes), num_classes)
    drawn = labels_of(settings, num_classes, range(settings.count))
    assert drawn.tolist() == labels
    assert sorted(sample.first_of_each(drawn)) == [*range(len(labels))]
    assert sample.as_shown(SamplingConfig(num_samples=7), num_classes) == SamplingConfig(num_samples=7)


def test_classes_that_the_network_lacks_are_refused_though_the_picture_has_no_room_for_them():
    with pytest.raises(ValueError, match="classes must be below 12"):
        sample.as_shown(SamplingConfig(classes=(*range(11), 12)), 12)


def test_a_network_of_vectors_is_refused_by_the_commands(tmp_path, capsys):
    model = create_model("SiT-T/8", input_size=8, in_channels=1, num_classes=0, condition_dim=2)
    Field(model, ip.linear()).save_pretrained(tmp_path / "vectors")
    for name in ("sample.py", "generate.py", "likelihood.py", "reverse.py"):
        assert call(name, f"--pretrained={tmp_path}/vectors", f"--output={tmp_path}/out") == 2
        assert "got one of vectors of length 2. Sample from it in Python" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert call("train.py", "--model.condition_dim=2") == 2
    assert "No data here have vectors as conditions." in capsys.readouterr().err


@pytest.mark.parametrize("place", [".", "checkpoints", "checkpoints/step-00000003/ema.safetensors"])
def test_a_run_is_no_file_of_weights_whose_path_nobody_knows(run, place, tmp_path, capsys):
    """Else a file of a run on vp would be sampled as if it were on the linear path."""
    assert call("sample.py", f"--pretrained={run / place}", f"--output={tmp_path}") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: pretrained: must not be in a run, got ")
    assert said.endswith(f" The newest weights of it are --run {run}.\n")
    if place != ".":
        assert call("train.py", *arguments(run / place)) == 2
        assert f"run must be no folder in another run, got '{run / place}'. Set it to {run}." in capsys.readouterr().err


def test_a_checkpoint_is_sampled_with_the_settings_of_its_run(run, tmp_path, capsys):
    sampler = ("--sampler=ode", f"--output={tmp_path}")
    assert call("sample.py", f"--run={run}/checkpoints/step-00000003", *sampler) == 0
    assert "20 samples by ODE, heun2, 2 steps, after 3 steps" in capsys.readouterr().out


def test_weights_that_cannot_be_reached_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("nobody/nothing", "a/b/c"):
        assert call("sample.py", f"--pretrained={name}", f"--output={tmp_path}") == 2
        said = capsys.readouterr().err
        assert f"must be a folder that is there, or a repository of the hub that can be reached, got '{name}': " in said
        assert said.count("\n") == 1


def test_the_metrics_are_those_of_the_samples(run):
    metrics = json.loads((run / "metrics.json").read_text())
    with np.load(run / "samples_ode.npz") as content:
        samples = content["samples"].clip(-1, 1)
    distances = [min(np.linalg.norm(s - r) for r in digits("train")[0].numpy()) for s in samples]
    ode = metrics["sets"]["ode"]
    assert ode["nearest_median"] == pytest.approx(np.sort(distances)[9], rel=1e-5)
    assert ode["drawn"]["sampler"] == "ODE, heun2, 2 steps"
    assert metrics["sets"]["real, held out"]["agreement"] >= 0.97
    assert metrics["sets"]["real, training"]["frechet_pixels"] < ode["frechet_pixels"]
    assert len(metrics["one_checkpoint_many_samplers"]) == 6
    assert metrics["training"]["steps"] == 3
    assert metrics["training"]["seconds"] > 0
    assert [command.split()[1] for command in metrics["commands"]] == [
        f"examples/{name}.py" for name in ("train", "sample", "evaluate_digits")
    ]


def test_again_it_is_done_and_more_steps_resume(run, capsys):
    assert call("train.py", *arguments(run)) == 0
    assert capsys.readouterr().out.startswith(f"done: {run} has made 3 of 3 steps\n")


@pytest.mark.parametrize("name", ["sample.py", "evaluate_digits.py"])
def test_a_run_is_not_sampled_as_if_it_were_another(run, name, capsys):
    assert call(name, *arguments(run, "--path=vp", "--prediction=data")) == 2
    assert capsys.readouterr().err == (
        f"error: {run}/checkpoints/step-00000003: the run was begun with other settings: path was 'linear', is 'vp'; "
        "prediction was 'velocity', is 'data'. Restore them, or set run to a new folder.\n"
    )


def test_averages_of_any_width_are_made_after_training(tmp_path, capsys):
    flags = ("--training.ema_widths=[0.1, 0.2]", "--training.ema_snapshot_every=1")
    assert call("train.py", *arguments(tmp_path, *flags)) == 0
    made = ("--run", str(tmp_path), "--output", str(tmp_path / "made"))
    assert call("combine_ema.py", *made, "--width", "0.2") == 0
    assert "the average of width 0.2; its profile is 0.0 % off" in capsys.readouterr().out
    made_field, tracked = Field.from_pretrained(tmp_path / "made"), load_field(tmp_path, weights="ema-width-0.2")
    for name, value in tracked.model.state_dict().items():
        torch.testing.assert_close(made_field.model.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert call("combine_ema.py", *made, "--width", "0.2", "--step", "7") == 2
    assert "step must be one of the snapshots" in capsys.readouterr().err


def test_samples_of_another_checkpoint_are_not_measured(run, tmp_path, capsys):
    for kind in ("ode", "sde"):
        (tmp_path / f"samples_{kind}.npz").write_bytes((run / f"samples_{kind}.npz").read_bytes())
    assert call("train.py", *arguments(tmp_path, "--training.steps=1")) == 0
    capsys.readouterr()
    assert call("evaluate_digits.py", *arguments(tmp_path)) == 2
    assert "samples_ode.npz: the samples are not from the newest checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sample.py", "evaluate_digits.py"])
def test_without_a_checkpoint_there_is_one_clear_line(name, tmp_path, capsys):
    assert call(name, *arguments(tmp_path / "none")) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'none'}: there is no checkpoint. Train first: sit train, or examples/train.py.\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--training.stps=3"], "error: config: there is no setting 'training.stps'. Nearest: 'training.steps'.\n"),
        (["--path.alpha=t**", "--path.sigma=1-t"], "error: alpha: 't**' is not an expression"),
        (["--path.alpha=1-t", "--path.sigma=t"], "error: (1 - t, t) is no path"),
        (["--seed=1"], "the run was begun with other settings: seed was 0, is 1"),
    ],
)
def test_a_mistake_is_one_clear_line(run, flags, message, capsys):
    assert call("train.py", *arguments(run, *flags)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_w_that_no_sampler_can_use_is_one_clear_line(run, capsys):
    assert call("sample.py", *arguments(run, "--sampling.sde.w=t - 1")) == 2
    assert capsys.readouterr().err.startswith("error: w: t - 1 must be finite and >= 0 on (0, 1)")


def test_damaged_checkpoints_are_named_a_line_each(tmp_path):
    """As a user sees it: in a process of its own."""
    assert call("train.py", *arguments(tmp_path)) == 0
    older, newer = sorted((tmp_path / "checkpoints").glob("*/ema.safetensors"))
    for file in (older, newer):
        file.write_bytes(file.read_bytes()[:-1])
    command = [sys.executable, EXAMPLES / "sample.py", *arguments(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for line, file in zip(done.stderr.splitlines(), (newer, older, older), strict=True):
        assert f"{file}: damaged, its SHA-256 is not the one in checkpoint.json." in line
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["warning", "warning", "error"]


def test_sigterm_saves_and_the_same_command_resumes(tmp_path, capsys):
    flags = arguments(tmp_path, "--training.steps=100000", "--training.checkpoint_every=100000")
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "train.py", *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not ((log := tmp_path / "metrics.jsonl").exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    step = latest(tmp_path).step
    _, stopped = said.splitlines()  # after what is trained
    assert stopped == f"stopped by SIGTERM after step {step} of 100000, saved. The same command resumes."
    assert call("train.py", *arguments(tmp_path, f"--training.steps={step + 1}")) == 0
    assert latest(tmp_path).step == step + 1


def test_the_settings_can_be_printed(capsys):
    assert call("train.py", "--print_config") == 0
    assert "steps: " in capsys.readouterr().out
