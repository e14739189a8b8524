"""Whether the process runs, whether it is ready, what it counts."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from evenhand.serve.answering import Serving, serving_of
from evenhand.serve.logs import log_failure
from evenhand.serve.metrics import CONTENT_TYPE
from evenhand.serve.schemas import (
    AdapterProof,
    ErrorAnswer,
    GoldenProof,
    HealthAnswer,
    ReadyAnswer,
)
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import ReleaseRow

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    response_model=HealthAnswer,
    responses={503: {"model": HealthAnswer, "description": "Restart the process."}},
)
async def healthz(request: Request) -> Response:
    """Whether the process and its threads run. 503 means that only a restart will help."""
    is_alive = serving_of(request).batcher.is_alive
    answer = HealthAnswer(status="ok" if is_alive else "failed")
    return JSONResponse(answer.model_dump(), 200 if is_alive else 503)


@router.get(
    "/readyz",
    response_model=ReadyAnswer,
    responses={503: {"model": ReadyAnswer, "description": "Not ready; `reasons` says why."}},
)
async def readyz(request: Request) -> Response:
    """Whether requests are answered now, and what was proved before the first one."""
    serving = serving_of(request)
    reasons = await _reasons(serving)
    service = serving.service
    readiness = service.readiness
    answer = ReadyAnswer(
        status="not_ready" if reasons else "ready",
        reasons=tuple(reasons),
        model=service.release.model,
        release=service.release.sha256,
        outcome=service.release.outcome,
        golden=GoldenProof(
            rows=readiness.golden_rows,
            max_difference=readiness.golden_max_difference,
            tolerance=readiness.golden_tolerance,
        ),
        adapter=AdapterProof(
            difference=readiness.adapter_difference, proof=readiness.adapter_proof
        ),
        overrides=service.release.overrides,
    )
    return JSONResponse(answer.model_dump(mode="json"), 503 if reasons else 200)


@router.get(
    "/metrics",
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        401: {"model": ErrorAnswer, "description": "The key is missing or not valid."},
    },
    response_class=Response,
)
async def metrics(request: Request) -> Response:
    """All counters, in Prometheus's text format."""
    content = serving_of(request).metrics.render()
    return Response(content, headers={"Content-Type": CONTENT_TYPE})


async def _reasons(serving: Serving) -> list[str]:
    reasons = []
    if serving.is_draining:
        reasons.append("the server is stopping")
    if not serving.batcher.is_alive:
        reasons.append("the scoring or the storing thread has ended")
    if not serving.batcher.stores:
        reasons.append("the last batch could not be stored")
    try:
        await run_in_threadpool(_touch, serving.service.database)
    except Exception as error:  # whatever a driver raises, the answer is that it is unreachable
        log_failure("the database cannot be reached", error)
        reasons.append("the database cannot be reached")
    return reasons


def _touch(database: Database) -> None:
    with database.reading() as session:
        session.execute(select(ReleaseRow.id).limit(1)).all()
