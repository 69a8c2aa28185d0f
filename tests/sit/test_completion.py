"""What the shells complete: the script is given to a shell, which is asked."""

import dataclasses
import shlex
import shutil
import subprocess

import pytest
from scripts import EXAMPLES

import interpolants
from interpolants.library import LIBRARY
from sit import __main__ as sit
from sit.completion import SHELLS, script
from training import ODE_METHODS, SDE_METHODS
from training.checkpoint import flat
from training.config import Config, read_config


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for shell in SHELLS:
        (folder / shell).write_text(script(shell))
    return folder


@pytest.fixture
def completed(scripts, tmp_path):
    """What bash completes the last of some words to, in a folder with two files and a folder, and without a PATH."""
    (tmp_path / "own.yaml").touch()
    (tmp_path / "own.txt").touch()
    (tmp_path / "owned").mkdir()

    def ask(*words):
        lines = (
            f"source {shlex.quote(str(scripts / 'bash'))}",
            f"COMP_WORDS=(sit {shlex.join(words)}); COMP_CWORD={len(words)}",
            "function=$(complete -p sit); function=${function##*-F }; ${function% sit}",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        )
        done = subprocess.run(
            ["/bin/bash", "--norc", "-c", "\n".join(lines)],
            cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.split()

    return ask


bash = pytest.mark.skipif(not shutil.which("/bin/bash"), reason="there is no /bin/bash")


@bash
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([""], sit.COMMANDS),
        (["t"], ["train"]),
        (["train", "--prediction", ""], list(interpolants.QUANTITIES)),
        (["train", "--run", "x", "--training.schedule", "c"], ["constant", "cosine"]),
        (["train", "--data.flip", ""], ["true", "false"]),
        (["train", "--path", ""], list(LIBRARY)),
        (["train", "--path.a"], ["--path.alpha"]),
        (["train", "--model.name", "SiT-X"], ["SiT-XL/2", "SiT-XL/4", "SiT-XL/8"]),
        (["sample", "--sampling.ode.method", ""], [*ODE_METHODS, "null"]),
        (["sample", "--sampling.sde.method", ""], SDE_METHODS),
        (["sample", "--sampling.sde.w", ""], [*interpolants.diffusion.CHOICES, "null"]),
        (["generate", "--sampler", ""], ["ode", "sde"]),
        (["likelihood", "--likelihood.method", "dopri"], ["dopri5", "dopri8"]),
        (["encode", "--dtype", ""], ["float16", "float32"]),
        (["evaluate", "--extractor", ""], ["digits"]),
        (["train", "--config", "d"], ["digits"]),
        (["train", "--config", "own"], ["own.yaml", "owned"]),
        (["train", "--run", "own"], ["own.txt", "own.yaml", "owned"]),
        (["prove", ""], list(LIBRARY)),
        (["prove", "vp", "--"], ["--latex", "--parameter"]),
        (["explore", "--"], ["--html", "--port", "--no-browser", "--parameter"]),
        (["configs", "imagenet512"], ["imagenet512-XL"]),
        (["completion", ""], SHELLS),
        (["trian", "--tr"], []),
    ],
    ids=str,
)
def test_bash_completes(words, expected, completed):
    """Nothing but bash itself runs: there is no other program on its PATH."""
    found = set(completed(*words)) - {"--help"}
    assert found == set(expected)


@bash
def test_every_flag_is_completed_and_none_that_there_is_not(completed):
    known = {f"--{name}" for name in flat(dataclasses.asdict(Config()))}
    of_paths = {f"--{path}.{name}" for path in ("path", "sampling.path") for name in ("alpha", "sigma")}
    others = {"--help", "--config", "--print_config", *of_paths}
    assert set(completed("train", "--")) == known | others


@bash
def test_a_choice_that_is_completed_is_taken(completed):
    flags = ("prediction", "coupling", "time.name", "training.precision", "training.parallel", "sampling.ode.grid")
    choices = {flag: completed("train", f"--{flag}", "") for flag in flags}
    for k in range(max(map(len, choices.values()))):
        given = {flag: values[k % len(values)] for flag, values in choices.items()}
        config = flat(dataclasses.asdict(read_config([f"--{flag}={value}" for flag, value in given.items()])))
        assert config.items() >= given.items()


@pytest.mark.parametrize("shell", [each for each in SHELLS if each != "bash"])
def test_other_shells_read_it(shell, scripts):
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    subprocess.run([shell, "-n", str(scripts / shell)], check=True)


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sit ", sit.COMMANDS),
        ("sit train --prediction ", list(interpolants.QUANTITIES)),
        ("sit configs ", list(sit.configs())),
    ],
)
def test_fish_completes(line, expected, scripts):
    ask = f"source {shlex.quote(str(scripts / 'fish'))}; complete -C {shlex.quote(line)}"
    done = subprocess.run(["fish", "--no-config", "-c", ask], capture_output=True, text=True, check=True)
    assert {each.split("\t")[0] for each in done.stdout.splitlines()} == set(expected)


def test_a_setting_of_every_script_is_in_each_shell(scripts):
    for shell in SHELLS:
        text = (scripts / shell).read_text()
        for name, (file, _) in sit.TRAINING.items():
            assert name in text, (EXAMPLES / file, shell)
        for flag in ("likelihood.probes", "shard_size", "replicates", "png"):
            assert flag in text
