import dataclasses
import io
import json
import math
import os
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

import interpolants as ip
from examples.generate import Generation
from examples.study import Study
from training.checkpoint import flat
from training.config import (
    Config,
    ODEConfig,
    PathText,
    SDEConfig,
    TrainingConfig,
    read_config,
    run_script,
)
from training.mistakes import HABITS
from training.settings import such_as
from training.trained import Drawing

DIGITS = Path(__file__).parents[2] / "examples" / "configs" / "digits.yaml"


CONFIGS = sorted(DIGITS.parent.glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_an_example_says_what_is_read(file):
    settings = read_config(["--config", str(file)], Study if file.stem == "study" else Config)
    written = flat(yaml.safe_load(file.read_text()))
    read = flat(json.loads(json.dumps(dataclasses.asdict(settings))))
    assert written == {key: read[key] for key in written}


def test_the_examples_are_of_the_sizes_that_they_are_named_for():
    assert [file.stem for file in CONFIGS] == [
        "cifar10-pixel", "digits", *(f"imagenet256-{size}" for size in ("B", "L", "S", "XL")), "imagenet512-XL",
        "study",
    ]  # fmt: skip
    for file in CONFIGS[2:-1]:
        config = read_config(["--config", str(file)])
        size = file.stem.split("-")[1]
        side = 32 if "256" in file.stem else 64
        assert (config.model.name, config.model.input_size, config.run) == (f"SiT-{size}/2", side, f"runs/{file.stem}")


def test_without_arguments_there_are_defaults():
    assert read_config([]) == Config()


def test_a_flag_has_precedence_over_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("seed: 3\ntraining: {steps: 7}\nsampling: {sde: {w: 1 - t}}\n")
    config = read_config(["--config", str(file), "--training.steps", "9"])
    assert (config.seed, config.training.steps, config.sampling.sde.w) == (3, 9, "1 - t")


@pytest.mark.parametrize(
    "arguments", [["--path", "{alpha: t**2, sigma: 1 - t}"], ["--path.alpha", "t**2", "--path.sigma", "1 - t"]]
)
def test_a_path_may_be_text(arguments):
    config = read_config(arguments)
    assert config.path == PathText("t**2", "1 - t")
    assert config.interpolant() == ip.Path("t**2", "1 - t")


def test_what_is_printed_can_be_read_again(tmp_path, capsys):
    flags = [
        "--training.steps",
        "3",
        "--path.alpha",
        "t**2",
        "--path.sigma",
        "1 - t",
        "--sampling.ode.method",
        "dopri5",
    ]
    with pytest.raises(SystemExit) as ended:
        read_config([*flags, "--print_config"])
    assert ended.value.code in (0, None)
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert read_config(["--config", str(tmp_path / "printed.yaml")]) == read_config(flags)


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("training: {stps: 3}", "training.stps", "training.steps"),
        ("trainings: {steps: 3}", "trainings.steps", "training.steps"),
        ("sampling: {ode: {method_: euler}}", "sampling.ode.method_", "sampling.ode.method"),
        ("sed: 3", "sed", "seed"),
    ],
)
def test_an_unknown_key_of_a_file_is_refused_with_the_nearest(tmp_path, text, key, nearest):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^config: there is no setting '{key}'. Nearest: '{nearest}'"):
        read_config(["--config", str(file)])


