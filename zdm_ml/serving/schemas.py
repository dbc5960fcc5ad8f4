"""The server's answers, as OpenAPI shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class ModelId(BaseModel):
    """The version that judged an image; `name` is the registered model."""

    name: str
    version: str
    run_id: str
    data_md5: str
    git_commit: str
    profile: str


class Rules(BaseModel):
    """A score below `ok_below` is ok, from `defect_from` on a defect, between them `review`.

    `threshold` is the one of lowest expected cost; `guarantee` says what is promised of the verdict
    ok, or why nothing is.
    """

    threshold: float
    ok_below: float
    defect_from: float
    guaranteed: bool
    guarantee: str


class Verdict(BaseModel):
    """`score` is P(defect); `review` asks for a person."""

    verdict: Literal["ok", "defect", "review"]
    score: float


class Prediction(Rules, Verdict):
    """`ms`: milliseconds from the whole body to the answer."""

    prediction_id: str
    image_sha256: str
    model: ModelId
    ms: float


class FilePrediction(Prediction):
    """One judged image of a batch, by the name that it was sent with."""

    file: str


class FileError(BaseModel):
    """One image of a batch that was refused."""

    file: str
    error: str
    detail: str


class Batch(BaseModel):
    """One entry per image, in the order in which they were sent."""

    predictions: list[FilePrediction | FileError]


class Problem(BaseModel):
    """Why there is no answer: `error` for programs, `detail` for people."""

    error: str
    detail: str


class Readiness(BaseModel):
    """`problem` may be set while the server is ready: it says what a person should look at."""

    ready: bool
    version: str | None
    origin: str
    problem: str


class ModelCard(ModelId, Rules):
    """`display_name` marks a demo; `model_name` is the architecture."""

    model_config = ConfigDict(protected_namespaces=())

    display_name: str
    model_name: str
    input_size: int
    package_digest: str
    origin: str
    since: str
    problem: str
