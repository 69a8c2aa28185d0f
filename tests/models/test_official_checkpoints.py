"""Laws of loading: what is saved in the official layouts comes back as the same function, and nothing else does."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models import SiT, create_model, load_official, save_official


def randomised(seed: int = 0, **changes: Any) -> SiT:
    """A tiny network in the released form; no weight but the position embedding is as a new network has it."""
    torch.manual_seed(seed)
    arguments = {"input_size": 8, "in_channels": 1, "num_classes": 5, "learn_sigma": True, **changes}
    model = create_model("SiT-T/2", **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return model


def assert_same_function(got: SiT, expected: SiT) -> None:
    x, t = torch.randn(2, *expected.input_shape), torch.rand(2)
    y = torch.tensor([0, expected.num_classes]) if expected.num_classes else None
    assert expected(x, t, y).std() > 1e-3
    assert torch.equal(got(x, t, y), expected(x, t, y))


def save(content: object, folder: Path, **options: Any) -> Path:
    torch.save(content, folder / "checkpoint.pt", **options)
    return folder / "checkpoint.pt"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learn_sigma": False},
        {"num_classes": 0},
        {"in_channels": 4, "learn_sigma": False},
        {"in_channels": 2, "num_classes": 1},
        {"input_size": 16},
    ],
    ids=str,
)
def test_a_bare_state_dict_comes_back_as_the_same_network(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Everything is read off the tensors: two channels with learn_sigma are not four without."""
    model = randomised(**changes)
    loaded = load_official(save(model.state_dict(), tmp_path))
    assert loaded.config == model.config
    assert not loaded.training
    assert not loaded.pos_embed.requires_grad
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert_same_function(loaded, model)


def test_a_file_in_the_older_format_or_in_half_precision_loads(tmp_path: Path) -> None:
    model = randomised()
    assert_same_function(load_official(save(model.state_dict(), tmp_path, _use_new_zipfile_serialization=False)), model)
    half = {key: value.half() for key, value in model.state_dict().items()}
    loaded = load_official(str(save(half, tmp_path)))
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, half[key].float())


