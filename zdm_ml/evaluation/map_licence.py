"""Whether a model may show its heat maps to people who act on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from zdm_ml.files import read_json

Verdict = Literal["licensed", "below_floor", "broken", "not_measured"]

SALIENCY_FILE = "saliency.json"


@dataclass(frozen=True)
class MapLicence:
    """`broken`: maps that know nothing pass the floor too; `reason` says what was measured."""

    verdict: Verdict
    reason: str

    @property
    def licensed(self) -> bool:
        """Only what was measured, and reached a floor that means something, has a licence."""
        return self.verdict == "licensed"


def not_measured(why: str) -> MapLicence:
    """Return what a model has whose maps nobody has measured: no licence."""
    return MapLicence("not_measured", f"the heat maps were not measured: {why}")


def decide(
    model: Mapping[str, Any],
    blind: Mapping[str, Mapping[str, Any]],
    castings: int,
    floor: float,
    confidence: float,
) -> MapLicence:
    """Judge a model's pointing score on `castings` beside those of maps that know nothing."""
    best = max(blind, key=lambda name: int(blind[name]["hits"]))
    if blind[best]["pointing"] >= floor:
        return MapLicence(
            "broken",
            f"a map that knows nothing of the image ({best}) points at the defect in"
            f" {blind[best]['hits']} of {castings} synthetic castings, which is not below the floor"
            f" of {floor:.0%}: the floor or the measure is worthless",
        )
    found = (
        f"the heat maps point at the defect in {model['hits']} of {castings} synthetic castings,"
        f" {model['pointing']:.1%} (at {confidence:.0%} between {model['pointing_low']:.1%} and"
        f" {model['pointing_high']:.1%})"
    )
    if model["pointing"] < floor:
        return MapLicence("below_floor", f"{found}, which is below the floor of {floor:.0%}")
    return MapLicence("licensed", f"{found}; the floor is {floor:.0%}")


def read_licence(path: Path, model_digest: str) -> MapLicence:
    """Return what a saliency.json says of the weights with this digest; in doubt no licence."""
    try:
        figures = read_json(path)
    except OSError:
        return not_measured(f"there is no {path.name} beside the other figures")
    except ValueError:
        return not_measured(f"{path.name} is not JSON")
    if not isinstance(figures, dict) or figures.get("verdict") not in get_args(Verdict):
        return not_measured(f"{path.name} holds no verdict")
    if figures.get("model_digest") != model_digest:
        return not_measured(f"{path.name} is of other weights")
    return MapLicence(cast(Verdict, figures["verdict"]), str(figures.get("reason", "")))
