"""The decision packet: why a version may or may not replace the champion, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.bounds import by_casting, castings_needed
from zdm_ml.evaluation.figures import decision_figures, reliability_of, truth
from zdm_ml.evaluation.metrics import Scores
from zdm_ml.files import read_json, write_json, write_text
from zdm_ml.registry.decision import Check, unmet
from zdm_ml.registry.evidence import Examination, Exhibit
from zdm_ml.registry.gate import Policy
from zdm_ml.registry.package import Package
from zdm_ml.registry.packet_page import render
from zdm_ml.registry.versions import VersionInfo

FOLDER = "packet"
PAGE, FIGURES = "packet.html", "packet.json"


@dataclass(frozen=True)
class Case:
    """One test image, as both models judge it; the champion's verdict is None without one."""

    path: str
    label: str
    part: str
    score: float
    verdict: str
    champion_score: float | None
    champion_verdict: str | None


@dataclass(frozen=True)
class Background:
    """What is known of the retraining that made a version; None where it was not kept.

    `leaderboard` holds its rows, `audit` the findings on its data, `reuse` a sentence on how often
    its test castings have been used to choose.
    """

    leaderboard: Sequence[Mapping[str, Any]] | None = None
    audit: Sequence[Mapping[str, Any]] | None = None
    reuse: str | None = None


def write_packet(
    folder: Path,
    version: VersionInfo,
    champion: VersionInfo | None,
    examination: Examination,
    policy: Policy,
    background: Background,
) -> None:
    """Write `PAGE`, which needs no file beside it, and `FIGURES` into `folder`."""
    packet = gather(version, champion, examination, policy, background)
    write_json(folder / FIGURES, packet)
    write_text(folder / PAGE, render(packet, examination.exhibit))


def gather(
    version: VersionInfo,
    champion: VersionInfo | None,
    examination: Examination,
    policy: Policy,
    background: Background,
) -> dict[str, Any]:
    """Return everything that the packet says; sections that could not be measured are None."""
    open_checks = unmet(examination.checks)
    exhibit = examination.exhibit
    return {
        "version": asdict(version),
        "champion": asdict(champion) if champion else None,
        "passed": not open_checks,
        "checks": [asdict(item) for item in examination.checks],
        "costs": asdict(policy.cost),
        "audit": [dict(finding) for finding in background.audit or ()],
        "leaderboard": [dict(row) for row in background.leaderboard or ()],
        "figures": _figures(exhibit, policy) if exhibit else None,
        "disagreements": _cases(exhibit, disagreements(exhibit)) if exhibit else [],
        "worst_errors": _cases(exhibit, worst_errors(exhibit)) if exhibit else [],
        "limits": [*limits(exhibit, examination.checks), *_remembered(background)],
    }


def disagreements(exhibit: Exhibit) -> list[int]:
    """Return the places of the images on which the two models' verdicts differ."""
    if exhibit.champion is None or exhibit.champion_scores is None:
        return []
    mine = _verdicts(exhibit.challenger, exhibit.scores)
    its = _verdicts(exhibit.champion, exhibit.champion_scores)
    return [at for at, (one, other) in enumerate(zip(mine, its, strict=True)) if one != other]


def worst_errors(exhibit: Exhibit) -> list[int]:
    """Return the places of wrongly judged images, those that look surest of it first."""
    found = []
    for at, (row, verdict) in enumerate(
        zip(exhibit.rows, _verdicts(exhibit.challenger, exhibit.scores), strict=True)
    ):
        if verdict not in (row.label, "review"):
            sure = 1 - exhibit.scores[at] if row.label == "defect" else exhibit.scores[at]
            # Escapes before overkills: they cost more.
            found.append((row.label != "defect", -float(sure), at))
    return [at for _, _, at in sorted(found)]


