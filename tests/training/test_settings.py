"""What settings may be, and how help shows them."""

import sys
from argparse import ArgumentError
from dataclasses import dataclass, field

import pytest

from training.config import Config
from training.settings import make_parser, one_of, require_choices, settings_of, such_as


@dataclass(frozen=True)
class Part:
    """The part.

    Args:
        size: In ``metres``; 5 % more is fine.
    """

    size: float | None = 1.5


@dataclass(frozen=True)
class Own:
    """A kind of one's own.

    Args:
        alpha: Text.
    """

    alpha: str


@dataclass(frozen=True)
class Settings:
    """All of it.

    Args:
        output: Where to.
        colour: Of the thing.
        shade: dark or light.
        many: Words.
        numbers: Several.
        kind: By name.
        flag: Whether.
        maybe: Whether, or null.
        count: How many.
        part: Of it.
    """

    output: str
    colour: str | None = one_of(("red", "blue"), None)
    shade: str = such_as(("dark", "light"), "dark")
    many: str = one_of([f"word{k}" for k in range(20)], "word0")
    numbers: tuple[float, ...] = (1.0, 2.0)
    kind: str | Own = such_as(("linear",), "linear")  # noqa: RUF009 - a dataclasses.field
    flag: bool = False
    maybe: bool | None = None
    count: int = 0
    part: Part = field(default_factory=Part)


def test_what_may_follow_a_flag_is_known():
    words = tuple(f"word{k}" for k in range(20))
    assert {name: setting[:2] for name, setting in settings_of(Settings)} == {
        "output": ("TEXT", ()), "colour": ("{red,blue,null}", ("red", "blue", "null")),
        "shade": ("TEXT", ("dark", "light")), "many": ("TEXT", words), "numbers": ("[NUMBER,...]", ()),
        "kind": ("TEXT", ("linear",)), "kind.alpha": ("TEXT", ()), "flag": ("{true,false}", ("true", "false")),
        "maybe": ("{true,false,null}", ("true", "false", "null")), "count": ("INTEGER", ()),
        "part.size": ("NUMBER", ("null",)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"colour": "green"}, "config: group.colour must be one of red, blue, got 'green'."),
        ({"many": "word20"}, "config: group.many must be one of word0, .* word19, got 'word20'."),
        ({"colour": "red"}, None),
        ({"colour": None}, None),
        ({"shade": "grey"}, None),
    ],
)
def test_a_value_that_is_no_choice_is_refused(given, message):
    settings = Settings("out", **given)
    if message is None:
        require_choices(settings, "group")
    else:
        with pytest.raises(ValueError, match=f"^{message}$"):
            require_choices(settings, "group")


def test_a_field_without_default_must_be_given():
    @dataclass(frozen=True)
    class Must:
        colour: str = one_of(("red", "blue"))

    with pytest.raises(TypeError):
        Must()
    with pytest.raises(ValueError, match="config: colour must be one of red, blue, got 'green'"):
        require_choices(Must("green"))


ABOUT = """Paint it in ``colour``.

A second paragraph, which is so long that it does not fit on one line of a terminal of eighty columns.

Commands::

    python examples/paint.py --config examples/configs/red.yaml
    torchrun --nproc_per_node 2 -- examples/paint.py --config examples/configs/red.yaml
"""


@pytest.fixture
def help_of(monkeypatch):
    def text(name):
        monkeypatch.setattr(sys, "argv", [name])
        monkeypatch.setenv("COLUMNS", "80")
        return make_parser(Settings, ABOUT).format_help()

    return text


def test_help_is_as_it_should_be_read(help_of):
    lines = help_of("examples/paint.py").splitlines()
    for line in (
        "usage: paint.py --output TEXT [--config FILE] [--SETTING VALUE ...]",
        "Paint it in `colour`.",
        "A second paragraph, which is so long that it does not fit on one line of a",
        "terminal of eighty columns.",
        "examples:",
        "  python examples/paint.py --config examples/configs/red.yaml",
        "  --output TEXT         Where to. (required)",
        "                        Of the thing. (default: null)",
        "  --shade TEXT          dark or light. (default: dark)",
        "  --part.size NUMBER    In `metres`; 5 % more is fine. (default: 1.5)",
        "  --count INTEGER       How many. (default: 0)",
        "  --flag [{true,false}]",
        "                        Several. (default: [1.0, 2.0])",
    ):
        assert line in lines
    text = "\n".join(lines)
    assert "Known: word0, word1," in " ".join(text.split())
    assert not any(word in text for word in ("type:", "--part CONFIG", "kind.help", "=flags"))
    assert text.endswith("130 interrupted")


def test_the_examples_of_help_are_in_the_words_of_the_command(help_of):
    text = help_of("sit paint")
    assert "usage: sit paint --output TEXT" in text
    assert "examples:\n  sit paint --config red\n  torchrun --nproc_per_node 2 -m -- sit paint --config red\n" in text
    assert "examples/" not in text


def test_hidden_flags_still_work(tmp_path):
    """Those of files for a part of the settings."""
    (tmp_path / "part.yaml").write_text("size: 3.0\n")
    parser = make_parser(Settings)
    given = parser.parse_args(["--output", "x", "--part", str(tmp_path / "part.yaml"), "--kind.alpha", "t"])
    assert (given.part.size, given.kind.alpha) == (3.0, "t")


def test_a_flag_alone_says_yes():
    def read(*words):
        given = make_parser(Settings).parse_args(["--output", "x", *words])
        return given.flag, given.maybe, given.count

    assert read("--flag") == (True, None, 0)
    assert read("--flag", "--maybe", "--count", "3") == (True, True, 3)
    assert read("--flag", "false", "--maybe=null") == (False, None, 0)
    with pytest.raises(ArgumentError, match="expected one argument"):
        read("--count")


def test_errors_say_what_a_value_must_be():
    assert {name: setting.contract for name, setting in settings_of(Settings)} == {
        "output": "text", "colour": "text or null", "shade": "text", "many": "text", "numbers": "a list [NUMBER, ...]",
        "kind": "text or a mapping", "kind.alpha": "text", "flag": "true or false", "maybe": "true or false or null",
        "count": "an integer", "part.size": "a number or null",
    }  # fmt: skip


def test_every_setting_of_a_run_says_what_it_is():
    actions = {action.dest: action for action in make_parser(Config)._actions}
    for name, (metavar, *_) in settings_of(Config):
        if "path." not in name:
            assert len(str(actions[name].help).split(" (default")[0]) > 3, name
            assert actions[name].metavar == metavar
