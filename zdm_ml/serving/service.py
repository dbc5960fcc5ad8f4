"""The parts of a running inference server and their common life."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from zdm_ml.evaluation.verdicts import Ruling
from zdm_ml.serving.config import ServingConfig
from zdm_ml.serving.limits import STATUS, Gate, RefusalError, Upload, check_type
from zdm_ml.serving.packages import PackageCache
from zdm_ml.serving.predictor import Judgement, Refusal
from zdm_ml.serving.reloader import NO_MODEL, Reloader, Served
from zdm_ml.serving.schemas import ModelId, Prediction
from zdm_ml.serving.source import PackageSource
from zdm_ml.serving.store import PredictionRow, PredictionStore
from zdm_ml.serving.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Scored:
    """One upload after the model; `sha256` is of the bytes as they were sent."""

    upload: Upload
    sha256: str
    result: Judgement | Refusal


class Service:
    """Owns the threads: scoring, polling the registry, writing predictions."""

    def __init__(self, config: ServingConfig, source: PackageSource) -> None:
        self.config = config
        self.gate = Gate(config.limits.pending)
        self.telemetry = Telemetry()
        self.store = PredictionStore(config.store_url)
        self.reloader = Reloader(
            source,
            PackageCache(config.state),
            max_pixels=config.limits.pixels,
            poll_seconds=config.poll_seconds,
        )
        self._pool = ThreadPoolExecutor(
            config.workers, "scoring", torch.set_num_threads, (config.torch_threads,)
        )
        self._watch()

    @asynccontextmanager
    async def life(self, _: object) -> AsyncIterator[None]:
        """Start the threads with the server; on its way down, write the last predictions."""
        self.store.start()
        self.reloader.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self._stop)

    def approved(self) -> Served:
        """Return the version to judge with, or raise `RefusalError` (503): it is never guessed."""
        state = self.reloader.state
        if state.served is None:
            raise RefusalError(503, "no_approved_model", state.problem or NO_MODEL, retry_after=5)
        return state.served

    async def score(self, served: Served, uploads: Sequence[Upload]) -> list[Scored]:
        """Judge uploads in the scoring pool, off the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, _score, served, uploads)

    def answer(self, served: Served, scored: Scored, started: float) -> Prediction | Refusal:
        """Return the answer for one upload and record it; `started` is a `perf_counter`."""
        if isinstance(scored.result, Refusal):
            return scored.result
        prediction = Prediction(
            verdict=scored.result.verdict,
            score=scored.result.score,
            **rules_of(served.predictor.ruling),
            prediction_id=str(uuid.uuid4()),
            image_sha256=scored.sha256,
            model=self.model_id(served),
            ms=round((time.perf_counter() - started) * 1000, 3),
        )
        self.telemetry.verdict(prediction.verdict, served.champion.version)
        self.store.record(_row(prediction))
        return prediction

    def model_id(self, served: Served) -> ModelId:
        """Return what every answer says about the version that judged."""
        info = served.package.info
        return ModelId(
            name=self.config.name,
            version=served.champion.version,
            run_id=served.champion.run_id,
            data_md5=info.data_md5,
            git_commit=info.git_commit,
            profile=info.profile,
        )

    def _watch(self) -> None:
        counts, watch = self.store.counts, self.telemetry.watch
        watch("zdm_pending_requests", "Requests in work", lambda: self.gate.pending)
        watch("zdm_store_queue_rows", "Predictions not yet stored", lambda: self.store.depth)
        watch("zdm_store_written_rows", "Predictions stored", lambda: counts.written)
        watch("zdm_store_dropped_rows", "Predictions given up", lambda: counts.dropped)

    def _stop(self) -> None:
        self.reloader.stop()
        self._pool.shutdown(cancel_futures=True)
        self.store.close()


def rules_of(ruling: Ruling) -> dict[str, Any]:
    """Return what every answer says of how verdicts come about."""
    return {
        "threshold": ruling.threshold,
        "ok_below": ruling.verdicts.ok_below,
        "defect_from": ruling.verdicts.defect_from,
        "guaranteed": ruling.guaranteed,
        "guarantee": ruling.statement,
    }


def refused(refusal: Refusal) -> RefusalError:
    """Return the HTTP answer for an image that cannot be judged."""
    return RefusalError(STATUS.get(refusal.reason, 400), refusal.reason, refusal.detail)


def _score(served: Served, uploads: Sequence[Upload]) -> list[Scored]:
    typed = [not check_type(upload.content) for upload in uploads]
    images = [upload.content for upload, known in zip(uploads, typed, strict=True) if known]
    results = served.predictor.judge(images)
    other = Refusal("not_an_image", "the content is neither JPEG nor PNG")
    return [
        Scored(
            upload, hashlib.sha256(upload.content).hexdigest(), next(results) if known else other
        )
        for upload, known in zip(uploads, typed, strict=True)
    ]


def _row(prediction: Prediction) -> PredictionRow:
    model = prediction.model
    return PredictionRow(
        id=prediction.prediction_id,
        time=datetime.now(UTC),
        image_sha256=prediction.image_sha256,
        verdict=prediction.verdict,
        score=prediction.score,
        threshold=prediction.threshold,
        model_name=model.name,
        model_version=model.version,
        run_id=model.run_id,
        data_md5=model.data_md5,
        git_commit=model.git_commit,
        profile=model.profile,
        ms=prediction.ms,
    )
