import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import interpolants as ip
from models import SiT
from training import checkpoint
from training.checkpoint import CheckpointError, latest, load_checkpoint, load_field, remove_unfinished, snapshot, write
from training.ema import make_averages
from training.fingerprint import fingerprint

AVERAGES = ("ema", "ema-0.5", "ema-width-0.1")
FILES = ("checkpoint.json", *(f"{name}.safetensors" for name in ("model", "optimizer", *AVERAGES)))
X, T, Y = torch.linspace(-1, 1, 48).view(3, 1, 4, 4), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0, 1, 2])


class Run:
    """A tiny network in training; deterministic, and different at every step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = SiT(input_size=4, patch_size=2, in_channels=1, hidden_size=8, depth=1, num_heads=2, num_classes=3)
        for parameter in self.model.parameters():  # A fresh network returns zero, whatever its other weights.
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        self.averages = make_averages(self.model, [0.9, 0.5], [0.1])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.step = 0

    def train(self, steps: int = 1) -> "Run":
        for _ in range(steps):
            torch.manual_seed(self.step)
            self.optimizer.zero_grad()
            (self.model(X, T, Y) - 1).square().mean().backward()
            self.optimizer.step()
            for average in self.averages.values():
                average.update_parameters(self.model)
            self.step += 1
        return self

    def snapshot(self, **changes):
        arguments = {
            "path": ip.linear(),
            "prediction": "velocity",
            "config": {"seed": 0},
            "data": fingerprint([], [(0, "one"), (0, "two")]),
            "state": {"seconds": 1.5},
        }
        return snapshot(
            step=self.step,
            model=self.model,
            averages=self.averages,
            optimizer=self.optimizer,
            **arguments | changes,
        )

    def save(self, folder: Path, keep: int = 2, keep_every: int | None = None, **changes) -> Path:
        return write(folder, self.snapshot(**changes), keep=keep, keep_every=keep_every)

    def bits(self) -> dict[tuple, bytes]:
        states = {
            "model": self.model.state_dict(),
            **{name: average.state_dict() for name, average in self.averages.items()},
            **self.optimizer.state_dict()["state"],
        }
        return {(of, name): value.numpy().tobytes() for of, state in states.items() for name, value in state.items()}


def test_a_restored_run_is_the_same_to_the_bit_and_goes_on_so(tmp_path):
    run = Run().train(2)
    run.save(tmp_path)
    other = Run().train(1)
    found = latest(tmp_path)
    found.restore(other.model, other.averages, other.optimizer)
    other.step = found.step
    assert other.bits() == run.bits()
    assert other.optimizer.state_dict()["param_groups"] == run.optimizer.state_dict()["param_groups"]
    assert other.train(2).bits() == run.train(2).bits()


def test_the_folder_holds_weights_and_json_and_nothing_else(tmp_path):
    folder = Run().train(3).save(tmp_path)
    assert folder == tmp_path / "checkpoints" / "step-00000003"
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    meta = json.loads((folder / "checkpoint.json").read_text())
    assert meta["step"] == meta["ema_updates"] == 3
    assert meta["path"] == {"alpha": "t", "sigma": "1 - t", "name": "linear"}
    assert meta["optimizer"][0]["lr"] == 0.01


@pytest.mark.parametrize(
    "path",
    [ip.linear(), ip.gvp(), ip.shifted(ip.vp(), 3), ip.Path("t**2", "1 - t"), ip.Path("t", "sqrt((1-t)**2)")],
    ids=lambda path: path.name,
)
def test_a_field_is_ready_to_sample_from(tmp_path, path):
    run = Run().train(3)
    folder = run.save(tmp_path, path=path, prediction="noise")
    for source in (tmp_path, folder):
        field = load_field(source, guidance_scale=2.0)
        assert (field.path, field.prediction, field.guidance_scale) == (path, "noise", 2.0)
        assert field.path.name == path.name
        assert torch.equal(field.model(X, T, Y), run.averages["ema"].module.eval()(X, T, Y))
        assert not field.model.training
    for name in AVERAGES:
        average = load_field(tmp_path, weights=name).model(X, T, Y)
        assert torch.equal(average, run.averages[name].module.eval()(X, T, Y))
    last = load_field(tmp_path, weights="model").model(X, T, Y)
    assert torch.equal(last, run.model.eval()(X, T, Y))
    assert not torch.equal(last, field.model(X, T, Y))
    with pytest.raises(ValueError, match=r"weights must be one of ema, ema-0\.5, ema-width-0\.1, model, got 'raw'"):
        load_field(tmp_path, weights="raw")


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_ones_are_kept(tmp_path, keep):
    run = Run()
    for step in range(1, 7):
        run.train().save(tmp_path, keep=keep)
        kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
        assert kept == [f"step-{k:08d}" for k in range(max(1, step - keep + 1), step + 1)]


def test_every_so_many_are_kept_for_good(tmp_path):
    run = Run()
    for _ in range(8):
        run.train().save(tmp_path, keep=1, keep_every=3)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [f"step-{k:08d}" for k in (3, 6, 8)]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path):
    """What is written is the state when it was asked for, whatever happens to the weights meanwhile."""
    run, writer = Run().train(2), checkpoint.Writer()
    contents, bits = run.snapshot(), run.bits()
    run.train()
    writer.start(tmp_path, contents, keep=2, keep_every=None)
    run.train()
    writer.wait()
    other, found = Run(), latest(tmp_path)
    found.restore(other.model, other.averages, other.optimizer)
    assert (found.step, other.bits()) == (2, bits)
    assert run.bits() != bits


def test_a_write_that_fails_beside_the_training_is_told(tmp_path):
    run, writer = Run().train(), checkpoint.Writer()
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    writer.start(tmp_path, run.snapshot(), keep=1, keep_every=None)
    with pytest.raises(FileExistsError, match="checkpoints"):
        writer.wait()
    writer.check()  # it is told once
    writer.start(tmp_path, run.snapshot(), keep=1, keep_every=None)
    while not writer.failed:
        time.sleep(0.001)
    with pytest.raises(FileExistsError, match="checkpoints"):
        writer.check()


class KillError(BaseException):
    """What no code expects."""


def kill_at(monkeypatch, number: int) -> list[str]:
    """Kill at the ``number``-th operation on the disk; one that writes a file has then written half of it."""
    done: list[str] = []

    def interrupted(name, original, half):
        def operation(*args, **kwargs):
            done.append(name)
            if len(done) == number:
                half(*args, **kwargs)
                raise KillError
            return original(*args, **kwargs)

        return operation

    def half_file(original, position):
        def half(*args, **kwargs):
            original(*args, **kwargs)
            file = Path(args[position])
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

        return half

    def half_tree(folder, **_):
        next(Path(folder).iterdir()).unlink()

    def nothing(*_, **__): ...

    for owner, name, half in (
        (checkpoint, "save_file", half_file(checkpoint.save_file, 1)),
        (Path, "write_text", half_file(Path.write_text, 0)),
        (Path, "rename", nothing),
        (Path, "mkdir", nothing),
        (os, "fsync", nothing),
        (shutil, "rmtree", half_tree),
    ):
        if name == "rmtree":
            original = shutil.rmtree

            def rmtree(folder, original=original, **kwargs):
                if Path(folder).exists():
                    interrupted("rmtree", original, half_tree)(folder, **kwargs)

            monkeypatch.setattr(shutil, "rmtree", rmtree)
        else:
            monkeypatch.setattr(owner, name, interrupted(name, getattr(owner, name), half))
    return done


def test_a_kill_at_any_operation_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    run = Run().train()
    run.save(tmp_path / "start")
    run.train()
    ends = []
    for number in range(1, 100):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "start", folder)
        with monkeypatch.context() as patch:
            done = kill_at(patch, number)
            try:
                run.save(folder, keep=1)
            except KillError:
                finished = False
            else:
                finished = True
        found = [load_checkpoint(each) for each in sorted((folder / "checkpoints").glob("step-*"))]  # None is damaged.
        ends.append(found[-1].step)
        remove_unfinished(folder)
        assert all(p.name.startswith("step-") for p in (folder / "checkpoints").iterdir())
        if finished:
            break
        run.save(folder, keep=1)
        assert latest(folder).step == 2
        assert len(list((folder / "checkpoints").iterdir())) == 1
    assert {"save_file", "write_text", "rename", "mkdir", "fsync", "rmtree"} <= set(done)
    renamed = done.index("rename")
    assert done[renamed - 1] == done[renamed + 1] == "fsync"  # first the contents, then the name
    assert finished
    assert ends == sorted(ends)
    assert set(ends) == {1, 2}


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "flipped bit": flip,
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_one_is_reported_and_the_one_before_it_is_used(tmp_path, name, damage):
    run = Run()
    run.train().save(tmp_path)
    folder = run.train().save(tmp_path)
    damage(folder / name)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert str(caught.value).startswith(f"{folder / name}: ")
    with pytest.raises(CheckpointError):
        load_field(folder)
    with pytest.warns(UserWarning, match=f"checkpoint passed over: {folder / name}: ") as warned:
        assert latest(tmp_path).step == 1
    assert "\n" not in str(warned[0].message)
    run.save(tmp_path)  # The same step again takes the place of the damaged one.
    assert latest(tmp_path).step == 2


def test_where_all_are_damaged_there_is_one_clear_line(tmp_path):
    flip(Run().train().save(tmp_path) / "ema.safetensors")
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(CheckpointError, match="no checkpoint is intact") as caught,
    ):
        latest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_without_checkpoints(tmp_path):
    assert latest(tmp_path / "none") is None
    with pytest.raises(CheckpointError, match=r"there is no checkpoint\. Train first"):
        load_field(tmp_path / "none")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return Run().train().save(tmp_path_factory.mktemp("run"))


@given(data=st.data())
def test_no_flipped_bit_in_the_json_passes_unless_it_means_the_same(saved, data):
    file = saved / "checkpoint.json"
    original = file.read_bytes()
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        file.write_bytes(changed)
        found = load_checkpoint(saved)
    except CheckpointError:
        pass
    else:
        assert found.meta == json.loads(original)
    finally:
        file.write_bytes(original)


def test_a_format_of_the_future_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    folder = Run().train().save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format must be 2, got 3"):
        load_checkpoint(folder)
