"""The inference server's HTTP door."""

from __future__ import annotations

import time
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from zdm_ml.errors import ZdmError
from zdm_ml.registry.naming import display_name
from zdm_ml.serving.config import ServingConfig
from zdm_ml.serving.limits import RefusalError, read_uploads
from zdm_ml.serving.predictor import Refusal
from zdm_ml.serving.schemas import (
    Batch,
    FileError,
    FilePrediction,
    ModelCard,
    Prediction,
    Problem,
    Readiness,
)
from zdm_ml.serving.service import Service, refused, rules_of
from zdm_ml.serving.source import PackageSource
from zdm_ml.serving.telemetry import Measured

BINARY = {"schema": {"type": "string", "format": "binary"}}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    properties = {"type": "object", "required": [field], "properties": {field: schema}}
    return {"multipart/form-data": {"schema": properties}}


IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/jpeg": BINARY,
            "image/png": BINARY,
            **_form("file", BINARY["schema"]),
        },
    }
}
BATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": _form("files", {"type": "array", "items": BINARY["schema"]}),
    }
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "No image, or it cannot be decoded"},
    408: {"model": Problem, "description": "The body came too slowly"},
    413: {"model": Problem, "description": "The body is too long"},
    415: {"model": Problem, "description": "The content is neither JPEG nor PNG"},
    422: {"model": Problem, "description": "Too many pixels, or several frames"},
    503: {"model": Problem, "description": "No approved model, or overload (see Retry-After)"},
}

router = APIRouter()


def create_app(config: ServingConfig, source: PackageSource) -> FastAPI:
    """Build a server that follows `source`; it reads no environment and starts nothing yet."""
    service = Service(config, source)
    app = FastAPI(
        title="ZDM casting inspection",
        description="Judges castings with the champion of the model registry.",
        lifespan=service.life,
    )
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(RefusalError, _refusal)
    app.add_exception_handler(ZdmError, _failure)
    app.add_middleware(Measured, telemetry=service.telemetry)
    return app


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


ServiceOf = Annotated[Service, Depends(_service)]


@router.post("/predict", responses=PROBLEMS, openapi_extra=IMAGE_BODY)
async def predict(request: Request, service: ServiceOf) -> Prediction:
    """Judge one image: the raw JPEG or PNG as the body, or a multipart field `file`."""
    limits = service.config.limits
    with service.gate.admit():
        service.approved()
        uploads = await read_uploads(
            request,
            field="file",
            max_bytes=limits.body_bytes,
            max_files=1,
            seconds=limits.body_seconds,
        )
        started, served = time.perf_counter(), service.approved()
        (scored,) = await service.score(served, uploads)
    answer = service.answer(served, scored, started)
    if isinstance(answer, Refusal):
        raise refused(answer)
    return answer


@router.post("/predict/batch", responses=PROBLEMS, openapi_extra=BATCH_BODY)
async def predict_batch(request: Request, service: ServiceOf) -> Batch:
    """Judge the images of a multipart field `files`, all with the same version."""
    limits = service.config.limits
    with service.gate.admit():
        service.approved()
        uploads = await read_uploads(
            request,
            field="files",
            max_bytes=limits.batch_bytes,
            max_files=limits.batch_images,
            seconds=limits.body_seconds,
        )
        started, served = time.perf_counter(), service.approved()
        results = await service.score(served, uploads)
    entries: list[FilePrediction | FileError] = []
    for scored in results:
        answer, file = service.answer(served, scored, started), scored.upload.file
        if isinstance(answer, Refusal):
            entries.append(FileError(file=file, error=answer.reason, detail=answer.detail))
        else:
            entries.append(FilePrediction(file=file, **dict(answer)))
    return Batch(predictions=entries)


@router.get("/live")
async def live() -> dict[str, bool]:
    """Answer as long as the process does."""
    return {"live": True}


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(response: Response, service: ServiceOf) -> Readiness:
    """Tell whether castings can be judged, and what a person should look at."""
    state = service.reloader.state
    response.status_code = 200 if state.served else 503
    return Readiness(
        ready=state.served is not None,
        version=state.served.champion.version if state.served else None,
        origin=state.origin,
        problem=state.problem,
    )


@router.get("/model", responses={503: PROBLEMS[503]})
async def model(service: ServiceOf) -> ModelCard:
    """Describe the version that serves."""
    served = service.approved()
    info, state = served.package.info, service.reloader.state
    return ModelCard(
        **dict(service.model_id(served)),
        display_name=display_name(info.model_name, info.profile),
        model_name=info.model_name,
        **rules_of(served.predictor.ruling),
        input_size=served.package.net.spec.input_size,
        package_digest=info.digest,
        origin=state.origin,
        since=served.since.isoformat(),
        problem=state.problem,
    )


@router.get("/metrics", response_class=Response)
async def metrics(service: ServiceOf) -> Response:
    """Return the metrics in Prometheus' text format."""
    content = service.telemetry.scrape(service.config.name, service.reloader.state.served)
    return Response(content, media_type=CONTENT_TYPE_LATEST)


async def _refusal(_: Request, error: Exception) -> JSONResponse:
    refusal = cast(RefusalError, error)
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else None
    return JSONResponse(
        {"error": refusal.reason, "detail": refusal.detail}, refusal.status, headers
    )


async def _failure(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "failure", "detail": str(error)}, 500)
