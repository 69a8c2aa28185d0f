"""The live page: texts in, the panels of ``page`` out, by gradio. It listens at this machine and asks no other.

What a text asks for is computed by ``deadline.Workers``, so that a text which takes long is cut, and takes nothing from
the next. Which requests are answered, ``guard`` says.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from fastapi import Request, Response
from plotly.offline import get_plotlyjs
from starlette.routing import Route

from interpolants import diffusion, library
from interpolants.explorer import guard, page, work
from interpolants.explorer.deadline import OverdueError, Workers
from interpolants.explorer.figures import ALPHA, SIGMA

OWN: Final = "your own"
SECONDS: Final = {"path": 10.0, "particles": 30.0, "solvers": 30.0, "ledger": 120.0}
"""How long each may take."""


@dataclass(frozen=True)
class Served:
    """A page that is being served."""

    url: str

    def open_browser(self) -> None:
        """Show it."""
        webbrowser.open(self.url)

    def wait(self) -> None:
        """Until the program is interrupted."""
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


@contextlib.contextmanager
def serving(
    alpha: str, sigma: str | None, parameters: Mapping[str, float], *, host: str = "127.0.0.1", port: int | None = None
) -> Iterator[Served]:
    """Serve the page within a ``with``; arguments as in ``launch``."""
    with Workers() as workers:
        blocks = _blocks(workers, alpha, sigma, parameters)
        theme = gr.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        )
        routes = [Route(f"/{name}", _script(text)) for name, text in _scripts().items()]
        try:
            blocks.queue(max_size=guard.MAX_WAITING)
            _, url, _ = blocks.launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False,
                inbrowser=False, footer_links=[], theme=theme, strict_cors=True,
                enable_monitoring=False, mcp_server=False, pwa=False, run_history=False,
                max_file_size=guard.MAX_BODY, state_session_capacity=guard.MAX_SESSIONS,
                head=f"<style>{page.style()}{_STYLE}</style>"  # as css it would be rewritten, and media queries lost
                + "".join(f'<script src="/{name}" defer></script>' for name in _scripts()),
                app_kwargs={"routes": routes, "middleware": [guard.guarding(host)]},
            )  # fmt: skip
            yield Served(url)
        finally:
            blocks.close(verbose=False)


_STYLE: Final = """
gradio-app .contain { gap: 12px; }
.gradio-container { width: 100%; max-width: 1220px !important; margin: 0 auto; }
@media (max-width: 640px) { .gradio-container > .main { padding: 8px 4px; } }
"""


def _scripts() -> dict[str, str]:
    return dict(zip(guard.SCRIPTS, (get_plotlyjs(), page.script()), strict=True))


def _script(text: str) -> Callable[[Request], Response]:
    def respond(_: Request) -> Response:
        return Response(text, media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})

    return respond


# The page


def _blocks(workers: Workers, alpha: str, sigma: str | None, parameters: Mapping[str, float]) -> Any:
    by_name = sigma is None and alpha in library.LIBRARY
    shown = _texts(alpha) if by_name else (alpha, sigma or "")
    answers = _Answers(workers)
    with gr.Blocks(title=page.TITLE, analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(page.heading(), apply_default_css=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                with gr.Row():
                    choice = gr.Dropdown(
                        [OWN, *library.LIBRARY],
                        value=_named(*shown),
                        label="path",
                        scale=2,
                        min_width=150,
                    )
                    first = gr.Textbox(shown[0], label=f"{ALPHA}(t)", scale=3, elem_id="alpha", max_lines=1)
                    second = gr.Textbox(shown[1], label=f"{SIGMA}(t)", scale=3, elem_id="sigma", max_lines=1)
                with gr.Row():
                    numbers = gr.Textbox(
                        ", ".join(f"{name}={value!r}" for name, value in parameters.items()),
                        label="parameters", placeholder="such as p=2, q=0.5", elem_id="parameters", max_lines=1,
                        min_width=200,
                    )  # fmt: skip
                    w = gr.Dropdown(
                        list(diffusion.CHOICES), value="sigma", allow_custom_value=True, elem_id="w",
                        label="w(t) of the SDE, a name or text", min_width=200,
                    )  # fmt: skip
            with gr.Column(scale=5, min_width=280):
                verdict = gr.HTML(page.note("Deriving ..."), apply_default_css=False, elem_id="verdict")
        panels = {}
        with gr.Tabs(elem_id="panels"):
            for name in ("Path", "Conversions", "Particles", "Solvers", "Formulas", "Ledger"):
                with gr.Tab(name, render_children=True):
                    panels[name] = gr.HTML(page.note("Deriving ..."), apply_default_css=False, elem_id=name.lower())
        changed: list[Any] = [blocks.load, *(text.change for text in (first, second, numbers, w))]
        options: dict[str, Any] = {
            "inputs": [first, second, numbers, w], "show_progress": "hidden", "trigger_mode": "always_last",
            "concurrency_limit": None, "api_visibility": "private",
        }  # fmt: skip
        choice.input(_chosen, choice, [first, second, numbers], show_progress="hidden", api_visibility="private")
        # One event of many causes: what was asked for last is computed last.
        derived = gr.on(changed, answers.derived, outputs=[choice, verdict, *panels.values()], **options)
        for name, answer in (
            ("Particles", answers.particles), ("Solvers", answers.solvers), ("Ledger", answers.ledger),
        ):  # fmt: skip
            derived.then(answer, outputs=panels[name], **options)
    return blocks


def _chosen(name: str) -> tuple[Any, ...]:
    """The texts of a path of the library, without parameters."""
    return (gr.skip(),) * 3 if name == OWN else (*_texts(name), "")


@functools.cache
def _texts(name: str) -> tuple[str, str]:
    path = library.by_name(name)
    return str(path.alpha.expr), str(path.sigma.expr)


def _named(alpha: str, sigma: str) -> str:
    """The name of the path of the library that has these texts, but for spaces, if one has."""
    given = [text.replace(" ", "") for text in (alpha, sigma)]
    return next((name for name in library.LIBRARY if [text.replace(" ", "") for text in _texts(name)] == given), OWN)


class _Answers:
    """The panels that texts ask for. What cannot be had is said in its place."""

    def __init__(self, workers: Workers) -> None:
        self._do = functools.lru_cache(maxsize=64)(workers.do)

    def derived(self, alpha: str, sigma: str, parameters: str, w: str) -> tuple[str, ...]:
        """The name, the verdict, and the panels in their order; those that take longer say so."""
        refused, overdue = "Not a path", "Not decided"
        try:
            given = alpha, sigma, _parameters(parameters)
            self._do(work.named, *given, seconds=SECONDS["path"])
            refused = overdue = "A path, but its formulas cannot be shown"
            report = self._do(work.described, *given, w, seconds=SECONDS["path"])
        except OverdueError as error:
            return self._refused(str(error), overdue)
        except (ValueError, ArithmeticError) as error:
            return self._refused(str(error), refused)
        return (
            _named(alpha, sigma),
            page.verdict(report),
            page.overview(report),
            page.conversions(report),
            page.note("Carrying particles ..."),
            page.note("Measuring solvers ..."),
            page.formulas(report),
            page.note("Proving identities ..."),
        )

    def _refused(self, reason: str, title: str) -> tuple[str, ...]:
        return (OWN, page.refusal(reason, title=title), *[page.note("Nothing to show: see above.")] * 6)

    def particles(self, alpha: str, sigma: str, parameters: str, w: str) -> str:
        """The panel of particles."""
        return self._panel(page.particles, work.carried, SECONDS["particles"], alpha, sigma, parameters, w)

    def solvers(self, alpha: str, sigma: str, parameters: str, _: str) -> str:
        """The panel of solvers, which does not depend on w."""
        return self._panel(page.solvers, work.measured, SECONDS["solvers"], alpha, sigma, parameters)

    def ledger(self, alpha: str, sigma: str, parameters: str, _: str) -> str:
        """The panel of identities, which hold for every w."""
        return self._panel(page.ledger, work.proved, SECONDS["ledger"], alpha, sigma, parameters)

    def _panel(
        self, show: Callable[[Any], str], of: Callable[..., Any], seconds: float, alpha: str, sigma: str, numbers: str,
        *w: str,
    ) -> str:  # fmt: skip
        try:
            result = self._do(of, alpha, sigma, _parameters(numbers), *w, seconds=seconds, slow=True)
        except (OverdueError, ValueError, ArithmeticError) as error:
            return page.note(str(error))
        # Until the next is computed, the page shows that of the texts before.
        return page.caption(f"alpha = {alpha}, sigma = {sigma}" + (f", {numbers}" if numbers else "")) + show(result)


def _parameters(text: str) -> tuple[tuple[str, float], ...]:
    """(name, number) of each of ``p=2, q=0.5``."""
    return tuple(library.parameter(part.strip()) for part in filter(str.strip, text.split(",")))
