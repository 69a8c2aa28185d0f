"""The reference has every public name once, and every page is reached."""

import importlib
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
DIRECTIVE = re.compile(r"^\.\. (?:auto(?:class|function|data|module)|py:data):: (\S+)$", re.MULTILINE)


def shown(package: str) -> list[str]:
    """What the page of a package describes."""
    return DIRECTIVE.findall((DOCS / "api" / f"{package}.md").read_text())


@pytest.mark.parametrize("package", ["interpolants", "models", "training"])
def test_every_public_name_is_described_once(package):
    public = {f"{package}.{name}" for name in importlib.import_module(package).__all__}
    names = shown(package)
    assert public - set(names) == set()
    assert len(names) == len(set(names))


@pytest.mark.parametrize("package", ["interpolants", "models", "training"])
def test_what_is_described_is_there(package):
    for name in shown(package):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module or attribute), attribute), name


def test_every_page_is_in_the_table_of_contents():
    listed = re.findall(r"^([\w/*-]+)$", (DOCS / "index.md").read_text(), re.MULTILINE)
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")} - {"index", "study/notes"}
    matched = {page for page in pages for pattern in listed if re.fullmatch(pattern.replace("*", "[^/]*"), page)}
    assert pages == matched
