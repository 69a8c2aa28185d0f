import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models import SiT, create_model, save_official
from models.blocks import Style
from training import checkpoint, trainer
from training.checkpoint import CheckpointError, latest, load_field
from training.config import Config, DataConfig, ModelConfig, ODEConfig, PathText, TrainingConfig
from training.ema import combine
from training.loss_scale import LossScale
from training.record import LogConfig, read_log
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]
STEPS = 7
SETTINGS = TrainingConfig(steps=STEPS, warmup_steps=4, checkpoint_every=2, ema_decays=(0.9,))


def tiny(folder, **training) -> Config:
    """One token an image, so that a step takes milliseconds."""
    return Config(
        run=str(folder),
        model=ModelConfig(name="SiT-T/8"),
        data=DataConfig(batch_size=8),
        training=dataclasses.replace(SETTINGS, **training),
        log=LogConfig(every=1),
    )


def state(trainer: Trainer) -> dict[tuple, bytes]:
    """Every bit that the next step depends on."""
    states = {
        "model": trainer.model.state_dict(),
        **{name: average.state_dict() for name, average in trainer.averages.items()},
        **trainer.optimizer.state_dict()["state"],
    }
    return {(of, name): value.numpy().tobytes() for of, tensors in states.items() for name, value in tensors.items()}


def log_of(trainer: Trainer) -> list[dict[str, float]]:
    measured = ("seconds", "seconds_per_step", "images_per_second", "peak_memory_gib")
    return [{k: v for k, v in line.items() if k not in measured} for line in read_log(trainer.metrics_file)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    trainer = Trainer(tiny(tmp_path_factory.mktemp("run")))
    assert trainer.fit()
    return trainer


def after(trainer: Trainer, step: int, action) -> Trainer:
    """The trainer, with ``action`` called at the end of a step."""
    original = trainer.train_step

    def train_step():
        line = original()
        if trainer.step == step:
            action()
        return line

    trainer.train_step = train_step
    return trainer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_stopped_run_goes_on_to_the_bit(tmp_path, capsys, undisturbed, step, number):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stopped = after(Trainer(tiny(tmp_path)), step, lambda: os.kill(os.getpid(), number))
    assert not stopped.fit()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    said = capsys.readouterr().out
    assert said.splitlines()[1:] == [
        f"stopped by {number.name} after step {step} of {STEPS}, saved. The same command resumes."
    ]
    assert latest(tmp_path).step == step
    resumed = Trainer(tiny(tmp_path))
    assert resumed.step == step
    assert resumed.seconds == stopped.seconds
    assert state(resumed) == state(stopped)
    assert resumed.fit()
    assert state(resumed) == state(undisturbed)
    assert log_of(resumed) == log_of(undisturbed)


def test_a_compiled_run_in_bfloat16_goes_on_to_the_bit_and_is_near_the_other(tmp_path, monkeypatch, undisturbed):
    compile_blocks, compiled = SiT.compile_blocks, []

    def with_a_quick_backend(model):
        compiled.append(model)
        return compile_blocks(model, backend="aot_eager")

    monkeypatch.setattr(SiT, "compile_blocks", with_a_quick_backend)
    narrow = {"precision": "bfloat16", "compile": True}
    whole = Trainer(tiny(tmp_path / "whole", **narrow))
    assert compiled == [whole.model]
    assert whole.fit()
    assert Trainer(tiny(tmp_path / "parts", **narrow, steps=3)).fit()
    resumed = Trainer(tiny(tmp_path / "parts", **narrow))
    assert resumed.fit()
    assert state(resumed) == state(whole)
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}
    losses, exact = ([line["loss"] for line in log_of(trainer)] for trainer in (whole, undisturbed))
    assert losses == pytest.approx(exact, rel=0.02)
    assert losses != exact
    with pytest.raises(CheckpointError, match=r"training\.precision"):
        Trainer(tiny(tmp_path / "whole", compile=True))
    with pytest.raises(
        ValueError, match=r"training\.precision must be one of float32, tf32, bfloat16, float16, got 'half'"
    ):
        tiny(tmp_path, precision="half")


