"""The built pages load nothing from another host."""

import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def conf(monkeypatch):
    """docs/conf.py, without a build."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(os, "environ", {**os.environ})
    return runpy.run_path(str(DOCS / "conf.py"))


@pytest.mark.parametrize(
    "loaded",
    [
        '<script defer="defer" src="https://cdn.example.org/mathjax.js"></script>',
        "<link rel='stylesheet' href='//fonts.example.org/css'>",
        '<img alt="a badge" src="http://example.org/badge.svg">',
    ],
)
def test_a_page_that_asks_a_host_is_refused(conf, tmp_path, loaded):
    (tmp_path / "page.html").write_text(f"<html><head>{loaded}</head></html>")
    with pytest.raises(ValueError, match="nothing from another host"):
        conf["_ask_no_host"](SimpleNamespace(outdir=tmp_path), None)


def test_links_and_local_files_are_none_of_that(conf, tmp_path):
    page = '<a href="https://arxiv.org/abs/2401.08740">paper</a> <script src="_static/tex-svg.js"></script>'
    (tmp_path / "page.html").write_text(page)
    conf["_ask_no_host"](SimpleNamespace(outdir=tmp_path), None)


def test_mathematics_is_set_by_a_file_that_is_there(conf):
    assert conf["mathjax_path"] in {Path(path).name for path in conf["html_static_path"]}
    assert all((DOCS / path).exists() for path in conf["html_static_path"])


def test_pages_run_every_time_and_stop_the_build_where_they_raise(conf):
    """A cache would show what an earlier engine printed."""
    assert conf["nb_execution_mode"] == "force"
    assert conf["nb_execution_raise_on_error"]
