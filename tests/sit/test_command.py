"""The command ``sit``: what it runs, says and returns, and how soon."""

import ast
import contextlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from scripts import EXAMPLES, call

import interpolants
from sit import __main__ as sit
from training.checkpoint import flat, latest
from training.config import Config, read_config
from training.hub import sha256

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "command-line.md").read_text()
SMALL = ("--model.name=SiT-T/8", "--data.batch_size=8", "--training.steps=2", "--device=cpu")


@pytest.fixture
def run(monkeypatch, capsys):
    """Calls the command in this process; returns its exit code and what it printed."""

    def call_sit(*words):
        monkeypatch.setattr(sys, "argv", sys.argv)  # put back afterwards, as the others
        monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
        monkeypatch.setattr("warnings.formatwarning", None)
        capsys.readouterr()
        try:
            code = sit.main(words)
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return call_sit


def process(*words, **variables):
    """The command in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "sit", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**environment, **variables}, check=False)


# What there is


def test_its_help_names_each_command_with_one_line(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name in sit.COMMANDS:
        (line,) = re.findall(rf"^  {name} +(\S.*)$", out, re.MULTILINE)
        assert len(line) > 20
    assert max(map(len, out.splitlines())) <= 100
    assert run("-h") == (0, out, "")
    assert run() == (2, "", out)


def test_its_version_is_that_of_the_package(run):
    assert run("--version") == (0, f"sit {interpolants.__version__}\n", "")


@pytest.mark.parametrize("name", sit.TRAINING)
def test_a_script_can_be_carried_alone(name):
    """Beside an installed package there is no examples/ to import from."""
    tree = ast.parse((EXAMPLES / sit.TRAINING[name][0]).read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported
    assert not [module for module in imported if module.split(".")[0] == "examples"]


def test_the_wheel_carries_what_the_commands_run(tmp_path):
    """Unpacked before all else, it runs from a folder without the sources."""
    sources = tomllib.loads((ROOT / "packaging" / "training" / "pyproject.toml").read_text())
    carried = sources["tool"]["hatch"]["build"]["hooks"]["custom"]["sources"]
    files = {f"examples/{file}": f"sit/scripts/{file}" for file, _ in sit.TRAINING.values()}
    assert {key: place for key, place in carried.items() if key.startswith("examples/")} == {
        **files, "examples/configs": "sit/scripts/configs",
    }  # fmt: skip
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT / "packaging" / "training", check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "unpacked")
    code = "import sit.__main__ as s; print(s.SCRIPTS); s.main(['configs', 'digits']); s.main(['--version'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, *text, version = done.stdout.splitlines()
    assert where == str(tmp_path / "unpacked" / "sit" / "scripts")
    assert text == (EXAMPLES / "configs" / "digits.yaml").read_text().splitlines()
    assert version == f"sit {interpolants.__version__}"


# How soon


@pytest.mark.parametrize(
    "words", ["--help", "--version", "trian", "configs", "prove --help", "explore --help", "completion --help", ""]
)
def test_help_does_not_wait_for_torch(words):
    code = (
        "import sys\nfrom sit.__main__ import main\n"
        f"try:\n    main({words.split()!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    places = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "packaging" / "training")])}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=places, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] in ("['__main__', 'sit']", "['sit']")


# What it runs


def test_train_is_the_script(run, tmp_path):
    """The networks of both are equal to the bit, and so is what they print, but for the time."""
    digits = str(EXAMPLES / "configs" / "digits.yaml")
    code, out, _ = run("train", "--config", "digits", "--run", str(tmp_path / "a"), *SMALL)
    assert code == 0
    assert out.splitlines()[-1].startswith("trained 2 steps in ")
    assert call("train.py", "--config", digits, "--run", str(tmp_path / "b"), *SMALL) == 0
    a, b = (sha256(latest(tmp_path / name).folder / "ema.safetensors") for name in "ab")
    assert a == b


def test_torchrun_starts_it(tmp_path):
    """Two processes by gloo; with ``--run``, which torchrun would take for an option of its own."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["-m", "--", "sit", "train", "--config=digits", "--run", str(tmp_path / "run"), *SMALL]
    done = subprocess.run([*torchrun, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert latest(tmp_path / "run").step == 2
    assert '"processes": 2' in (tmp_path / "run" / "environment.json").read_text()


# Configurations


def test_configurations_are_had_by_name(run):
    code, out, _ = run("configs")
    names = [line.split()[0] for line in out.splitlines()]
    assert (code, len(names)) == (0, 7)
    assert all(len(line.split()) > 5 for line in out.splitlines())
    for name in names:
        code, text, _ = run("configs", name)
        assert (code, text) == (0, (EXAMPLES / "configs" / f"{name}.yaml").read_text())
        written = flat(yaml.safe_load(text))
        config = read_config(sit.with_config(["--config", name]))
        assert (config.run, config.model.name) == (written["run"], written["model.name"])
        assert read_config(sit.with_config([f"--config={name}"])) == config


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("seed: 7\n")
    assert sit.with_config(["--config", "digits"]) == ["--config", "digits"]
    assert sit.with_config(["--seed", "digits", "--config=own.yaml", "--config", "a/digits"]) == [
        "--seed", "digits", "--config=own.yaml", "--config", "a/digits",
    ]  # fmt: skip


# Exit codes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "error: there is no command 'trian'. Nearest: train. See: sit --help."),
        ("train --config digts", "error: config: there is no file and no configuration 'digts'. Nearest: digits."),
        ("train --config nowhere.yaml", "File does not exist"),
        ("train --training.stps 3", "error: config: there is no setting 'training.stps'. Nearest: 'training.steps'."),
        ("train --prediction speed", "prediction must be one of velocity, score, noise, data, got 'speed'"),
        ("sample --config digits --run nowhere", "error: nowhere: there is no checkpoint. Train first: sit train"),
        ("zzz", "error: there is no command 'zzz'. See: sit --help."),
        ("train --config zzz", "error: config: there is no file and no configuration 'zzz'. See: sit configs."),
        ("train --config .", "config: --config must be a file of settings, got '"),
        ("generate", "config: output must be set, got nothing. Add --output TEXT (Folder to write to)."),
        ("evaluate --samples x", "config: reference and extractor must be set, got nothing. Add --reference TEXT ("),
        ("evaluate --samples nowhere --reference x --extractor digits", "nowhere: images must be a folder"),
        ("encode --source x --output y --dtype int8", "error: config: dtype must be one of float16, float32"),
        ("prove t t", "error: (t, t) is no path"),
        ("prove t 1-t --latx", "error: there is no option --latx. Nearest: --latex."),
        ("explore t t --html x.html", "error: (t, t) is no path"),
        ("completion tcsh", "error: completion: the shell must be one of bash, zsh, fish, got tcsh."),
        ("configs digts", "Nearest: digits"),
    ],
)
def test_wrong_input_is_one_line_and_2(words, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_a_ledger_that_fails_is_1(ok, code, run, monkeypatch):
    entry = interpolants.Entry("x", "x", "proved" if ok else "failed", 1)
    monkeypatch.setattr("interpolants.prove", lambda path: interpolants.Ledger("p", (entry,)))
    assert run("prove", "t", "1-t")[0] == code


@pytest.mark.parametrize(
    ("words", "place"), [("prove linear", "interpolants.prove"), ("train --config digits", "training.trainer.Trainer")]
)
def test_an_interruption_is_130(words, place, run, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    code, _, err = run(*words.split())
    assert code == 130
    assert err.startswith("interrupted")


def test_a_fault_of_the_program_is_a_traceback(run, monkeypatch):
    monkeypatch.setattr("training.trainer.Trainer", lambda config: {}["missing"])
    with pytest.raises(KeyError):
        run("train", "--config", "digits")


def test_a_reader_may_have_seen_enough(monkeypatch, capsys):
    theirs, ours = os.pipe()
    os.close(theirs)
    with os.fdopen(ours, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert sit.main(["--help"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [("--help",), ("prove", "t", "1-t")])
def test_an_output_may_be_closed(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "stdout", None)  # as python does where it is
    monkeypatch.setattr(sys, "stderr", None)
    with contextlib.suppress(SystemExit):
        sit.main(words)  # raises nothing else


# Help of the commands


@pytest.mark.parametrize("name", sit.TRAINING)
def test_help_of_a_command_can_be_copied(name, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run(name, "--help")
    assert code == 0
    assert out.startswith(f"usage: sit {name} ")
    examples = out.partition("\nexamples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) >= 2
    for example in examples:
        assert understood(example.strip()) == name
    assert "python examples/" not in out
    assert out.strip().endswith("130 interrupted")


def understood(line):
    """Read the settings of a command as a user may copy it; returns its name."""
    words = shlex.split(line.partition(" > ")[0])
    if words[0] == "torchrun":
        assert words[1:3] == ["--nproc_per_node", "8"]
        assert words[3:5] == ["-m", "--"]
        words = words[5:]
    assert words[0] == "sit"
    name, flags = words[1], words[2:]
    if name in sit.TRAINING:
        from sit.completion import _settings_class

        read_config(
            sit.with_config([flag for flag in flags if flag != "--print_config"]),
            _settings_class(EXAMPLES / sit.TRAINING[name][0]),
        )
    else:
        assert name in sit.COMMANDS
    return name


# The page on it


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_page_names_every_command_and_what_it_runs():
    rows = dict(re.findall(r"^\| `sit (\w+)` \|([^|]*)\|", PAGE, re.MULTILINE))
    assert tuple(rows) == sit.COMMANDS
    for name, (file, _) in sit.TRAINING.items():
        assert rows[name].strip() == f"`examples/{file}`"
    codes = re.findall(r"^\| (\d+) \| ", PAGE, re.MULTILINE)
    assert codes == ["0", "1", "2", "130"]


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_page_is_understood(line, run, tmp_path, monkeypatch):
    """Settings are read; what takes no training runs."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text((EXAMPLES / "configs" / "digits.yaml").read_text())
    name = understood(line)
    words = shlex.split(line.partition(" > ")[0])[1:]
    if name == "prove":
        monkeypatch.setattr("interpolants.prove", lambda path: interpolants.Ledger(path.name, ()) if path else None)
        monkeypatch.setattr(interpolants.Ledger, "__str__", lambda ledger: ledger.path)
    if name in ("prove", "configs"):
        assert run(*words)[0] == 0
    if name == "explore":
        from interpolants.__main__ import _path, parsers

        assert _path(parsers("sit")["explore"].parse_args(words[1:]))


# Colour


def on_terminal(*words, **variables):
    """What a process writes to a terminal that is its standard output and error."""
    ours, theirs = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "sit", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm", **variables}, cwd=ROOT,
    ) as started:  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 4096):
                said += part
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    return started.returncode, said.decode()


def test_errors_and_statuses_are_coloured_on_a_terminal_alone(run, monkeypatch):
    code, said = on_terminal("trian")
    assert (code, said.startswith("\x1b[31merror:\x1b[0m there is no command 'trian'.")) == (2, True)
    assert "\x1b" not in on_terminal("trian", NO_COLOR="1")[1]
    assert "\x1b" not in process("trian").stderr
    assert process("trian", FORCE_COLOR="1").stderr.startswith("\x1b[31merror:\x1b[0m ")
    code, said = on_terminal("prove", "linear")
    assert code == 0
    assert said.count("  \x1b[32mproved\x1b[0m\r\n") == 31
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    plain = run("prove", "linear")[1]
    assert said.replace("\x1b[32m", "").replace("\x1b[0m", "").replace("\r\n", "\n") == plain


def test_an_error_of_a_script_is_coloured(run, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run("train", "--seed", "-1")[2].startswith("\x1b[31merror:\x1b[0m config: seed must be at least 0")
    assert Config().seed == 0
