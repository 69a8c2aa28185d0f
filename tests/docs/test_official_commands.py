"""docs/howto/official-commands.md: every flag of the official scripts has its row, and what stands there is taken here.

Flags and defaults are those of willisma/SiT at a87098c365412edfa6c27946b8252fe27a9dec73, of train.py, sample.py,
sample_ddp.py and train_utils.py.
"""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import EXAMPLES, call
from tiny_vae import LATENT, SIZE, save_images, save_vae

from models import create_model, save_official
from training.config import read_config

TRANSPORT = {
    "--path-type": "Linear", "--prediction": "velocity", "--loss-weight": None, "--sample-eps": 1e-3,
    "--train-eps": 1e-5,
}  # fmt: skip
ODE = {"--sampling-method": "dopri5", "--atol": 1e-6, "--rtol": 1e-3, "--reverse": False, "--likelihood": False}
SDE = {
    "--sampling-method": "Euler", "--diffusion-form": "sigma", "--diffusion-norm": 1.0, "--last-step": "Mean",
    "--last-step-size": 0.04,
}  # fmt: skip
TRAIN = {
    "--data-path": ..., "--results-dir": "results", "--model": "SiT-XL/2", "--image-size": 256, "--num-classes": 1000,
    "--epochs": 1400, "--global-batch-size": 256, "--global-seed": 0, "--vae": "ema", "--num-workers": 4,
    "--log-every": 100, "--ckpt-every": 50_000, "--sample-every": 10_000, "--cfg-scale": 4.0, "--wandb": False,
    "--ckpt": None, **TRANSPORT,
}  # fmt: skip
SAMPLE = {
    "--model": "SiT-XL/2", "--vae": "mse", "--image-size": 256, "--num-classes": 1000, "--cfg-scale": 4.0,
    "--num-sampling-steps": 250, "--seed": 0, "--ckpt": None, **TRANSPORT,
}  # fmt: skip
SAMPLE_DDP = {
    "--model": "SiT-XL/2", "--vae": "ema", "--sample-dir": "samples", "--per-proc-batch-size": 4,
    "--num-fid-samples": 50_000, "--image-size": 256, "--num-classes": 1000, "--cfg-scale": 1.0,
    "--num-sampling-steps": 250, "--global-seed": 0, "--tf32": True, "--ckpt": None, **TRANSPORT,
}  # fmt: skip
WRITTEN = {..., None, True, False}

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "official-commands.md").read_text()
TABLES = [
    [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][2:]
    for is_table, lines in itertools.groupby(PAGE.splitlines(), key=lambda line: line.startswith("|"))
    if is_table
][1:]
"""The flags of train.py, of both scripts that sample, and of these with ODE and with SDE."""
SCRIPTS = (("train",), ("sample", "generate"), ("sample", "generate"), ("sample", "generate"))
NEEDED = {"generate": ["--output=x"], "reverse": ["--output=x"], "likelihood": ["--output=x"]}


def row_of(table, flag):
    (row,) = [row for row in TABLES[table] if row[0] == f"`{flag}`"]
    return row


def as_written(value):
    words = {None: "none", False: "off", True: "on", ...: "required"}
    return words[value] if isinstance(value, bool | None | type(...)) else str(value)


def defaults_of(flag):
    """The defaults of sample.py, and of sample_ddp.py where they differ, as the page states them."""
    plain, ddp = SAMPLE.get(flag, ...), SAMPLE_DDP.get(flag, ...)
    if plain is ...:
        return f"ddp: {as_written(ddp)}"
    return as_written(plain) + ("" if ddp in (plain, ...) else f"; ddp: {as_written(ddp)}")


def test_every_flag_has_a_row_with_its_default_and_there_is_no_other():
    both = {flag: defaults_of(flag) for flag in SAMPLE | SAMPLE_DDP}
    expected = [{flag: as_written(value) for flag, value in flags.items()} for flags in (TRAIN, ODE, SDE)]
    expected.insert(1, both)
    for table, flags in zip(TABLES, expected, strict=True):
        flags = flags | ({"--loss-weight": "None"} if "--loss-weight" in flags else {})
        assert {row[0].strip("`"): row[1] for row in table} == flags
        assert len(table) == len(flags)
        assert all(len(row) == 3 and row[2] for row in table)


def kind_of(script):
    main = importlib.import_module(f"examples.{'encode_latents' if script == 'encode' else script}").main
    return typing.get_type_hints(main)["config"]


def taken(script, words):
    try:
        return read_config([*NEEDED.get(script, []), *words], kind_of(script))
    except ValueError as error:
        return error


