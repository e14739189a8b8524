"""The application: routes, what stands before them, and what runs beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import FastAPI, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from evenhand.config.production_schema import ProductionConfig, ServeConfig
from evenhand.serve import classify, health, moderations
from evenhand.serve.answering import Serving
from evenhand.serve.auth import Door, RequireKey
from evenhand.serve.batching import Batcher
from evenhand.serve.edge import Edge
from evenhand.serve.errors import (
    REVIEW_PATH,
    ApiError,
    plain_error,
    unreadable_body,
    validation_error,
)
from evenhand.serve.ids import IdMaker
from evenhand.serve.limits import BodyLimit
from evenhand.serve.logs import log_failure
from evenhand.serve.metrics import Metrics
from evenhand.serve.reference import render_reference, style_hash
from evenhand.serve.service import Service

DESCRIPTION = (
    "Judges posts for hate speech. Only hate is judged: this is no replacement for a full "
    "moderation service. Every answer is stored before it is given, and some are reviewed."
)


def create_app(
    service: Service,
    settings: ProductionConfig,
    *,
    with_review: bool = True,
    with_monitor: bool = True,
) -> FastAPI:
    """Return the server's application; nothing runs before its lifespan begins.

    Args:
        service: what answers and stores.
        settings: the limits.
        with_review: whether the pages for reviewers are at /review.
        with_monitor: whether estimates and alarms are brought up to date in the background.
    """
    from evenhand.watch.store.keys import KeyRing

    limits = settings.serve
    metrics = Metrics(service.release)
    ids = IdMaker()
    batcher = Batcher(service, limits, metrics=metrics, now=_now)
    serving = Serving(service, settings, batcher, metrics, ids)
    door = Door(KeyRing(service.database), keyless=service.keyless)
    app = FastAPI(
        title="Evenhand",
        description=DESCRIPTION,
        version=service.release.sha256[:12],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # its route would have no name in logs and metrics
        lifespan=partial(_lifespan, serving=serving, with_monitor=with_monitor),
        middleware=[
            Middleware(Edge, metrics=metrics, ids=ids),
            Middleware(RequireKey, door=door, prefixes=("/v1/", "/metrics")),
            Middleware(
                BodyLimit,
                max_bytes=limits.max_body_bytes,
                timeout_seconds=limits.timeout_seconds,
            ),
        ],
        exception_handlers={
            ApiError: _answer_api_error,
            RequestValidationError: _answer_validation_error,
            HTTPException: _answer_http_error,
        },
    )
    app.state.serving = serving
    _include(app)
    if with_review:
        from evenhand.watch.web.routes import review_router

        pages = review_router(
            service.database, settings, service.release.sha256, service.rng.spawn(1)[0]
        )
        app.include_router(pages, prefix=REVIEW_PATH)
    _document(app, limits)
    return app


@contextlib.asynccontextmanager
async def _lifespan(_: FastAPI, *, serving: Serving, with_monitor: bool) -> AsyncIterator[None]:
    serving.batcher.start()
    monitor = asyncio.ensure_future(_monitor_forever(serving)) if with_monitor else None
    try:
        yield
    finally:
        if monitor is not None:
            monitor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await monitor
        serving.is_drained = await run_in_threadpool(
            serving.batcher.drain, serving.drain_seconds_left
        )


async def _monitor_forever(serving: Serving) -> None:
    """Bring estimates and alarms up to date, again and again; a failure is logged and counted."""
    from evenhand.watch.monitor import check

    service = serving.service
    while True:
        await asyncio.sleep(serving.settings.watch.check_every_seconds)
        try:
            report = await run_in_threadpool(
                check, service.database, service.release.sha256, serving.settings, now=_now()
            )
        except Exception as error:  # the server answers on; the metric tells of it
            serving.metrics.monitor_checks.labels("failed").inc()
            log_failure("the monitor's check failed", error)
        else:
            serving.metrics.monitor_checks.labels("ok").inc()
            serving.metrics.open_alarms.set(len(report.alarms))


def _include(app: FastAPI) -> None:
    # The middleware has checked the key by then; this writes it into the schema.
    key = HTTPBearer(auto_error=False, scheme_name="key", description="evenhand keys add NAME")
    for module in (classify, moderations):
        app.include_router(module.router, dependencies=[Security(key)])
    app.include_router(health.router)
    page = ""

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        nonlocal page
        page = page or render_reference(app.openapi())
        policy = f"default-src 'none'; style-src {style_hash()}; frame-ancestors 'none'"
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _document(app: FastAPI, limits: ServeConfig) -> None:
    """Write into the schema what depends on the settings, and leave out what never happens."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = make()
            schemas = schema["components"]["schemas"]
            posts = schemas["ClassifyRequest"]["properties"]["posts"]
            posts["maxItems"] = limits.max_request_rows
            schemas["Post"]["properties"]["text"]["maxLength"] = limits.max_text_chars
            moderated = schemas["ModerationRequest"]["properties"]["input"]
            moderated["anyOf"] = moderations.input_schemas(
                max_items=limits.max_request_rows, max_length=limits.max_text_chars
            )
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            del schema["paths"][moderations.PATH]["post"]["responses"]["422"]
            schema["paths"]["/metrics"]["get"]["security"] = [{"key": []}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi


async def _answer_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response(_request_id(request))


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    status = 400 if request.url.path == moderations.PATH else 422
    return validation_error(error.errors(), status=status).response(_request_id(request))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # FastAPI's 400 is a body that it could not read.
    is_body = error.status_code == 400 and request.url.path.startswith("/v1/")
    answer = unreadable_body() if is_body else plain_error(error.status_code)
    return answer.response(_request_id(request), headers=error.headers)


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def _now() -> datetime:
    return datetime.now(UTC)
