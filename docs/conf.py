"""The configuration of the documentation: `make docs` builds it into build/docs.

Pages that are text notebooks run as they are built, and a cell that raises fails the build, as does any warning. The
pages ask no host for anything: mathematics is set by the MathJax of a package, copied beside them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature

DOCS: Final = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]
# The cells' processes: torch's threads would wait for each other, and they find what lies beside the pages.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], *filter(None, [os.environ.get("PYTHONPATH")])])

from interpolants import __version__  # noqa: E402 (the paths above come first)

project = "sit-interpolants"
author = "the sit-interpolants authors"
version = release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["study/notes.md"]  # part of study.md

# Text
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nitpicky = True  # a reference that leads nowhere is an error, but to types of others, whose pages are not at hand
nitpick_ignore_regex = [
    ("py:class", r"(?!interpolants|models|training).*"),
    ("py:class", r"interpolants\.composition\..*"),  # how a coefficient is computed, which no page describes
]
nb_execution_mode = "force"  # never from a cache: what a page shows is what the code says now
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
logging.getLogger("traitlets").setLevel(logging.WARNING)  # of the kernels, a line for each page
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}
copybutton_exclude = ".linenos, .gp, .go"

# The reference
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_custom_sections = [("Attributes", "params_style")]  # "alpha, sigma: ..." describes two, as among arguments
toc_object_entries_show_parents = "hide"

# Looks
html_theme = "furo"
html_title = project
pygments_dark_style = "one-dark"
html_show_copyright = False
html_show_sphinx = False
MATHJAX: Final = "sphinx-mathjax-offline/static/mathjax/tex-svg.js"  # one file: its letters are shapes, not fonts
html_static_path = ["_static", str(distribution("sphinx-mathjax-offline").locate_file(MATHJAX))]
mathjax_path = "tex-svg.js"
html_css_files = ["style.css"]


def _kernels(app: Sphinx, config: Config) -> None:
    """Have pages run in forks of one process: see kernel.py."""
    folder = Path(tempfile.mkdtemp(prefix="docs-kernels-"))
    address, program = str(folder / "socket"), str(DOCS / "kernel.py")
    spec = {
        "argv": [sys.executable, program, address, "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    }
    kernel = folder / "kernels/python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(spec))
    os.environ["JUPYTER_PATH"] = str(folder)
    server = subprocess.Popen([sys.executable, program, address], stdin=subprocess.PIPE)
    while not Path(address).exists():
        if server.poll() is not None:
            raise RuntimeError(f"{program}: must serve kernels, but ended with {server.returncode}.")
        time.sleep(0.05)


LOADED: Final = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["'](?:https?:)?//[^"']+""")


def _ask_no_host(app: Sphinx, error: Exception | None) -> None:
    """Refuse a page that would load anything from elsewhere when it is opened."""
    for page in sorted(Path(app.outdir).rglob("*.html")) if error is None else ():
        if found := LOADED.search(page.read_text(encoding="utf-8")):
            raise ValueError(f"{page}: must load nothing from another host, but has {found[0]!r}.")


def _arguments(app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str, returns: str) -> Any:
    """Those of __init__, where a base class has a __new__ that takes anything."""
    if what == "class" and signature == "(*args, **kwargs)":
        found = signature_of(value.__init__, bound_method=True)
        return stringify_signature(found, unqualified_typehints=True, show_return_annotation=False), ""
    return None


def setup(app: Sphinx) -> None:
    """Called by sphinx."""
    app.connect("config-inited", _kernels)
    app.connect("autodoc-process-signature", _arguments)
    app.connect("build-finished", _ask_no_host)