def test_tf32_is_of_the_products_of_training_alone_and_for_gpus(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"training\.precision must be float32 or bfloat16 on this device, cpu, got"):
        Trainer(tiny(tmp_path, precision="tf32"))
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(trainer, "require_tf32", lambda *_: None)  # it trains here too: the flags are of GPUs
    flags, during = (torch.backends.cuda.matmul, torch.backends.cudnn), []
    before = [flag.allow_tf32 for flag in flags]
    started = Trainer(tiny(tmp_path, precision="tf32", steps=1))
    clipped = started._clipped_norm  # between the backward pass and the step
    monkeypatch.setattr(
        started, "_clipped_norm", lambda: during.append([flag.allow_tf32 for flag in flags]) or clipped()
    )
    assert started.fit()
    assert during == [[True, True]]
    assert [flag.allow_tf32 for flag in flags] == before
    assert before[0] is False


class KillError(BaseException):
    """What no code expects."""


def test_a_killed_run_loses_only_the_steps_after_its_checkpoint(tmp_path, undisturbed):
    def kill():
        raise KillError

    killed = after(Trainer(tiny(tmp_path)), 6, kill)  # The checkpoint of step 6 is not yet written.
    with pytest.raises(KillError):
        killed.fit()
    with killed.metrics_file.open("a") as log:
        log.write('{"step": 6, "lo')
    resumed = Trainer(tiny(tmp_path))
    assert resumed.step == 4
    assert resumed.fit()
    assert state(resumed) == state(undisturbed)
    assert log_of(resumed) == log_of(undisturbed)


def test_an_extended_run_is_one_that_was_so_from_the_start(tmp_path, undisturbed):
    assert Trainer(tiny(tmp_path, steps=3)).fit()
    extended = Trainer(tiny(tmp_path, checkpoint_every=5, keep=1))
    assert extended.fit()
    assert state(extended) == state(undisturbed)


def test_a_complete_run_says_so_and_is_left_alone(undisturbed, capsys):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.run.rglob("*")}
    again = Trainer(undisturbed.config)
    assert again.fit()
    assert capsys.readouterr().out == f"done: {undisturbed.run} has made {STEPS} of {STEPS} steps\n"
    assert {p: p.stat().st_mtime_ns for p in undisturbed.run.rglob("*")} == before


def test_the_log_has_a_line_a_step_and_the_learning_rate_rises(undisturbed):
    lines = read_log(undisturbed.metrics_file)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["learning_rate"] for line in lines] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3, 1e-3])
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert all(line["grad_norm"] > 0 for line in lines)


def test_a_step_is_adamw_on_the_clipped_gradient_of_the_mean_loss(tmp_path):
    """The first step of AdamW in closed form: -lr g / (|g| + eps), whatever the length of g."""
    trainer = Trainer(tiny(tmp_path, warmup_steps=0, clip_norm=1e-3, learning_rate=0.01))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    line = trainer.train_step()
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert torch.cat([g.flatten() for g in gradients.values()]).norm().item() == pytest.approx(1e-3, rel=1e-4)
    assert line["grad_norm"] > 1e-3
    for name, parameter in trainer.model.named_parameters():
        g = gradients.get(name, torch.zeros_like(parameter))
        expected = before[name] - 0.01 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-7)


def test_the_seed_decides(tmp_path):
    lines = []
    for seed in (0, 0, 1):
        trainer = Trainer(dataclasses.replace(tiny(tmp_path), seed=seed))
        torch.rand(seed + len(lines))  # What others drew before does not matter.
        lines.append(trainer.train_step())
    assert lines[0] == lines[1] != lines[2]


