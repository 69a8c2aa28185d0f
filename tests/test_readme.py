"""The Python of the README and of the page that shows everything runs as it stands."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/guide.md")
BLOCKS = [code for page in PAGES for code in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)]


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.split("\n")[1][:30])
def test_code_of_the_pages_runs(code):
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(compile(code, "page", "exec"), names)
    results = [value for value in names.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    assert results
    assert all(value.isfinite().all() for value in results)


def test_every_use_is_shown():
    """The mathematics alone, in two blocks; training; networks; samplers."""
    assert len(BLOCKS) == 5