def test_all_unknown_keys_of_a_file_and_flags_are_told_at_once(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("training: {stps: 3, keep: 2, kep: 4}\nfoo: {bar: 3}")
    with pytest.raises(ValueError, match="setting") as error:
        read_config(["--config", str(file), "--sed", "3"])
    told = re.findall("here is no setting '(.*?)'.(?: Nearest: '(.*?)')?", str(error.value))
    assert told == [
        ("training.stps", "training.steps"), ("training.kep", "training.keep"), ("foo.bar", ""), ("sed", "seed"),
    ]  # fmt: skip


def test_an_unknown_key_of_a_path_is_refused(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("path: {alpha: t, sigm: 1 - t}")
    with pytest.raises(
        ValueError, match=r"^config: path must be the name of a path, or a mapping with alpha and sigma"
    ):
        read_config(["--config", str(file)])


@pytest.mark.parametrize(
    ("flag", "nearest"), [("training.step", "training.steps"), ("sampling.sde.v", "sampling.sde.w"), ("rnu", "run")]
)
def test_an_unknown_flag_is_refused_with_the_nearest(flag, nearest):
    with pytest.raises(ValueError, match=f"^config: there is no setting '{flag}'. Nearest: '{nearest}'"):
        read_config([f"--{flag}", "3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training.steps", "0"], "config: training.steps must be at least 1, got 0"),
        (["--training.steps", "many"], "config: training.steps must be an integer, got 'many'"),
        (["--training.steps", "null"], "config: training.steps must be an integer, got null."),
        (["--training.steps"], "config: training.steps must be an integer, got nothing after --training.steps"),
        (["--training.clip_norm", "x"], "config: training.clip_norm must be a number or null, got 'x'"),
        (["--data.flip", "maybe"], "config: data.flip must be true or false, got 'maybe'"),
        (["--model.input_size", "[8,8,8]"], r"must be an integer or a list \[INTEGER, INTEGER\], got '\[8, 8, 8\]'"),
        (["--sampling.ode.interval", "[0,x]"], r"must be a list \[NUMBER, NUMBER\] or null, got .*\[0, 'x'\]"),
        (["--training.learning_rate", "0"], "config: training.learning_rate must be positive, got 0.0"),
        (["--training.warmup_steps", "-1"], "config: training.warmup_steps must be at least 0, got -1"),
        (
            ["--training.ema_decays", "[1]"],
            r"config: training.ema_decays must be one or more different numbers in \[0, 1\)",
        ),
        (["--data.name", "cifar"], "config: data.name must be one of digits, folder, datasets, latents, got 'cifar'"),
        (["--data.batch_size", "0"], "config: data.batch_size must be at least 1, got 0"),
        (["--seed", "-1"], "config: seed must be at least 0, got -1"),
        (
            ["--path", "lineer"],
            "path: must be one of linear, gvp, .*, got 'lineer'. Did you mean 'linear'",
        ),
        (["--path.alpha", "t", "--path.sigma", "t"], "no path"),
        (
            ["--path.alpha", "t"],
            "path must be the name of a path, .* got alpha without sigma. Add --path.sigma.",
        ),
        (["--sampling.path.sigma", "t"], "got sigma without alpha. Add --sampling.path.alpha."),
        (["--path.alpha", "t", "--path.beta", "t"], "config: path must be .* and nothing else, got 'beta'."),
        (
            ["--path", "{alpha: t, sigm: 1 - t}"],
            "path: must be one of linear, gvp, .*, got '{alpha: t, sigm: 1 - t}'",
        ),
        (["--prediction", "speed"], "prediction must be one of velocity, score, noise, data, got 'speed'"),
        (["--space", "speed"], "space must be one of velocity, score, noise, data, got 'speed'"),
        (["--sampling.ode.method", "eulr"], "config: sampling.ode.method must be one of .*got 'eulr'"),
        (
            ["--sampling.ode.grid", "log-snr"],
            "sampling.ode.grid: must be one of uniform, shifted, log_snr.*got 'log-snr'",
        ),
        (["--sampling.sde.grid", "log-snr"], "sampling.sde.grid: must be one of uniform.*got 'log-snr'"),
        (["--sampling.sde.method", "ancestral"], "sampling.sde.w must be null for the method ancestral.*got 'sigma'"),
        (["--sampling.sde.w", "null"], "sampling.sde.w must be null for the method ancestral, else set, got None"),
        (["--time.steps", "0"], "time.steps must be at least 1, or null, got 0"),
        (["--sampling.sde.w", "sgma"], "w: unknown name 'sgma'.*Named choices: constant, sigma"),
        (["--sampling.sde.w", "sigma(1, 2)"], r"w: must be of the form sigma\(norm\)"),
        (
            ["--sampling.sde.last_step", "Mean"],
            "sampling.sde.last_step must be one of mean, euler, tweedie, null, got 'Mean'",
        ),
        (
            ["--sampling.sde.last_step", "euler", "--sampling.sde.interval", "[0, 1]"],
            "last_step: must be 'mean' where the interval ends at t = 1, got 'euler'",
        ),
        (
            ["--sampling.sde.official", "true", "--sampling.sde.method", "srk"],
            "sampling.sde.method must be one of euler, heun, where official, got 'srk'",
        ),
        (
            ["--sampling.sde.official", "true", "--sampling.sde.grid", "edm"],
            "sampling.sde.grid must be uniform, where official, got 'edm'",
        ),
        (
            ["--sampling.ode.official", "true", "--sampling.ode.method", "unipc2"],
            "sampling.ode.method must be torchdiffeq's, where official, got 'unipc2'",
        ),
        (
            ["--sampling.ode.official", "true", "--sampling.ode.num_steps", "1"],
            "sampling.ode.num_steps must be at least 2, where official, got 1",
        ),
        (["--sampling.ode.grid", "shifted(1, 2)"], r"config: sampling.ode.grid: must be of the form shifted\(shift\)"),
        (["--sampling.num_samples", "1"], "config: sampling.num_samples must be at least 2, or null, got 1"),
        (["--device", "abacus"], "config: device must be available, got 'abacus'"),
        (["--config", "nowhere.yaml"], "File does not exist"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_value_is_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_config(arguments)
    assert "\n" not in str(caught.value)


def test_a_sampler_says_what_it_is():
    assert str(ODEConfig("heun2", 25)) == "ODE, heun2, 25 steps"
    assert str(ODEConfig("adams_pc2", 12, "edm")) == "ODE, adams_pc2, 12 steps, edm"
    assert str(SDEConfig("sigma", 40, "exponential2", "cosine")) == "SDE, w = sigma, exponential2, 40 steps, cosine"
    assert str(ODEConfig("dopri5", 25)) == "ODE, dopri5"
    assert str(SDEConfig("1 - t", 10)) == "SDE, w = 1 - t, 10 steps"


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().steps = 0


@pytest.mark.parametrize(
    "error", [ValueError("bad value"), TypeError("bad type"), OSError("no disk"), FloatingPointError("nan")]
)
def test_a_script_ends_a_users_mistake_in_one_line(monkeypatch, capsys, error):
    def main(config):
        raise error

    monkeypatch.setattr("sys.argv", ["script"])
    monkeypatch.setattr("warnings.formatwarning", None)
    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_script_runs_where_its_outputs_are_closed_and_prints_any_name(monkeypatch):
    def main(config):
        print("d\udce9")
        print("d\udce9", file=sys.stderr)

    monkeypatch.setattr("sys.argv", ["script"])
    monkeypatch.setattr("warnings.formatwarning", None)
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for name in ("stdout", "stderr")}
    for outputs in (streams, dict.fromkeys(streams)):
        with monkeypatch.context() as patch:
            for name, stream in outputs.items():
                patch.setattr(sys, name, stream)
            run_script(main)
    for stream in streams.values():
        stream.flush()
        assert stream.buffer.getvalue() == b"d\\udce9\n"


@pytest.mark.parametrize("names", [("stdout",), ("stdout", "stderr")])
def test_a_script_does_all_of_its_work_though_its_reader_has_seen_enough(monkeypatch, names):
    """As ``head`` has, which closes its end of the pipe: what was to be written is, and the end is as without it."""
    done = []

    def main(config):
        for number in range(3):
            print(number, flush=True)
            print(number, file=sys.stderr, flush=True)
            done.append(number)

    theirs, ours = os.pipe()
    os.close(theirs)
    monkeypatch.setattr("sys.argv", ["script"])
    monkeypatch.setattr("warnings.formatwarning", None)
    with os.fdopen(ours, "w") as stream, monkeypatch.context() as patch:
        for name in names:
            patch.setattr(sys, name, stream)
        run_script(main)
    assert done == [0, 1, 2]


def test_a_setting_that_yaml_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"data\.source must be text in UTF-8, got 'd\\udce9'"):
        read_config(["--config", str(DIGITS), "--data.source", "d\udce9"])


@pytest.mark.parametrize("bug", [KeyError, ZeroDivisionError, RuntimeError])
def test_a_script_hides_no_fault_of_its_own(monkeypatch, bug):
    def main(config):
        raise bug

    monkeypatch.setattr("sys.argv", ["script"])
    monkeypatch.setattr("warnings.formatwarning", None)
    with pytest.raises(bug):
        run_script(main)


# The learning rate and the objective


@pytest.mark.parametrize("step", [0, 3, 9, 10, 11, 60, 109, 110, 500])
def test_the_learning_rate_rises_and_falls(step):
    """Steps are counted from 0: ten of warm-up, and the hundred and tenth is the first without."""
    at = {
        schedule: TrainingConfig(
            learning_rate=0.5, warmup_steps=10, schedule=schedule, decay_steps=decay
        ).learning_rate_at(step)
        for schedule, decay in (("constant", None), ("linear", 110), ("cosine", 110))
    }
    if step < 10:
        assert at == dict.fromkeys(at, pytest.approx(0.05 * (step + 1)))
    else:
        done = min(1.0, (step - 9) / 100)
        falling = {"constant": 1.0, "linear": 1 - done, "cosine": math.cos(math.pi * done / 2) ** 2}
        assert at == {schedule: pytest.approx(0.5 * value, abs=1e-15) for schedule, value in falling.items()}
    assert TrainingConfig(learning_rate=0.5, warmup_steps=0).learning_rate_at(step) == 0.5


@pytest.mark.parametrize(
    ("arguments", "density"),
    [
        (["--time.name", "logit_normal"], ip.time_density.logit_normal()),
        (
            ["--time.name", "logit_normal", "--time.mean", "0.4", "--time.std", "2"],
            ip.time_density.logit_normal(0.4, 2.0),
        ),
        (["--time.name", "mode", "--time.scale", "0.5"], ip.time_density.mode(0.5)),
        (["--time.name", "cos_map"], ip.time_density.cos_map()),
        (["--time.name", "cosh"], ip.time_density.cosh(ip.linear())),
        (
            ["--time.name", "log_normal_sigma", "--time.std", "1"],
            ip.time_density.log_normal_sigma(ip.linear(), std=1.0),
        ),
    ],
    ids=str,
)
def test_times_are_drawn_from_the_density_asked_for(arguments, density):
    loss = read_config(arguments).loss()
    times = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(loss.time(times), density.truncated(*loss.interval)(times))
    assert loss.time.name.startswith(density.name)


def test_the_loss_has_the_weight_asked_for():
    weighted, plain = (
        read_config(["--weight", "min_snr", "--prediction", "noise"]).loss(),
        Config(prediction="noise").loss(),
    )
    snr = (0.3 / 0.7) ** 2
    assert plain.weight is None
    generator = torch.Generator().manual_seed(0)
    data, noise, output = torch.randn(3, 4, 2, generator=generator)
    t = torch.full((4,), 0.3)
    ratio = weighted.at(lambda x, t: output, data, noise, t) / plain.at(lambda x, t: output, data, noise, t)
    torch.testing.assert_close(ratio, torch.full((4,), min(snr, 5.0) / snr))
    assert read_config(["--weight", "1 - t"]).loss().weight(0.3) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--time.name", "normal"],
            "config: time.name must be one of uniform, logit_normal, mode, cos_map, cosh, log_normal_sigma",
        ),
        (["--time.name", "mode", "--time.mean", "1"], r"config: time.mean must be null, as mode has none, got 1.0"),
        (["--time.mean", "1"], r"config: time.mean must be null, as uniform has none"),
        (
            ["--training.schedule", "cosine"],
            "config: training.decay_steps must be above training.warmup_steps, got None",
        ),
        (
            ["--training.schedule", "linear", "--training.decay_steps", "50"],
            "must be above training.warmup_steps, got 50",
        ),
        (["--training.decay_steps", "500"], "config: training.decay_steps must be null with a constant rate, got 500"),
        (
            ["--training.schedule", "step"],
            "config: training.schedule must be one of constant, cosine, linear, got 'step'",
        ),
        (["--weight", "min_snrr"], "Did you mean 'min_snr'"),
        (["--training.ema_decays", "[]"], "config: training.ema_decays must be one or more different numbers"),
        (["--training.ema_decays", "[0.5, 0.5]"], "must be one or more different numbers"),
        (["--training.ema_widths", "[0.3]"], r"config: training.ema_widths must be different numbers in \(0, 0.2887\]"),
        (
            ["--training.ema_widths", "[0.1]"],
            "config: training.ema_snapshot_every must be set where there are training.ema_widths, else null, got None",
        ),
        (["--training.ema_snapshot_every", "5"], "training.ema_snapshot_every must be set where .*, got 5"),
        (["--training.parallel", "fsdp2"], "config: training.parallel must be one of ddp, fsdp, got 'fsdp2'"),
        (["--coupling", "OT"], "config: coupling must be one of independent, ot, got 'OT'"),
        (["--training.micro_batch", "0"], "config: training.micro_batch must be at least 1, or null, got 0"),
        (["--data.name", "folder"], "config: data.source must be set, for data.name folder, got None"),
        (["--data.source", "x"], "config: data.source must be unset for digits .*--data.name folder.*, got 'x'"),
        (["--data.workers", "-1"], "config: data.workers must be at least 0, got -1"),
    ],
)
def test_a_wrong_objective_schedule_or_source_is_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_config(arguments)
    assert "\n" not in str(caught.value)


