"""The command line: formulas, ledger, exit codes."""

import os
import re
import shlex
import subprocess
import sys
from types import ModuleType

import pytest
import sympy as sp

import interpolants
from interpolants import Entry, Ledger, Path, diffusion, t
from interpolants import __main__ as command
from interpolants.expression import ARGUMENTS
from interpolants.library import LIBRARY

R = sp.Rational


def exit_code(arguments):
    """Of the process."""
    try:
        return command.main(arguments)
    except SystemExit as ended:
        return ended.code


def test_a_path_prints_its_formulas_and_its_ledger(capsys):
    assert command.main(["t", "1-t"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "alpha = t" in lines
    assert "sigma' = -1" in lines
    assert "W = 1" in lines
    assert "log-SNR = 2*log(t/(1 - t))" in lines
    assert "data from velocity = velocity*(1 - t) + x" in lines
    assert "score from noise = -noise/(1 - t)" in lines
    assert "f = -1/t" in lines
    assert "g^2 = 2*(1 - t)/t" in lines
    assert "w, sigma = 2 - 2*t" in lines
    assert "drift, sigma = velocity*(t + 1) - x" in lines
    assert "(t, 1 - t): 31 proved" in lines
    assert sum(" from " in line and "=" in line for line in lines) == 12


def test_the_formulas_hold_at_a_time_on_a_path_that_is_no_straight_line():
    """alpha = t^2 and sigma = 1 - t at t = 1/4, for data 2 and noise -3, by hand."""
    data, noise, time = 2, -3, sp.Rational(1, 4)
    quantity = {"velocity": 2 * time * data - noise, "score": -noise / (1 - time), "noise": noise, "data": data}
    x = time**2 * data + (1 - time) * noise
    values = {sp.Symbol("x"): x, t: time, **{sp.Symbol(name): value for name, value in quantity.items()}}
    formulas = {name: sp.sympify(expr).subs(values) for name, expr in command.formulas(Path("t**2", "1-t"))}
    of_path = {
        "alpha": R(1, 16), "sigma": R(3, 4), "alpha'": R(1, 2), "sigma'": -1, "W": R(7, 16),
        "log-SNR": 2 * sp.log(R(1, 12)), "f": -8, "g^2": R(21, 2),
    }  # fmt: skip
    w = {name: formulas[f"w, {name}"] for name in diffusion.CHOICES}
    assert [w[name] for name in ("constant", "sigma", "linear", "kl_optimal")] == [2, R(3, 2), R(3, 2), R(21, 2)]
    expected = {
        **of_path,
        **{f"{b} from {a}": quantity[b] for a in quantity for b in quantity if a != b},
        **{f"w, {name}": value for name, value in w.items()},
        **{f"drift, {name}": quantity["velocity"] + value / 2 * quantity["score"] for name, value in w.items()},
    }
    assert formulas.keys() == expected.keys()
    for name, value in expected.items():
        assert sp.simplify(formulas[name] - value) == 0, name


def test_it_says_which_commands_there_are(capsys):
    assert command.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m interpolants COMMAND")
    assert "\n  prove    print the formulas" in out
    assert "\n  explore  draw pictures of them" in out


def test_help_says_what_to_give(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["prove", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for phrase in (
        "usage: python -m interpolants prove [-h]", "[--parameter NAME=NUMBER] alpha [sigma]",
        'alpha(t), such as "t", or a path by its name: linear, gvp, ', 'sigma(t), such as "1-t"; none with the name',
        "--latex LaTeX instead of plain text", 'python -m interpolants prove "t**p" "1-t**p" --parameter p=2',
        "exit codes: 0 no identity failed; 1 one failed; 2 wrong input; 130 interrupted",
    ):  # fmt: skip
        assert phrase in text


def test_each_example_of_its_help_is_understood():
    for name, parser in command.parsers("sit").items():
        examples = re.findall(r"^  %\(prog\)s(.*)$", parser.epilog, re.MULTILINE)
        assert len(examples) == 3
        for example in examples:
            assert command._path(parser.parse_args(shlex.split(example))).name, (name, example)


def test_the_names_of_paths_are_those_of_the_library():
    assert tuple(LIBRARY) == command.PATHS


@pytest.mark.parametrize("words", [["t", "1-t"], ["linear"], ["--latex", "linear"]])
def test_prove_may_be_left_out(words, capsys):
    assert command.main(words) == 0
    without = capsys.readouterr().out
    assert command.main(["prove", *words]) == 0
    assert capsys.readouterr().out == without


def test_names_parameters_and_latex(capsys):
    assert command.main(["t**p*q", "1-t**p", "--parameter", " p = 2", "--parameter", "q=1", "--latex"]) == 0
    out = capsys.readouterr().out
    assert "alpha = t^{2}\n" in out
    assert r"\begin{array}{lll}" in out
    assert command.main(["linear"]) == 0
    assert "linear: 31 proved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1-t", "t"], "log-SNR must increase"),
        (["lineer"], "Did you mean 'linear'"),
        (["prov", "t", "1-t"], "there is no command 'prov'. Nearest: prove."),
        (["explor"], "there is no command 'explor'. Nearest: explore."),
        (
            [],
            "alpha must be given, got nothing. Add alpha and sigma, or the name of a path. See: python",
        ),
        (["t"], "sigma: must be given after alpha = 't', such as 1-t."),
        (["vp", "1-t"], "sigma: must be left out with alpha = 'vp', the name of a path, got '1-t'."),
        (["t", "1-t", "--latx"], "there is no option --latx. Nearest: --latex."),
        (["t", "1-t", "--ltx", "--foo=3"], "no option --ltx. Nearest: --latex. there is no option --foo. See: python"),
        (
            ["t", "1-t", "2"],
            "at most alpha and sigma may be given, got 2 too. See: python -m interpolants prove",
        ),
        (["explore", "--port", "x"], "argument --port: invalid int value: 'x'"),
        (["explore", "t", "t"], "(t, t) is no path"),
        (["t**2"], "sigma: must be given after alpha = 't**2', such as 1-t."),
        (["__import__('os')", "1-t"], "alpha: unknown call"),
        (["t**p", "1-t", "--parameter", "p"], "--parameter: must be NAME=NUMBER, such as p=2, got 'p'"),
        (["vp", "--parameter", "p=2"], "--parameter: must not be given with a path of the library, got p."),
        *(([f"t**{name}", "1-t", "--parameter", f"{name}=2"], f"got {name!r}. Rename it.") for name in ARGUMENTS),
        (["t", "1-t", "--parameter", "p=2"], "a parameter must occur in an expression, got 'p'"),
    ],
)
def test_wrong_input_is_said_in_one_line_and_exits_with_2(arguments, message, capsys):
    assert exit_code(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


def ledger(status="failed"):
    return Ledger(
        "p",
        (
            Entry("first", "x", "proved", 1),
            Entry("second", "x", "bounded", 1, bound=1e-9),
            Entry("third", "x", status, 1, counterexample="1 is not 2, proved" if status == "failed" else None),
        ),
    )


def test_a_failed_identity_exits_with_1(monkeypatch, capsys):
    monkeypatch.setattr("interpolants.prove", lambda path: ledger())
    assert command.main(["t", "1-t"]) == 1
    assert "third   failed: 1 is not 2" in capsys.readouterr().out


def test_each_status_has_its_colour_where_there_are_colours(monkeypatch, capsys):
    monkeypatch.setattr("interpolants.prove", lambda path: ledger())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    command.main(["t", "1-t"])
    lines = capsys.readouterr().out.splitlines()[-4:]
    monkeypatch.setenv("NO_COLOR", "1")
    command.main(["t", "1-t"])
    plain = capsys.readouterr().out.splitlines()[-4:]
    assert plain == str(ledger()).splitlines()
    assert lines == [
        "p: 1 proved, 1 bounded, 1 failed",
        "  first   \x1b[32mproved\x1b[0m",
        plain[2].replace("bounded", "\x1b[33mbounded\x1b[0m"),
        "  third   \x1b[31mfailed\x1b[0m: 1 is not 2, proved",
    ]


def test_an_interruption_exits_with_130(monkeypatch, capsys):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("interpolants.prove", interrupted)
    assert command.main(["t", "1-t"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    monkeypatch.setattr("interpolants.prove", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.main(["t", "1-t"])


def test_a_limit_that_is_not_established_is_one_line(monkeypatch, capsys):
    def unknown(path):
        raise ArithmeticError("alpha: the limit at t = 1 is not established.")

    monkeypatch.setattr("interpolants.prove", unknown)
    assert command.main(["t", "1-t"]) == 2
    assert capsys.readouterr().err == "error: alpha: the limit at t = 1 is not established.\n"


@pytest.fixture
def explorer(monkeypatch):
    """In place of the explorer one that notes how it is called."""
    fake = ModuleType("interpolants.explorer")
    fake.calls = []
    fake.write_html = lambda path, file: fake.calls.append((path, file))
    fake.launch = lambda **given: fake.calls.append(given)
    monkeypatch.setitem(sys.modules, "interpolants.explorer", fake)
    monkeypatch.setattr(interpolants, "explorer", fake, raising=False)
    return fake


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], {"alpha": "linear", "sigma": None}),
        (["gvp", "--port", "8080"], {"alpha": "gvp", "sigma": None, "port": 8080}),
        (
            ["t**p", "1-t", "--parameter", "p=3", "--no-browser"],
            {"alpha": "t**p", "sigma": "1-t", "parameters": {"p": 3.0}, "browser": False},
        ),
    ],
)
def test_explore_shows_the_path_on_this_computer_alone(words, shown, explorer):
    assert command.main(["explore", *words]) == 0
    assert explorer.calls == [{"host": "127.0.0.1", "port": None, "browser": True, "parameters": {}, **shown}]


def test_explore_writes_one_file(explorer, capsys):
    assert command.main(["explore", "t**2", "1-t", "--html", "out.html"]) == 0
    assert explorer.calls == [(Path("t**2", "1-t"), "out.html")]
    assert "out.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [ImportError('Install it: pip install "sit-interpolants[explore]".'), OSError("port 80 is taken")]
)
def test_what_the_explorer_lacks_is_one_line(error, explorer, capsys):
    def fail(**given):
        raise error

    explorer.launch = fail
    assert command.main(["explore"]) == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "interpolants", "t", "2-t"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "must be the data end" in done.stderr


def test_a_reader_may_have_seen_enough(monkeypatch, capsys):
    """As ``head`` has, which closes its end of the pipe."""
    theirs, ours = os.pipe()
    os.close(theirs)
    with os.fdopen(ours, "w") as stream:
        monkeypatch.setattr("interpolants.prove", lambda path: ledger("proved"))
        monkeypatch.setattr(sys, "stdout", stream)
        assert command.main(["t", "1-t"]) == 0
    assert capsys.readouterr().err == ""