def test_it_learns(tmp_path):
    trainer = Trainer(tiny(tmp_path, steps=150))
    losses = [trainer.train_step()["loss"] for _ in range(150)]
    # A network that has learnt nothing returns 0 and has the loss E|data - noise|^2 / d = E data^2 + 1.
    nothing = trainer.source.images.square().mean().item() + 1
    assert sum(losses[:3]) / 3 == pytest.approx(nothing, rel=0.1)
    assert sum(losses[-30:]) / 30 < 0.75 * nothing


def spoilt(trainer: Trainer, *steps: int) -> Trainer:
    """The trainer, with a loss that is not a number in these steps, the first of which is 1."""
    original = trainer.config.loss()
    trainer.loss.at = lambda *given: original.at(*given) * (float("nan") if trainer.step + 1 in steps else 1.0)
    return trainer


def test_a_loss_that_is_not_finite_stops_the_run_before_it_does_harm(tmp_path):
    trainer = spoilt(Trainer(tiny(tmp_path)), 5)
    with pytest.raises(FloatingPointError, match=r"loss and gradient must be finite, got nan .* at step 5") as caught:
        trainer.fit()
    assert "\n" not in str(caught.value)
    assert state(Trainer(tiny(tmp_path))) == state(trainer)
    batch = load_file(tmp_path / "nonfinite-step-00000005" / "process-0.safetensors")
    assert str(tmp_path / "nonfinite-step-00000005") in str(caught.value)
    shown = trainer.source.images[trainer.order.indices(4)]
    assert torch.equal(batch["data"], shown)
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "data": (8, 1, 8, 8),
        "noise": (8, 1, 8, 8),
        "t": (8,),
        "y": (8,),
    }


def test_so_many_steps_may_be_left_out(tmp_path, capsys):
    """And no more, over all parts of a run. A step that is left out changes nothing, and is passed."""
    config = tiny(tmp_path, max_skipped=2)
    trainer = spoilt(Trainer(config), 3, 5, 6)
    for _ in range(2):
        trainer.train_step()
    before = state(trainer)
    line = trainer.train_step()
    assert state(trainer) == before
    assert (trainer.step, trainer.skipped) == (3, 1)
    assert math.isnan(line["loss"])
    with pytest.raises(FloatingPointError, match="at step 6"):
        trainer.fit()
    lines = read_log(trainer.metrics_file)
    assert (lines[-1]["step"], lines[-1]["loss"], lines[-1]["grad_norm"]) == (5, None, None)
    assert capsys.readouterr().out == "step 5 left out: loss nan, gradient norm nan\n"
    resumed = spoilt(Trainer(config), 5, 6)
    assert (resumed.step, resumed.skipped) == (4, 1)
    with pytest.raises(FloatingPointError, match="at step 6"):
        resumed.fit()


def test_half_precision_scales_the_loss_and_not_the_step(tmp_path, undisturbed):
    """Overflow halves the scale and leaves the step out, uncounted; without it the steps are those of float32."""
    whole = Trainer(tiny(tmp_path / "whole", precision="float16"))
    assert whole.loss_scale.value == 2.0**16
    assert whole.fit()
    losses, exact = ([line["loss"] for line in log_of(trainer)] for trainer in (whole, undisturbed))
    assert losses == pytest.approx(exact, rel=0.02)
    norms, exact = ([line["grad_norm"] for line in log_of(trainer)] for trainer in (whole, undisturbed))
    assert norms == pytest.approx(exact, rel=0.05)
    parts = Trainer(tiny(tmp_path / "parts", precision="float16", steps=3))
    parts.loss_scale.value = 2.0**128
    before = state(parts)
    assert not math.isfinite(parts.train_step()["grad_norm"])
    assert state(parts) == before
    assert (parts.loss_scale.value, parts.skipped) == (2.0**127, 0)
    assert parts.fit()
    assert Trainer(tiny(tmp_path / "parts", precision="float16", steps=3)).loss_scale.value == parts.loss_scale.value


