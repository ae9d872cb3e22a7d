"""The ASGI application: the pages, the files of the runs, /healthz and /metrics. GET and HEAD only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from crosstie.errors import BadInputError, StoreError
from crosstie.flows.site import drawings, files
from crosstie.flows.site.guard import Guard
from crosstie.flows.site.metrics import registry_of
from crosstie.flows.site.places import HEADINGS, latest_moves, place_csv, view_place
from crosstie.flows.site.platforms import Platforms
from crosstie.flows.site.query import Query, corrections, failures, read_query
from crosstie.flows.site.text import FILTERS
from crosstie.flows.site.watch import Watch
from crosstie.flows.web.access import Access
from crosstie.flows.web.address import LOOPBACK_HOSTS
from crosstie.io.adjusted.publish import adjusted_places
from crosstie.types import Reason, VerdictCode

TEMPLATES = Path(__file__).parent / "templates"

DAY_S = 86_400

SERIES_SIZES = {
    "width": drawings.WIDTH, "panel": drawings.PANEL, "left": drawings.LEFT, "right": drawings.RIGHT
}  # fmt: skip


def make_site_app(watch: Watch, access: Access | None, *, local: bool) -> Starlette:
    """Build the ASGI application.

    Parameters
    ----------
    watch : Watch
        What is known of the archive; started and stopped by the caller.
    access : Access or None
        What a caller must know; None lets everyone read.
    local : bool
        Only this machine can reach the address.
    """
    pages = Pages(watch)
    app = Starlette(
        routes=[
            Route("/", pages.corrections),
            Route("/failures", pages.failures),
            Route("/places", pages.places),
            Route("/places/{place}", pages.place),
            Route("/places/{place}/scenes.csv", pages.place_csv),
            Route("/platforms", pages.platforms),
            Route("/platforms/{platform}", pages.platform),
            Route("/runs/{pair_key}/{run_key}/thumbnail.webp", pages.thumbnail),
            Route("/runs/{pair_key}/{run_key}/{name}", pages.product),
            Route("/style.css", pages.style),
            Route("/icon.svg", pages.icon),
            Route("/healthz", pages.healthz),
            Route("/metrics", pages.metrics),
        ],
        middleware=[
            Middleware(Guard, access=access, hosts=LOOPBACK_HOSTS if local and access is None else ())
        ],
        exception_handlers={HTTPException: pages.refused, StoreError: pages.unavailable},
    )
    app.router.redirect_slashes = False  # a redirect would use the host name that the caller claims
    app.state.prepare = pages.prepare
    return app


class Pages:
    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._registry = registry_of(watch)
        self._platforms = Platforms(watch.store, every_s=watch.every_s)
        self._thumbnail = files.thumbnails(watch.store)
        self._style = (TEMPLATES / "style.css").read_bytes()
        self._icon = (TEMPLATES / "icon.svg").read_bytes()
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= FILTERS

    def prepare(self) -> None:
        """Load and read what a page needs that the watch does not read, before somebody asks for it."""
        self._platforms.prepare()

    # Not async: they run in threads, so that a slow store or a long table delays no other request.

    def corrections(self, request: Request) -> Response:
        """Committed corrections, newest first."""
        snapshot = self._watch.seen.snapshot
        query = _query(request)
        page = None if snapshot is None else corrections(snapshot.table, query)
        return self._page(
            "corrections.html",
            request,
            query=query,
            page=page,
            verdicts=list(VerdictCode),
            reasons=list(Reason),
        )

    def failures(self, request: Request) -> Response:
        """Failed pairs, latest first, and pairs in progress."""
        snapshot = self._watch.seen.snapshot
        query = _query(request)
        page = None if snapshot is None else failures(snapshot.status, query)
        return self._page("failures.html", request, query=query, page=page)

    def places(self, request: Request) -> Response:
        """All adjusted places, and what moved lately."""
        store = self._watch.store
        return self._page("places.html", request, names=adjusted_places(store), moved=latest_moves(store))

    def place(self, request: Request) -> Response:
        """One adjusted place: series, network, outlines, and the table of its scenes."""
        sort = request.query_params.get("sort", "date")
        return self._page(
            "place.html",
            request,
            place=view_place(self._watch.store, request.path_params["place"], sort),
            sort=sort,
            headings=HEADINGS,
            map_height=drawings.MAP,
            **SERIES_SIZES,
        )

    def place_csv(self, request: Request) -> Response:
        """Scenes of a place as a table to download."""
        name = request.path_params["place"]
        headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
        return Response(place_csv(self._watch.store, name), media_type="text/csv", headers=headers)

    def platforms(self, request: Request) -> Response:
        """All platforms that adjusted scenes are of."""
        return self._page("platforms.html", request, rows=self._platforms.rows())

    def platform(self, request: Request) -> Response:
        """One platform: what moved, and the series of each of its tracks over all places."""
        view = self._platforms.view(request.path_params["platform"])
        return self._page("platform.html", request, platform=view, **SERIES_SIZES)

    def product(self, request: Request) -> Response:
        return files.product(self._watch.store, request)

    def thumbnail(self, request: Request) -> Response:
        run, listed = files.run_of(self._watch.store, request)
        body = self._thumbnail(run, listed.get("overview.png"))
        return Response(body, media_type="image/webp", headers={"Cache-Control": f"private, max-age={DAY_S}"})

    async def style(self, request: Request) -> Response:
        del request
        return Response(self._style, media_type="text/css", headers={"Cache-Control": "private, max-age=300"})

    async def icon(self, request: Request) -> Response:
        del request
        headers = {"Cache-Control": f"private, max-age={DAY_S}"}
        return Response(self._icon, media_type="image/svg+xml", headers=headers)

    async def healthz(self, request: Request) -> Response:
        """The service runs; 503 if it no longer reads the archive and must be restarted."""
        del request
        seen = self._watch.seen
        alive = self._watch.alive
        return JSONResponse(
            {
                "status": "ok" if alive else "reading the archive has stopped because of a bug; see the log",
                "archive_readable": seen.problem is None,
                "seen_utc": None if seen.snapshot is None else seen.snapshot.taken_utc.isoformat(),
            },
            status_code=200 if alive else 503,
        )

    async def metrics(self, request: Request) -> Response:
        del request
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def refused(self, request: Request, problem: Exception) -> Response:
        assert isinstance(problem, HTTPException)  # noqa: S101 - registered for these alone
        return self._page("message.html", request, status_code=problem.status_code, text=problem.detail)

    async def unavailable(self, request: Request, problem: Exception) -> Response:
        return self._page("message.html", request, status_code=503, text=str(problem))

    def _page(self, name: str, request: Request, *, status_code: int = 200, **given: Any) -> Response:
        seen = self._watch.seen
        text = self._templates.get_template(name).render(
            root=self._watch.store.url,
            seen=seen,
            snapshot=seen.snapshot,
            # Relative, so that the site works below any path of a proxy.
            up="../" * (request.url.path.count("/") - 1),
            **given,
        )
        return HTMLResponse(text, status_code=status_code)


def _query(request: Request) -> Query:
    try:
        return read_query(request.query_params)
    except BadInputError as problem:
        raise HTTPException(400, str(problem)) from None