def limits(exhibit: Exhibit | None, checks: Sequence[Check]) -> list[str]:
    """Return in plain words what the figures do not show."""
    if exhibit is None:
        return [
            "The two models could not be compared on castings that neither trained on; the checks"
            " say why."
        ]
    targets, parts = truth(exhibit.rows)
    counts = by_casting(exhibit.scores, targets, parts, exhibit.challenger.ruling.verdicts, 0.95)
    said = [
        f"The figures rest on {counts['defective']} defective and {counts['good']} good castings."
        " Images of one casting are no independent evidence.",
        f"{exhibit.challenger.ruling.statement[:1].upper()}"
        f"{exhibit.challenger.ruling.statement[1:]}.",
        "The bounds take the test castings for a random sample of those to come: another part,"
        " camera or lamp was not tried.",
    ]
    licence = exhibit.challenger.map_licence
    if not licence.licensed:
        said.append(f"No heat maps are shown: {licence.reason}.")
    if exhibit.challenger.info.profile != "full":
        said.append(
            f"A demo: trained with profile {exhibit.challenger.info.profile}, to show that"
            " everything works."
        )
    if any(item.state == "broken" for item in checks):
        said.append("Some checks could not be measured; that counts as not passed.")
    return said


def _remembered(background: Background) -> list[str]:
    """Return how often the test castings chose, and what the retraining left nothing of."""
    absent = {
        "its leaderboard": background.leaderboard,
        "the audit of its data": background.audit,
        "how often its test castings have been used to choose": background.reuse,
    }
    lost = [name for name, kept in absent.items() if kept is None]
    said = [background.reuse] if background.reuse else []
    if lost:
        said.append(f"Not on record of the retraining, so not shown: {'; '.join(lost)}.")
    return said


def _figures(exhibit: Exhibit, policy: Policy) -> dict[str, Any]:
    challenger = _of_package(exhibit.challenger, exhibit.scores, exhibit.rows, policy)
    champion, claim = None, policy.promise
    if exhibit.champion is not None and exhibit.champion_scores is not None:
        champion = _of_package(exhibit.champion, exhibit.champion_scores, exhibit.rows, policy)
    return {
        "images": len(exhibit.rows),
        "challenger": challenger,
        "champion": champion,
        "claim": {**asdict(claim), "castings": castings_needed(*astuple(claim))},
    }


def _of_package(
    package: Package, scores: Scores, rows: Sequence[Row], policy: Policy
) -> dict[str, Any]:
    ruling = package.ruling
    decision = read_json(package.folder / "decision.json")
    temperature = float(decision.get("temperature", 1.0))
    return {
        "by_casting": by_casting(scores, *truth(rows), ruling.verdicts, policy.confidence),
        "decision": decision_figures(scores, rows, ruling.verdicts, policy.cost),
        "reliability": reliability_of(scores, rows, temperature),
        "guaranteed": ruling.guaranteed,
        "guarantee": ruling.statement,
        "worst_perturbation": (package.metrics.get("robustness") or {}).get("worst"),
        "trained_on": len(package.info.trained_on),
    }


def _cases(exhibit: Exhibit, places: Sequence[int]) -> list[dict[str, Any]]:
    mine = _verdicts(exhibit.challenger, exhibit.scores)
    its: Sequence[str | None] = [None] * len(mine)
    if exhibit.champion is not None and exhibit.champion_scores is not None:
        its = _verdicts(exhibit.champion, exhibit.champion_scores)
    other = exhibit.champion_scores if exhibit.champion_scores is not None else np.array([])
    return [
        asdict(
            Case(
                path=row.path,
                label=row.label,
                part=row.part,
                score=float(exhibit.scores[at]),
                verdict=mine[at],
                champion_score=float(other[at]) if len(other) else None,
                champion_verdict=its[at],
            )
        )
        for at in places
        for row in [exhibit.rows[at]]
    ]


def _verdicts(package: Package, scores: Scores) -> list[str]:
    return [package.ruling.verdicts.of(float(score)) for score in scores]
