"""HTTP: /metrics, /healthz, /readyz, everything that SHOW tells as JSON under /api/v1, and a dashboard. It only looks: nothing here steers.

Whoever reaches the address may read, so bind it where only friends are.
"""

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve as serve_asgi
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from dualpool.admin.commands import SHOWS
from dualpool.admin.metrics import Metrics
from dualpool.log import event

if TYPE_CHECKING:
    from dualpool.server import Server

DASHBOARD: Final = Path(__file__).with_name("dashboard.html")
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Endpoint = Callable[[Request], Awaitable[Response]]


class Pages:
    """The pages of one server."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.metrics = Metrics(server)
        self.dashboard = DASHBOARD.read_text(encoding="utf-8")

    def application(self) -> Starlette:
        """The pages as an ASGI application."""
        pages: dict[str, Endpoint] = {
            "/": self.home,
            "/metrics": self.prometheus,
            "/healthz": self.health,
            "/readyz": self.readiness,
            "/api/v1": self.names,
            "/api/v1/{name}": self.table,
        }
        return Starlette(routes=[Route(path, page, methods=["GET"]) for path, page in pages.items()])

    async def home(self, _: Request) -> Response:
        """The dashboard."""
        return HTMLResponse(self.dashboard, headers=HEADERS)

    async def prometheus(self, _: Request) -> Response:
        """/metrics."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST, headers=HEADERS)

    async def health(self, _: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"}, headers=HEADERS)

    async def readiness(self, _: Request) -> Response:
        """New clients are welcome. A server that is down does not matter here: its clients are told so, and the others are served."""
        problem = not_ready(self.server)
        body = {"status": "not ready" if problem else "ready", "reason": problem, "backends": failing(self.server)}
        return JSONResponse(body, 503 if problem else 200, headers=HEADERS)

    async def names(self, _: Request) -> Response:
        """What there is under /api/v1."""
        return JSONResponse(sorted(name.lower() for name in SHOWS), headers=HEADERS)

    async def table(self, request: Request) -> Response:
        """A table of SHOW, as a list of objects."""
        show = SHOWS.get(request.path_params["name"].upper())
        if show is None:
            return JSONResponse({"error": "there is no such table", "tables": "/api/v1"}, 404, headers=HEADERS)
        names = [column.name for column in show.columns]
        return JSONResponse([dict(zip(names, row, strict=True)) for row in show.rows(self.server)], headers=HEADERS)


def not_ready(server: "Server") -> str:
    """Why new clients should go elsewhere; "" if they need not."""
    if server.draining or server.stopping.is_set():
        return "dualpool is shutting down"
    if server.backends.halts.everything or server.backends.halts.suspended:
        return "an operator has paused dualpool"
    return ""


def failing(server: "Server") -> dict[str, str]:
    """The backends to which the last connect failed, with its error."""
    errors = {}
    for name, state in server.backends.states.items():
        found = [error for pool in state.budget.pools if (error := pool.statistics().last_error)]
        if found:
            errors[name] = found[0]
    return errors


async def serve_http(server: "Server", sockets: Sequence[socket.socket]) -> None:
    """Answer HTTP until cancelled. The sockets stay the caller's. A fault here does not end the pooler."""
    config = HypercornConfig()
    # hypercorn closes what it is given.
    config.bind = [f"fd://{os.dup(sock.fileno())}" for sock in sockets]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = config.shutdown_timeout = 0.5
    config.h11_max_incomplete_size = 1 << 14
    config.keep_alive_timeout = 30
    application: Any = Pages(server).application()
    try:
        await serve_asgi(application, config, shutdown_trigger=server.stopped.wait)
    except Exception as error:
        event(logging.ERROR, f"HTTP has ended: {error!r}")