# Files from elsewhere


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Config)])
@pytest.mark.parametrize(
    "value", ["{class_path: planted.X}", "{class_path: planted.X, init_args: {a: 1}}", "planted.X", "[planted.X]"]
)
def test_nothing_that_a_file_names_is_imported(key, value, tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('the code of a file ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "config.yaml").write_text(f"{key}: {value}\n")
    if key in ("run", "init") and value == "planted.X":  # a folder may be called so
        assert getattr(read_config(["--config", str(tmp_path / "config.yaml")]), key) == "planted.X"
        return
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read_config(["--config", str(tmp_path / "config.yaml")])


def test_a_class_path_is_refused_with_its_reason(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {class_path: planted.X}\n")
    with pytest.raises(ValueError, match=r"^config: no setting may name code, got 'planted\.X'\. Nothing that"):
        read_config(["--config", str(tmp_path / "config.yaml")])


@pytest.mark.parametrize(("text", "name"), [("data: 3", "data"), ("model: [a]", "model"), ("log: null", "log")])
def test_a_group_must_be_a_group(text, name, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"config: {name} must be a group of settings, got"):
        read_config(["--config", str(tmp_path / "config.yaml")])


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What runs code.

    Args:
        extractor: It.
    """

    extractor: str = such_as(("digits",), runs_code=True)


@pytest.mark.parametrize("flag", [["--extractor", "mine:features"], ["--extractor=mine:features"]])
def test_what_runs_code_is_typed_by_a_person(flag, tmp_path):
    file = ["--config", str(tmp_path / "config.yaml")]
    (tmp_path / "config.yaml").write_text("extractor: mine:features\n")
    with pytest.raises(ValueError, match=r"config: extractor must be typed as a flag where it names code, got 'mine"):
        read_config(file, Extraction)
    assert read_config([*file, *flag], Extraction).extractor == "mine:features"
    (tmp_path / "config.yaml").write_text("extractor: digits\n")
    assert read_config(file, Extraction).extractor == "digits"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.yaml").write_text("run: ~/runs/mine\ndata: {name: folder, source: ~/images}\n")
    config = read_config(["--config", str(tmp_path / "config.yaml")])
    assert config.run == f"{tmp_path}/runs/mine"
    assert config.data.source == f"{tmp_path}/images"
    assert read_config(["--run=~/x~y"]).run == f"{tmp_path}/x~y"


def test_the_settings_of_a_run_are_read_where_no_file_is_given(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    begun = read_config([f"--run={run}", "--model.name=SiT-N/8", "--path.alpha=t**2", "--path.sigma=1-t", "--seed=5"])
    (run / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(begun)))
    for flags in ([f"--run={run}"], ["--run", str(run)]):
        assert read_config(flags) == begun
        assert read_config([*flags, "--seed", "7"]) == dataclasses.replace(begun, seed=7)
        assert read_config(["--training.steps=9", *flags]).model.name == "SiT-N/8"
    moved = run.rename(tmp_path / "moved")
    assert read_config(["--run", str(moved)]) == dataclasses.replace(begun, run=str(moved))
    assert read_config(["--config", str(DIGITS), f"--run={moved}"]).model.name != "SiT-N/8"
    assert read_config([f"--run={tmp_path}/new"]).model.name == Config().model.name
    with pytest.raises(ValueError, match="config"):
        read_config(["--run"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--lr 1e-4", "there is no setting 'lr'. It is called 'training.learning_rate'."),
        ("--training.lr 1e-4", "there is no setting 'training.lr'. It is called 'training.learning_rate'."),
        ("ODE --seed 1", "arguments must begin with --, got 'ODE'. Each setting is --name value."),
        ("digits", "arguments must begin with --, got 'digits'. Each setting is --name value."),
        ("--sampling.classes uncond", "or a list of classes by number (for none, set sampling.guidance_scale to 0)"),
        ("--data-path x", "there is no setting 'data-path'. It is called 'data.source'."),
        ("--batch_size 3", "there is no setting 'batch_size'. It is called 'data.batch_size'."),
        ("--epochs 4", "It is called 'training.steps'. Steps are epochs times images over data.batch_size."),
        ("--model SiT-XL/2", "model is a group of settings, got 'SiT-XL/2'. Did you mean --model.name SiT-XL/2?"),
        ("--data images", "data is a group of settings, got 'images'. Did you mean --data.name images?"),
        ("--model.num_classes null", "model.num_classes must be an integer, got null. 0 is none."),
        ("--change_path gvp", "there is no setting 'change_path'. It is called 'sampling.path'."),
        ("--sampling.path.alpha t", "sampling.path must be the name of a path, or a mapping with alpha and sigma"),
        ("--data.batch-size 3", "there is no setting 'data.batch-size'. Nearest: 'data.batch_size'."),
        ("--sampling-method euler", "It is called 'sampling.ode.method' or 'sampling.sde.method'."),
        ("--ckpt x", "there is no setting 'ckpt'. It is called 'init'."),
        ("--tf32", "there is no setting 'tf32'. It is called 'training.precision'. Set it to tf32."),
        ("--last-step-size 0.04", "It is called 'sampling.sde.interval'. For a last step of 0.04, end it at"),
        ("--reverse", "there is no setting 'reverse'. It is a command: sit reverse."),
        ("--log.evry 3", "there is no setting 'log.evry'. Nearest: 'log.every'."),
        ("--steps 3", "there is no setting 'steps'. Nearest: 'time.steps' and 'training.steps'."),
        ("--training_steps 3", "there is no setting 'training_steps'. Nearest: 'training.steps'."),
        ("--zzz", "there is no setting 'zzz'. Nothing has a name like it. --help lists all."),
        ("--training.foo 3", "there is no setting 'training.foo'. Nothing has a name like it. --help lists all."),
        (
            "--trainig.steps 4 --zzz 3 --lr=2 x",
            "arguments must begin with --, got 'x'. Each setting is --name value. There is no setting 'trainig.steps'. "
            "Nearest: 'training.steps'. There is no setting 'zzz'. Nothing has a name like it. There is no setting "
            "'lr'. It is called 'training.learning_rate'. --help lists all.",
        ),
    ],
)
def test_flags_that_are_typed_from_habit_are_told_what_they_are_called(flags, said):
    with pytest.raises(ValueError, match=f"^config: .*{re.escape(said)}"):
        read_config(flags.split())


@pytest.mark.parametrize("typed", ["ODE --seed 1", "--seed 1 SDE", "--ODE", "--sde"])
def test_the_sampler_may_be_meant_by_its_name(typed):
    name = re.search("[OS]DE", typed.upper())[0].lower()
    with pytest.raises(ValueError, match=f"Say --sampler {name}"):
        read_config(["--output", "x", *typed.split()], Generation)


def test_what_flags_are_called_elsewhere_are_settings_here():
    keys = flat(dataclasses.asdict(Config()))
    meant = {name for names in HABITS.values() for name in re.split(", | & ", names)}
    others = {"pretrained", "precision", "output", "source", "image_size", "workers"}  # of the other commands
    assert meant - set(keys) == others


def test_a_run_and_weights_are_named_as_the_command_takes_them(tmp_path, monkeypatch):
    """Whatever flag or word they are typed with from habit; those of a user's own folder of that name are no run."""
    monkeypatch.chdir(tmp_path)
    step = Path("runs/mine/checkpoints/step-00000003")
    step.mkdir(parents=True)
    (step / "checkpoint.json").touch()
    Path("checkpoints").mkdir()
    file = "checkpoints/official.pt"
    for place in ("runs/mine", "runs/mine/checkpoints", step, step / "ema.safetensors"):
        for typed in (f"--ckpt {place}", f"--checkpoint={place}", f"--model {place}", f"--config {place}", str(place)):
            with pytest.raises(ValueError, match=r"^config: .* Say --run .*runs/mine\.$"):
                read_config(typed.split(), Drawing)
            with pytest.raises(ValueError, match=r"^config: .* --run .*, or to begin .* --init .*runs/mine\.$"):
                read_config(typed.split())
    for typed in (f"--ckpt {file}", f"--model {file}", file):
        with pytest.raises(ValueError, match=f"^config: .* Say --pretrained {file}.$"):
            read_config(typed.split(), Drawing)
        with pytest.raises(ValueError, match=f"^config: .* Say --init {file}.$"):
            read_config(typed.split())
    for place in ("runs/mine", file):
        with pytest.raises(ValueError, match=r"config: weights must be the name of an average, or model; a file of"):
            read_config(["--weights", place], Drawing)


def test_the_settings_of_a_run_are_found_from_its_checkpoint(tmp_path):
    step = tmp_path / "checkpoints" / "step-00000003"
    step.mkdir(parents=True)
    (step / "checkpoint.json").touch()
    (tmp_path / "config.yaml").write_text("seed: 7")
    assert [read_config(["--run", str(place)]).seed for place in (tmp_path, step.parent, step)] == [7, 7, 7]


def test_settings_of_the_network_and_of_the_samplers_reach_them():
    flags = (
        "--model.input_size [16,8] --model.qk_norm true --model.rope true --sampling.ode.rtol 1e-5 "
        "--sampling.ode.interval [0.001,0.999] --sampling.sde.eta 0.5 --sampling.sde.method ancestral "
        "--sampling.sde.w null --sampling.guidance_channels 3 --sampling.guidance_scale 2 --time.interval [0,0.99]"
    )
    config = read_config(flags.split())
    assert config.model.size == (16, 8)
    assert config.model.given() == {
        "name": "SiT-T/2", "input_size": (16, 8), "in_channels": 1, "num_classes": 10, "class_dropout": 0.1,
        "rope": True, "qk_norm": True,
    }  # fmt: skip
    assert (config.sampling.ode.rtol, config.sampling.ode.interval) == (1e-5, (0.001, 0.999))
    assert config.sampling.sde.eta == 0.5
    assert config.sampling.guidance().channels == 3
    assert config.loss().interval == (0.0, 0.99)
    flags = "--sampling.sde.last_step null --sampling.sde.w sigma(0.5) --sampling.sde.interval [0,0.9]"
    assert str(read_config(flags.split()).sampling.sde) == "SDE, w = sigma(0.5), 250 steps, last step none"
    flags = "--sampling.ode.official true --sampling.ode.grid shifted(2)"
    with pytest.raises(ValueError, match="grid must be uniform, where official"):
        read_config(flags.split())
    assert str(read_config(["--sampling.ode.official=true"]).sampling.ode) == "official ODE, 50 steps"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--sampling.ode.rtol 0 --sampling.ode.atol 0", "rtol, atol: must be finite and >= 0, and not both 0"),
        ("--sampling.ode.max_calls 0", "max_calls: must be at least 1"),
        ("--sampling.sde.eta 0.5", "eta: must be 1 for the method euler, got 0.5"),
        ("--sampling.ode.interval [0.5,0.2]", "sampling.ode.interval must be inside [0, 1] and not empty"),
        ("--sampling.guidance_channels 0", "channels must be an integer of at least 1"),
    ],
)
def test_wrong_settings_of_samplers_are_refused_before_any_work(flags, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read_config(flags.split())
