"""Which requests the live page answers: those of its own page, and no more than that page needs.

A page of another site can send requests to a server on this machine, and by DNS rebinding take its place: its name then
leads here, and the browser lets it read what comes back. So a request has to name this machine as its host, come from
the page itself, ask for one of the routes that the page needs, and be short. There is no route by which a file is
uploaded or read.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import Request, Response
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

MAX_BODY: Final = 64 * 1024
"""Bytes of a request: texts are far shorter."""

MAX_SESSIONS: Final = 64
MAX_WAITING: Final = 32

POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)

SCRIPTS: Final = ("plotly.js", "page.js")
"""Names by which the page asks for its own scripts."""

_ROUTES: Final = re.compile(
    r"/(config|info|app_id|startup-events|reset|cancel|queue/(join|data|status)|heartbeat/\w+|theme\.css|favicon\.ico|"
    rf"manifest\.json|robots\.txt|{'|'.join(map(re.escape, SCRIPTS))}|(assets|static|svelte)/[\w./-]+)?/?"
)
_PREFIX: Final = "/gradio_api"


def guarding(host: str) -> Middleware:
    """Middleware for a server that listens at ``host``."""
    return Middleware(BaseHTTPMiddleware, dispatch=functools.partial(_guarded, host))


async def _guarded(host: str, request: Request, answer: RequestResponseEndpoint) -> Response:
    refused = refusal(host, request.method, request.url.path, request.headers)
    response = await answer(request) if refused is None else Response(refused[1], refused[0], media_type="text/plain")
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def refusal(host: str, method: str, path: str, headers: Any) -> tuple[int, str] | None:
    """The status and the reason with which a request is refused, or None if it is answered.

    Args:
        host: Address at which the server listens.
        method, path, headers: Of the request.
    """
    asked = headers.get("host", "")
    if not _is_own(urlsplit(f"//{asked}").hostname or "", host):
        return 421, f"The path explorer is not {asked!r}: open it at the address that it printed."
    if (origin := headers.get("origin")) is not None and urlsplit(origin).netloc != asked:
        return 403, f"A page of {origin} may not use the path explorer."
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
        return 403, "A page of another site may not use the path explorer."
    if method not in ("GET", "HEAD", "POST") or not _ROUTES.fullmatch(path.removeprefix(_PREFIX) or "/"):
        return 404, f"The path explorer has no {path}."
    length = headers.get("content-length", "" if method == "POST" else "0")
    if not length.isdigit():
        return 411, "A request must say how long it is."
    if int(length) > MAX_BODY:
        return 413, f"A request may have {MAX_BODY} bytes."
    return None


def _is_own(asked: str, host: str) -> bool:
    """Whether the name in a request is one of this machine: no name of another site can be made to lead here then."""
    if asked in ("localhost", host, socket.gethostname().lower()):
        return True
    try:
        address = ipaddress.ip_address(asked)
    except ValueError:
        return False
    return address.is_loopback or host in ("0.0.0.0", "::")