def test_a_training_checkpoint_gives_the_averaged_or_the_raw_weights(tmp_path: Path) -> None:
    raw, averaged = randomised(1), randomised(2)
    trained = [p for p in raw.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    raw(torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([0, 5])).sum().backward()
    optimizer.step()
    content = {
        "model": raw.state_dict(),
        "ema": averaged.state_dict(),
        "opt": optimizer.state_dict(),
        "args": argparse.Namespace(model="SiT-T/2", num_classes=5, path_type="Linear", lr=1e-4, cfg_scale=None),
    }
    file = save(content, tmp_path)
    assert_same_function(load_official(file), averaged)
    assert_same_function(load_official(file, use_ema=False), raw)
    del content["ema"]
    with pytest.raises(ValueError, match=r"training checkpoint with 'ema'.*use_ema=False"):
        load_official(save(content, tmp_path))


def test_loading_leaves_the_file_alone_and_can_be_trained_on(tmp_path: Path) -> None:
    """The weights are copies: changing them does not write through to the mapped file."""
    file = save(randomised().state_dict(), tmp_path)
    before = file.read_bytes()
    loaded = load_official(file, class_dropout=0.25).train()
    assert loaded.config.class_dropout == 0.25
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    assert file.read_bytes() == before


def test_a_non_square_input_must_be_named_and_is_checked_by_value(tmp_path: Path) -> None:
    """4 x 16 and 8 x 8 have equally many patches, so that only the values of the position embedding differ."""
    model = randomised(input_size=(4, 16))
    file = save(model.state_dict(), tmp_path)
    assert_same_function(load_official(file, input_size=(4, 16)), model)
    for wrong in (None, 8, (16, 4)):
        with pytest.raises(ValueError, match=r"^load_official: input_size must be that of the file's pos_embed"):
            load_official(file, input_size=wrong)
    with pytest.raises(ValueError, match=r"mismatched: pos_embed \(1, 16, 128\) instead of \(1, 256, 128\)"):
        load_official(file, input_size=32)


@pytest.mark.parametrize("argument", ["in_channels", "num_classes"])
def test_an_expectation_that_the_file_does_not_meet_is_refused(tmp_path: Path, argument: str) -> None:
    file = save(randomised(in_channels=3, num_classes=3).state_dict(), tmp_path)
    expectation: dict[str, Any] = {argument: 3}
    load_official(file, **expectation)
    with pytest.raises(ValueError, match=f"^load_official: {argument} must be 3, as in the file, got 4"):
        load_official(file, **{**expectation, argument: 4})


def test_all_wrong_keys_are_named_in_one_message(tmp_path: Path) -> None:
    state: dict[str, Tensor] = dict(randomised().state_dict())
    del state["blocks.1.attn.proj.bias"]
    del state["t_embedder.mlp.2.weight"]
    state["blocks.0.attn.gate.weight"] = torch.zeros(32)
    state["blocks.3.mlp.fc1.bias"] = torch.zeros(7)
    with pytest.raises(ValueError, match=r"^load_official: file must be a SiT state dict") as caught:
        load_official(save(state, tmp_path))
    message = str(caught.value)
    assert "missing: t_embedder.mlp.2.weight, blocks.1.attn.proj.bias;" in message
    assert "unexpected: blocks.0.attn.gate.weight;" in message
    assert "mismatched: blocks.3.mlp.fc1.bias (7,) instead of (512,)" in message


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pos_embed, x_embedder.proj.weight, final_layer.linear.weight"):
        load_official(save(torch.nn.Linear(2, 2).state_dict(), tmp_path))
    for content in (torch.zeros(3), [1, 2], {"model": 3, "ema": {1: 2}}, {1: torch.zeros(1)}):
        with pytest.raises(ValueError, match=r"^load_official: file must be a state dict of tensors"):
            load_official(save(content, tmp_path))


def test_a_size_that_is_no_preset_is_refused_with_the_presets(tmp_path: Path) -> None:
    """The number of heads cannot be read off a tensor: guessing it would give another function without a word."""
    model = SiT(input_size=8, patch_size=2, in_channels=1, hidden_size=32, depth=4, num_heads=4)
    with pytest.raises(ValueError, match=r"one of SiT-N/1, .*got 'depth 4, hidden size 32, patch 2'.*number of heads"):
        load_official(save(model.state_dict(), tmp_path))


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_refused(tmp_path: Path, kept: float, zipped: bool) -> None:
    file = save(randomised().state_dict(), tmp_path, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"^load_official: file must be a checkpoint of tensors only.*damaged"):
        load_official(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(
            FileNotFoundError, match=rf"^load_official: file must be an existing file, got '.*{path.name}"
        ):
            load_official(path)


class Malicious:
    """Creates a file when it is unpickled without restraint."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("layout", ["torch", "plain pickle", "within args"])
def test_a_file_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, layout: str) -> None:
    trace, file, state = tmp_path / "it_ran", tmp_path / "checkpoint.pt", randomised().state_dict()
    if layout == "plain pickle":
        file.write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    elif layout == "torch":
        torch.save({**state, "extra": Malicious(trace)}, file)
    else:
        torch.save({"model": state, "ema": state, "args": argparse.Namespace(model=Malicious(trace))}, file)
    with pytest.raises(ValueError, match="holds objects that could run code"):
        load_official(file)
    assert not trace.exists()
    # The permission for Namespace has not outlived the call.
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(save(argparse.Namespace(a=1), tmp_path), weights_only=True)
    if layout == "plain pickle":
        pickle.loads(pickle.dumps(Malicious(trace)))  # The object does what the test fears.
        assert trace.exists()


STYLES = {
    "REPA with qk_norm": {"qk_norm": True, "learn_sigma": False},
    "LightningDiT": {"rope": True, "swiglu": True, "rms_norm": True, "qk_norm": True, "learn_sigma": False},
    "parts": {"swiglu": True, "rms_norm": True},
}


@pytest.mark.parametrize("changes", STYLES.values(), ids=STYLES)
def test_networks_of_another_style_are_told_by_their_names(tmp_path: Path, changes: dict[str, Any]) -> None:
    """With what the other projects keep beside the weights: projectors, and tables of the rotations."""
    model = randomised(**changes)
    state = dict(model.state_dict()) | {"projectors.0.0.weight": torch.ones(3, 3), "projectors.0.4.bias": torch.ones(3)}
    if changes.get("rope"):
        state |= {"feat_rope.freqs_cos": torch.ones(16, 32), "feat_rope.freqs_sin": torch.zeros(16, 32)}
    loaded = load_official(save(state, tmp_path))
    assert loaded.config == model.config
    assert_same_function(loaded, model)


def test_rope_without_a_trace_in_the_file_is_told_by_hand(tmp_path: Path) -> None:
    model = randomised(rope=True)
    file = save(model.state_dict(), tmp_path)
    assert not load_official(file).config.rope
    assert_same_function(load_official(file, rope=True), model)
    with pytest.raises(ValueError, match=r"missing: blocks.0.mlp.w12.weight.*unexpected: blocks.0.mlp.fc1.weight"):
        load_official(file, swiglu=True)


@pytest.mark.parametrize("learn_sigma", [True, False])
def test_what_is_saved_is_the_released_layout(tmp_path: Path, learn_sigma: bool) -> None:
    """Tensors alone under the official names, so that a bare strict load_state_dict takes them."""
    model, file = randomised(learn_sigma=learn_sigma), tmp_path / "SiT.pt"
    file.write_text("what was there before")
    save_official(model.bfloat16(), file)
    content = torch.load(file, weights_only=True)
    assert type(content) is dict
    assert {key: tuple(value.shape) for key, value in content.items()} == {
        key: tuple(value.shape) for key, value in model.state_dict().items()
    }
    assert content["blocks.3.mlp.fc1.weight"].dtype == torch.bfloat16
    assert_same_function(load_official(file), model.float())
    assert [entry.name for entry in tmp_path.iterdir()] == ["SiT.pt"]


@pytest.mark.parametrize("changes", [{"rope": True}, {"rms_norm": True}, {"num_classes": 0}], ids=str)
def test_what_the_official_code_cannot_load_is_not_saved(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"save_official: model must be of the paper's block and have classes"):
        save_official(randomised(**changes), tmp_path / "SiT.pt")
    assert not any(tmp_path.iterdir())


# Names that other tools leave


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "net.ema_model."])
def test_prefixes_of_wrapped_networks_are_left_out(tmp_path: Path, prefix: str) -> None:
    model = randomised()
    wrapped = {prefix + key: value for key, value in model.state_dict().items()}
    for content in (wrapped, {"state_dict": wrapped, "epoch": 3}, {"ema": wrapped, "model": {}}):
        assert_same_function(load_official(save(content, tmp_path)), model)


def test_of_a_network_and_its_average_in_one_state_dict_the_one_asked_for_is_taken(tmp_path: Path) -> None:
    raw, average = randomised(0), randomised(1)
    content = {f"net.{key}": value for key, value in raw.state_dict().items()}
    content |= {f"ema.{key}": value for key, value in average.state_dict().items()} | {"loss.scale": torch.ones(1)}
    file = save({"state_dict": content}, tmp_path)
    assert_same_function(load_official(file), average)
    assert_same_function(load_official(file, use_ema=False), raw)
    content |= {f"other.{key}": value for key, value in raw.state_dict().items()}
    with pytest.raises(ValueError, match=r"a state dict of one SiT, got 'several, named net\., ema\., other"):
        load_official(save(content, tmp_path), use_ema=False)


def test_a_network_trained_without_dropout_has_no_null_class(tmp_path: Path) -> None:
    """In the official code its table has a row less; the labels mean the same classes."""
    model = randomised(class_dropout=0.0)
    content = dict(model.state_dict())
    content["y_embedder.embedding_table.weight"] = content["y_embedder.embedding_table.weight"][:-1].clone()
    loaded = load_official(save(content, tmp_path), num_classes=5, class_dropout=0.0)
    assert (loaded.num_classes, loaded.class_dropout) == (5, 0.0)
    x, t, y = torch.randn(2, *model.input_shape), torch.rand(2), torch.tensor([0, 4])
    assert torch.equal(loaded(x, t, y), model(x, t, y))
    assert load_official(save(content, tmp_path)).num_classes == 4  # the last of them taken for the null class
    with pytest.raises(ValueError, match=r"num_classes must be 4, as in the file, got 5\..* pass class_dropout=0"):
        load_official(save(content, tmp_path), num_classes=5)