def test_the_loss_scale_is_halved_at_an_overflow_and_doubled_after_many_steps_without():
    scale = LossScale(8.0)
    for finite in [True] * 1999 + [False] + [True] * 1999:
        scale.update(finite)
    assert scale == LossScale(4.0, 1999)
    scale.update(True)
    assert scale == LossScale(8.0, 0)
    for _ in range(5):
        scale.update(False)
    assert scale.value == 1.0


def test_all_averages_and_their_snapshots_come_with_the_run_and_go_on_to_the_bit(tmp_path):
    settings = {"ema_decays": (0.9, 0.5), "ema_widths": (0.1, 0.2), "ema_snapshot_every": 3}
    whole = Trainer(tiny(tmp_path / "whole", **settings))
    assert whole.fit()
    assert list(whole.averages) == ["ema", "ema-0.5", "ema-width-0.1", "ema-width-0.2"]
    assert Trainer(tiny(tmp_path / "parts", **settings, steps=4)).fit()
    resumed = Trainer(tiny(tmp_path / "parts", **settings))
    assert resumed.fit()
    assert state(resumed) == state(whole)
    for name in ("step-00000003.safetensors", "step-00000006.safetensors"):
        files = [tmp_path / part / "snapshots" / name for part in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes()
    found, distance = combine(tmp_path / "whole", 0.2, 6)
    assert distance < 1e-6
    assert found.keys() == whole.model.state_dict().keys()


def test_activation_checkpointing_changes_no_bit(tmp_path, undisturbed):
    trainer = Trainer(tiny(tmp_path, activation_checkpointing=True))
    assert trainer.model.activation_checkpointing
    assert trainer.fit()
    assert state(trainer) == state(undisturbed)


def test_samples_are_drawn_in_passing_and_change_nothing(tmp_path, undisturbed):
    """Of the average, from the same noise each time."""
    config = tiny(tmp_path)
    sampling = dataclasses.replace(config.sampling, ode=ODEConfig("euler", 2))
    trainer = Trainer(
        dataclasses.replace(config, sampling=sampling, log=LogConfig(every=1, samples_every=3, samples=12))
    )
    assert trainer.fit()
    assert state(trainer) == state(undisturbed)
    assert sorted(file.name for file in (tmp_path / "samples").iterdir()) == ["step-00000003.png", "step-00000006.png"]
    picture = np.asarray(Image.open(tmp_path / "samples" / "step-00000006.png"))[..., 0]
    field = load_field(tmp_path / "checkpoints" / "step-00000006")
    noise = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = noise
    for t in (0.0, 0.5):
        samples = samples + 0.5 * field.velocity(samples, torch.full((12,), t), y=torch.arange(12) % 10)
    pixels = ((samples.clamp(-1, 1) + 1) * 127.5).round()[:, 0]
    below = 20  # of the margin: the images are 64 pixels wide, with 8 between them, in one column a class
    rows = [picture[-below - height : -below - height + 64] for height in (136, 64)]
    shown = [row[4::8, 20 + 72 * k + 4 : 20 + 72 * k + 64 : 8] for row in rows for k in range(10)]
    np.testing.assert_allclose(shown[:12], pixels, atol=2.1)  # the colour map has 256 shades
    assert (np.array(shown[12:]) == 255).all()  # blank


def test_noise_is_exchanged_within_the_classes_of_a_batch(tmp_path):
    """Beside the step of independent noise: the same noise, in another order, nearer to the data of its class."""
    drawn = []
    for coupling in ("independent", "ot"):
        config = dataclasses.replace(tiny(tmp_path), coupling=coupling, data=DataConfig(batch_size=40))
        trainer = Trainer(config)
        batch = trainer._read()
        drawn.append(trainer._drawn(batch))
    plain, paired = drawn
    assert torch.equal(plain.data, paired.data)
    assert torch.equal(plain.t, paired.t)
    assert torch.equal(plain.y, paired.y)  # the same labels are dropped
    rows = (paired.noise[:, None] == plain.noise).flatten(2).all(2).nonzero()
    assert rows[:, 0].tolist() == list(range(40))
    assert sorted(rows[:, 1].tolist()) == list(range(40))
    assert torch.equal(batch.labels[rows[:, 0]], batch.labels[rows[:, 1]])
    distances = [(each.data - each.noise).square().sum() for each in drawn]
    assert distances[1] < distances[0]


def test_a_run_whose_disk_is_full_says_so_and_goes_on_later(tmp_path, undisturbed):
    """By the limit of a file's size, in a process of its own."""
    code = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[2]); from test_trainer import Trainer, tiny\n"
        "trainer = Trainer(tiny(sys.argv[1])); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for _ in range(4): trainer.train_step()\n"
        "trainer.save(); trainer._writer.wait()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); trainer.fit()"
    )
    command = [sys.executable, "-c", code, tmp_path, Path(__file__).parent]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert "cannot be written" in done.stderr
    assert "File too large" in done.stderr
    resumed = Trainer(tiny(tmp_path))
    assert resumed.step == 4
    assert resumed.fit()
    assert state(resumed) == state(undisturbed)


