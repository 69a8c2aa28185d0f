"""Colour on a terminal, and only there. Of the standard library alone, so that a command line is there at once."""

from __future__ import annotations

import os
from typing import Final, TextIO

RED: Final = 31
GREEN: Final = 32
YELLOW: Final = 33


def has_colour(stream: TextIO) -> bool:
    """Whether to colour what is written to a stream: NO_COLOR says no, then FORCE_COLOR yes, else terminals are.

    Source: no-color.org and force-color.org, by which an empty value says nothing.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: int, stream: TextIO) -> str:
    """Text in a colour where the stream has colours, else as it is."""
    return f"\x1b[{colour}m{text}\x1b[0m" if has_colour(stream) else text
