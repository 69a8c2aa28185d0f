import dataclasses
import json
import os
import signal
import threading

import pytest
import torch

from models import SiT
from training.checkpoint import CheckpointError, latest
from training.config import Config, DataConfig, ModelConfig, PathText, TrainingConfig
from training.trainer import Trainer, read_log

STEPS = 7
SETTINGS = TrainingConfig(steps=STEPS, warmup_steps=4, checkpoint_every=2, log_every=1, ema_decay=0.9)


def tiny(folder, **training) -> Config:
    """One token an image, so that a step takes milliseconds."""
    return Config(
        run=str(folder),
        model=ModelConfig(name="SiT-T/8"),
        data=DataConfig(batch_size=8),
        training=dataclasses.replace(SETTINGS, **training),
    )


def state(trainer: Trainer) -> dict[tuple, bytes]:
    """Every bit that the next step depends on."""
    states = {
        "model": trainer.model.state_dict(),
        "ema": trainer.ema.state_dict(),
        **trainer.optimizer.state_dict()["state"],
    }
    return {(of, name): value.numpy().tobytes() for of, tensors in states.items() for name, value in tensors.items()}


def log_of(trainer: Trainer) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(trainer.log_file)]


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
    assert said == f"stopped by {number.name} after step {step} of {STEPS}, saved. The same command resumes.\n"
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
    with pytest.raises(ValueError, match=r"training\.precision must be one of float32, bfloat16, got 'half'"):
        tiny(tmp_path, precision="half")


class KillError(BaseException):
    """What no code expects."""


def test_a_killed_run_loses_only_the_steps_after_its_checkpoint(tmp_path, undisturbed):
    def kill():
        raise KillError

    killed = after(Trainer(tiny(tmp_path)), 6, kill)  # The checkpoint of step 6 is not yet written.
    with pytest.raises(KillError):
        killed.fit()
    with killed.log_file.open("a") as log:
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
    lines = read_log(undisturbed.log_file)
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


def test_a_loss_that_is_not_finite_stops_the_run_before_it_does_harm(tmp_path):
    trainer = Trainer(tiny(tmp_path))
    original = trainer.config.loss()
    trainer.loss.at = lambda *given: original.at(*given) * (float("nan") if trainer.step == 4 else 1.0)
    with pytest.raises(FloatingPointError, match=r"loss and gradient must be finite, got nan .* at step 5") as caught:
        trainer.fit()
    assert "\n" not in str(caught.value)
    assert state(Trainer(tiny(tmp_path))) == state(trainer)


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
    settings = dataclasses.replace(config.training, steps=2, keep=5, log_every=3, checkpoint_every=9)
    assert Trainer(dataclasses.replace(config, run=str(moved), sampling=sampling, training=settings)).step == 1


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
    assert meta["seconds"] == undisturbed.seconds > 0