def test_other_settings_are_refused_by_name(tmp_path):
    config = tiny(tmp_path, steps=1)
    Trainer(config).fit()
    changed = dataclasses.replace(config, seed=3, training=dataclasses.replace(config.training, learning_rate=0.5))
    with pytest.raises(CheckpointError) as caught:
        Trainer(changed)
    message = str(caught.value)
    assert "seed was 0, is 3; training.learning_rate was 0.001, is 0.5." in message
    assert "\n" not in message
    with pytest.raises(CheckpointError, match=r"path was 'linear', is None; path\.alpha was None, is 't"):
        Trainer(dataclasses.replace(config, path=PathText("t**2", "1 - t")))


def test_what_does_not_change_the_weights_may_change(tmp_path):
    config = tiny(tmp_path, steps=1)
    Trainer(config).fit()
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    sampling = dataclasses.replace(config.sampling, num_samples=5)
    settings = dataclasses.replace(config.training, steps=2, keep=5, checkpoint_every=9)
    assert (
        Trainer(
            dataclasses.replace(config, run=str(moved), sampling=sampling, training=settings, log=LogConfig(every=3))
        ).step
        == 1
    )


def on_images(tmp_path, steps=1, folder="images") -> Config:
    """A run on two classes of three images each, which are made where there are none."""
    for number in [] if (tmp_path / folder).exists() else range(6):
        kind = tmp_path / folder / ("cats" if number < 3 else "dogs")
        kind.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(kind / f"{number}.png")
    return dataclasses.replace(
        tiny(tmp_path / "run", steps=steps),
        model=ModelConfig(name="SiT-T/8", in_channels=3),
        data=DataConfig(name="folder", source=str(tmp_path / folder), batch_size=4),
    )


def test_a_run_knows_its_data_again_wherever_they_lie(tmp_path):
    Trainer(on_images(tmp_path)).fit()
    (tmp_path / "images").rename(tmp_path / "moved")
    (tmp_path / "moved" / "dogs" / ".ipynb_checkpoints").mkdir()
    moved = Trainer(on_images(tmp_path, steps=2, folder="moved"))
    assert moved.step == 1
    assert moved.fit()


def test_the_default_dtype_of_torch_does_not_change_a_run(tmp_path, undisturbed):
    torch.set_default_dtype(torch.float64)
    try:
        trainer = Trainer(tiny(tmp_path))
        assert trainer.fit()
        assert load_field(tmp_path).model.pos_embed.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert torch.isfinite(torch.tensor([line["loss"] for line in log_of(trainer)])).all()


