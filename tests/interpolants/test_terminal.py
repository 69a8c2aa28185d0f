"""Colour, on a real pseudo-terminal and on what is none."""

import io
import os

import pytest

from interpolants.terminal import GREEN, paint


@pytest.fixture
def terminal():
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as stream:
        yield stream
    os.close(ours)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


GREEN_TEXT = "\x1b[32mproved\x1b[0m"


@pytest.mark.parametrize(
    ("variables", "on_terminal", "elsewhere"),
    [
        ({}, GREEN_TEXT, "proved"),
        ({"NO_COLOR": "1"}, "proved", "proved"),
        ({"NO_COLOR": ""}, GREEN_TEXT, "proved"),
        ({"FORCE_COLOR": "1"}, GREEN_TEXT, GREEN_TEXT),
        ({"FORCE_COLOR": ""}, GREEN_TEXT, "proved"),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, "proved", "proved"),
        ({"TERM": "dumb"}, "proved", "proved"),
    ],
    ids=str,
)
def test_a_terminal_is_coloured_unless_the_user_says_otherwise(
    variables, on_terminal, elsewhere, terminal, monkeypatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert paint("proved", GREEN, terminal) == on_terminal
    assert paint("proved", GREEN, io.StringIO()) == elsewhere
