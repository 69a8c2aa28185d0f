"""Pages of the documentation whose code a test runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def names_of(page: str) -> dict[str, Any]:
    """What the cells of a text notebook define, run one after another."""
    names: dict[str, Any] = {}
    cells = re.findall(r"```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    for _, code in cells:
        exec(compile(code, page, "exec"), names)
    return names