def test_images_that_are_no_squares_are_trained_on_and_resumed(tmp_path):
    config = on_images(tmp_path)
    oblong = dataclasses.replace(
        config.model, name="SiT-T/4", input_size=(8, 4), qk_norm=True, rope=True, learn_sigma=True
    )
    config = dataclasses.replace(config, model=oblong)
    trainer = Trainer(config)
    assert trainer.fit()
    assert trainer.model.input_shape == trainer.source.shape == (3, 8, 4)
    assert trainer.model.config.style == Style(rope=True, qk_norm=True)
    field = load_field(config.run)
    assert field.model.config.learn_sigma
    assert field.velocity(torch.randn(2, 3, 8, 4), 0.5, torch.tensor([0, 1])).shape == (2, 3, 8, 4)
    more = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=2))
    assert Trainer(more).step == 1
    with pytest.raises(CheckpointError, match=r"model\.rope was True, is None"):
        Trainer(dataclasses.replace(more, model=dataclasses.replace(oblong, rope=None)))


@pytest.mark.parametrize("source", ["run", "checkpoint", "folder", "official"])
def test_a_run_begins_from_weights_that_are_there(tmp_path, source):
    first = Trainer(tiny(tmp_path / "first", steps=2))
    first.fit()
    folder = {
        "run": tmp_path / "first", "checkpoint": tmp_path / "first" / "checkpoints" / "step-00000002",
        "folder": tmp_path / "saved", "official": tmp_path / "official.pt",
    }[source]  # fmt: skip
    field = load_field(tmp_path / "first")
    if source == "folder":
        field.save_pretrained(folder)
    if source == "official":
        save_official(field.model, folder)
    config = dataclasses.replace(tiny(tmp_path / "second", steps=2, learning_rate=0.1), init=str(folder))
    second = Trainer(config)
    weights = field.model.state_dict()
    assert second.step == 0
    for model in (second.model, second.averages["ema"].module):
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    second.fit()
    again = Trainer(
        dataclasses.replace(config, init=None, training=dataclasses.replace(config.training, steps=3, keep=5))
    )
    assert again.step == 2
    assert not torch.equal(again.model.state_dict()["final_layer.linear.weight"], weights["final_layer.linear.weight"])
    again.fit()
    told = (tmp_path / "second" / "log.txt").read_text()
    assert f"with other settings: init was '{folder}', is None; training.keep was 2, is 5; training.steps was 2" in told