@pytest.mark.parametrize(("table", "flag"), [(k, row[0].strip("`")) for k, table in enumerate(TABLES) for row in table])
def test_what_stands_in_a_row_is_taken(table, flag):
    official = {*TRAIN, *SAMPLE, *SAMPLE_DDP, *ODE, *SDE, "--no-tf32"}
    here = row_of(table, flag)[2]
    given = [words for words in map(shlex.split, re.findall(r"`([^`]+)`", here)) if words[0].startswith(("--", "sit"))]
    settings = [words for words in given if len(words) > 1 and (words[0] == "sit" or words[0] not in official)]
    settings += [words for words in given if len(words) == 2 and words[0] in official]  # called alike
    assert settings or here.startswith(("read from the file", "none")) or "below" in here
    for words in settings:
        scripts = (words[1],) if words[0] == "sit" else SCRIPTS[table]
        words = words[2:] if words[0] == "sit" else words
        if words:
            results = [taken(script, words) for script in scripts]
            assert any(not isinstance(result, ValueError) for result in results), results


@pytest.mark.parametrize(
    ("table", "script", "flag"),
    [
        (k, script, row[0].strip("`"))
        for k, (scripts, table) in enumerate(zip(SCRIPTS, TABLES, strict=True))
        for script in scripts
        for row in table
    ],
)
def test_a_flag_typed_from_habit_is_answered_with_what_its_row_has(table, script, flag):
    """Unless it is one here too, or has no effect, or no setting, since the file tells it."""
    here = row_of(table, flag)[2]
    if here.startswith(("read from the file", "none")):
        return
    default = {**TRAIN, **SAMPLE, **ODE, **SDE}.get(flag)
    answer = taken(script, [flag, default if isinstance(default, str) else "1"])
    if isinstance(answer, ValueError):
        names = re.findall(r"'([\w.]+)'|--([\w.]+)|(sit \w+)", str(answer).partition(". ")[2])
        assert any(name in here for name in sum(names, ()) if name), str(answer)


# Whole commands, on a small network in the layout of the release, a small VAE and a few images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    torch.manual_seed(0)
    sizes = {"input_size": LATENT[1], "in_channels": LATENT[0], "num_classes": 1000}
    model = create_model("SiT-T/8", **sizes, learn_sigma=True)
    for parameter in (each for each in model.parameters() if each.requires_grad):
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    save_official(model, folder / "SiT-XL-2-256x256.pt")
    save_vae(folder / "vae")
    save_images(folder / "imagenet" / "train", count=8, broken=())
    return folder


def commands(*scripts):
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            words = shlex.split(line)
            start = words.index("--") + 1 if "torchrun" in words else 1
            script = words[start].removeprefix("examples/").removesuffix(".py")
            if script in scripts:
                yield script, words[start + 1 :]


@pytest.mark.parametrize(
    ("script", "flags"), [*commands("sample", "generate")], ids=lambda value: value if isinstance(value, str) else ""
)
def test_samples_are_drawn_from_an_official_file(place, script, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    flags = [str(place / "vae") if flag.startswith("stabilityai/") else flag for flag in flags]
    less = ["--sampling.num_samples=8", "--sampling.ode.num_steps=3", "--sampling.sde.num_steps=3"]
    less += ["--device=cpu", f"--output={tmp_path / 'out'}", "--precision=float32"]  # it has no TF32
    assert call(f"{script}.py", *flags, *less) == 0
    assert "8 samples by official" in capsys.readouterr().out
    if script == "generate":
        with np.load(tmp_path / "out" / "samples.npz") as content:
            assert content["arr_0"].shape == (8, SIZE, SIZE, 3)
            assert content["arr_0"].std() > 1
        assert len(list((tmp_path / "out" / "png").iterdir())) == 8
    else:
        kind = flags[flags.index("--sampler") + 1]
        with np.load(tmp_path / "out" / f"samples_{kind}.npz") as content:
            assert content["labels"].tolist() == [207, 360, 387, 974, 88, 979, 417, 279]


def test_a_network_is_trained_on_encoded_images(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    ((_, encode),) = commands("encode_latents")
    ((_, train),) = commands("train")
    encode = [str(place / "vae") if flag.startswith("stabilityai/") else flag for flag in encode]
    config = train.index("--config") + 1
    train[config] = str(EXAMPLES.parent / train[config])
    assert call("encode_latents.py", *encode, f"--image_size={SIZE}", "--device=cpu") == 0
    less = ["--model.name=SiT-T/8", "--model.input_size=8", "--model.num_classes=2", "--training.steps=2"]
    less += ["--data.batch_size=4", "--data.workers=0", "--device=cpu", "--training.precision=float32"]
    assert call("train.py", *train, *less, f"--run={tmp_path}") == 0
    assert (tmp_path / "checkpoints" / "step-00000002").is_dir()


def test_the_steps_are_the_epochs():
    """Batches of 256 in ImageNet's 1,281,167 images; the release drops the last, which is not full."""
    assert f"--training.steps {1400 * (1_281_167 // 256)}" in PAGE
