"""Draws the house from its imports: the layers are those that pyproject.toml states, the lines are in the files."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path as File
from typing import Final

from matplotlib.figure import Figure

ROOT: Final = File(__file__).parents[1]
LINE, BOX, TEXT = "#9aa5b1", "#e8f1f8", "#1b2733"


def contracts() -> list[dict[str, list[str]]]:
    """The layered contracts of import-linter."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [contract for contract in stated if contract["type"] == "layers"]


def layers(container: str | None = None) -> list[list[str]]:
    """From the top: the packages, or the modules of one of them."""
    contract = next(c for c in contracts() if c.get("containers") == (None if container is None else [container]))
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def imports(package: str) -> dict[str, set[str]]:
    """The dotted names that each module of a package imports, by the module's name; modules may be folders."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / package).rglob("*.py")):
        module = file.relative_to(ROOT / package).parts[0].removesuffix(".py")
        found.setdefault(module, set()).update(_imported(ast.parse(file.read_text())))
    return found


def _imported(tree: ast.Module) -> set[str]:
    """Without those for type checkers alone."""
    names: set[str] = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if node in skipped or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            skipped.update(ast.iter_child_nodes(node))
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def packages() -> Figure:
    """Which package imports which."""
    rows = layers()
    lines = {
        (package, other)
        for package in _flat(rows)
        for names in imports(package).values()
        for name in names
        if (other := name.split(".")[0]) in _flat(rows) and other != package
    }
    return _drawn(rows, lines, width=6.5, step=0.95)


def modules(package: str = "interpolants") -> Figure:
    """Which module imports which; a line that follows from two others is left out."""
    rows = layers(package)
    names = set(_flat(rows))
    lines = {
        (module, other)
        for module, imported in imports(package).items()
        for name in imported
        if module in names
        and name.startswith(f"{package}.")
        and (other := name.split(".")[1]) in names
        and other != module
    }
    return _drawn(rows, _reduced(lines), width=9.5, step=0.72)


def _flat(rows: list[list[str]]) -> list[str]:
    return [name for row in rows for name in row]


def _reduced(lines: set[tuple[str, str]]) -> set[tuple[str, str]]:
    below: dict[str, set[str]] = {}
    for upper, lower in lines:
        below.setdefault(upper, set()).add(lower)

    def reaches(start: str, goal: str) -> bool:
        return any(step == goal or reaches(step, goal) for step in below.get(start, ()))

    return {(a, b) for a, b in lines if not any(reaches(step, b) for step in below[a] if step != b)}


def _drawn(rows: list[list[str]], lines: set[tuple[str, str]], width: float, step: float) -> Figure:
    figure = Figure(figsize=(width, step * len(rows)), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(-len(rows) + 0.5, 0.5))
    axes.axis("off")
    place = {
        name: ((column + 1) / (len(row) + 1) + 0.1 * (-1) ** depth * (len(row) == 1), -depth)
        for depth, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    boxes = {
        name: axes.text(x, y, name, ha="center", va="center", family="monospace", fontsize=9, color=TEXT, zorder=3,
                        bbox={"boxstyle": "round,pad=0.4", "facecolor": BOX, "edgecolor": "#7fa8c9"}).get_bbox_patch()
        for name, (x, y) in place.items()
    }  # fmt: skip
    for upper, lower in sorted(lines):
        arrow = {"arrowstyle": "-|>", "color": LINE, "linewidth": 0.9, "connectionstyle": "arc3,rad=0.06"}
        axes.annotate(
            "",
            place[lower],
            place[upper],
            zorder=1,
            arrowprops=arrow | {"patchA": boxes[upper], "patchB": boxes[lower]},
        )
    return figure


def table(package: str) -> str:
    """Markdown: each file of a package, and the first sentence of its docstring."""
    lines = ["| file | what it does |", "| --- | --- |"]
    folder = next(root / package for root in (ROOT, ROOT / "packaging/training") if (root / package).exists())
    for file in sorted(folder.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
        first = " ".join(docstring.split("\n\n")[0].split())
        if file.name != "__init__.py":
            lines.append(f"| `{file.name}` | {first.replace('|', '/')} |")
    return "\n".join(lines)