def test_weights_of_another_network_are_refused_and_of_another_task_said(tmp_path):
    Trainer(tiny(tmp_path / "first", steps=1)).fit()
    config = dataclasses.replace(tiny(tmp_path / "second"), init=str(tmp_path / "first"))
    with pytest.raises(
        ValueError, match=r"^init: the weights of .*first must be .*embedding_table.weight \(11, .*, not \("
    ):
        Trainer(dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=12)))
    with pytest.warns(
        UserWarning, match="predicts the velocity on the path linear, and is trained from here to predict"
    ):
        Trainer(dataclasses.replace(config, prediction="noise"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Trainer(dataclasses.replace(config, init=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("older", [False, True])
def test_other_data_are_refused_by_what_differs(tmp_path, older, monkeypatch):
    with monkeypatch.context() as patch:
        if older:  # versions that kept no fingerprint
            whole_snapshot = checkpoint.snapshot
            patch.setattr(checkpoint, "snapshot", lambda **kept: without_data(whole_snapshot(**kept)))
        Trainer(on_images(tmp_path)).fit()
    (tmp_path / "images" / "birds").mkdir()
    (tmp_path / "images" / "cats" / "0.png").rename(tmp_path / "images" / "birds" / "0.png")
    if older:
        assert Trainer(on_images(tmp_path, steps=2)).step == 1
        with pytest.raises(CheckpointError, match=r"data.source was '.*/images', is '.*/others'"):
            Trainer(on_images(tmp_path, steps=2, folder="others"))
        return
    with pytest.raises(CheckpointError) as caught:
        Trainer(on_images(tmp_path, steps=2))
    assert (
        "the run was begun with other data: class 'birds' is new; class 'cats' was 0, is 1; class 'cats' had 3 "
        "examples, has 2; class 'dogs' was 1, is 2. Restore them, or set run to a new folder."
    ) in str(caught.value)


def without_data(kept):
    return dataclasses.replace(kept, meta={name: value for name, value in kept.meta.items() if name != "data"})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelConfig(name="SiT-T/3"), r"create_model: name must be one of .*, got 'SiT-T/3'"),
        (ModelConfig(class_dropout=2.0), r"SiT: class_dropout must be in \[0, 1\], got 2.0"),
        (ModelConfig(input_size=16), r"must be those of the data, \(1, 8, 8\), got \(1, 16, 16\)"),
        (ModelConfig(in_channels=3), r"must be those of the data, \(1, 8, 8\), got \(3, 8, 8\)"),
        (
            ModelConfig(num_classes=9),
            "model.num_classes must be at least 10, as the data have so many, or 0 to leave them out, got 9",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        Trainer(dataclasses.replace(tiny(tmp_path), model=model))


def test_classes_that_the_data_lack_are_told(tmp_path):
    with pytest.warns(UserWarning, match="num_classes is 12, and the data have 10 classes.* Set it to 10"):
        Trainer(dataclasses.replace(tiny(tmp_path), model=ModelConfig(name="SiT-T/8", num_classes=12)))


def test_it_trains_outside_of_the_main_thread_too(tmp_path):
    trainer = Trainer(tiny(tmp_path, steps=1))
    results = []
    thread = threading.Thread(target=lambda: results.append(trainer.fit()))
    thread.start()
    thread.join()
    assert results == [True]


def test_what_a_killed_write_left_is_removed_at_the_start(tmp_path):
    Trainer(tiny(tmp_path, steps=1)).fit()
    leftover = tmp_path / "checkpoints" / ".unfinished-step-00000002"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    Trainer(tiny(tmp_path))
    assert not leftover.exists()


def test_the_checkpoint_says_how_it_was_made(undisturbed):
    meta = latest(undisturbed.run).meta
    assert meta["config"] == json.loads(json.dumps(dataclasses.asdict(undisturbed.config)))
    assert meta["state"]["seconds"] == undisturbed.seconds > 0


def test_an_image_that_cannot_be_read_is_said_once_and_listed_once(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for number in range(7):
        Image.fromarray(np.full((8, 8), 10 * number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    name = os.fsdecode(b"7\xff.png")  # a name that is no text
    (tmp_path / "images" / name).write_bytes(b"damaged")
    config = dataclasses.replace(
        tiny(tmp_path / "run", steps=5),
        model=ModelConfig(name="SiT-T/8", num_classes=0),
        data=DataConfig(name="folder", source=str(tmp_path / "images"), batch_size=8),
    )
    Trainer(config).fit()  # five times through all images
    again = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=8))
    Trainer(again).fit()
    (line,) = (tmp_path / "run" / "unreadable.txt").read_text().splitlines()
    assert line.startswith(rf"{tmp_path}/images/7\udcff.png: ")
    out = capsys.readouterr().out.splitlines()
    parameters = sum(
        p.numel() for p in create_model("SiT-T/8", input_size=8, in_channels=1, num_classes=0).parameters()
    )
    first = f"SiT-T/8, {parameters:,} parameters, no classes; 8 examples of 1 x 8 x 8 (channels, height, width)"
    assert [line for line in out if "examples of" in line] == [first]  # of the fresh run; the resumed one is the same
    assert first in (tmp_path / "run" / "log.txt").read_text()
    said = [line for line in out if "unreadable" in line]
    assert said == [f"unreadable examples are left out, and listed in {tmp_path}/run/unreadable.txt"] * 2  # each start
