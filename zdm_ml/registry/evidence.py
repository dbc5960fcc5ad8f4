"""Evidence for the gate: both packages, verified, scored on the same images at this moment."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zdm_ml.data.images import Grey, decode_grey
from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError, PackageError, PipelineError
from zdm_ml.evaluation.figures import truth
from zdm_ml.evaluation.metrics import Scores
from zdm_ml.registry.decision import Check, check
from zdm_ml.registry.gate import (
    Evidence,
    Policy,
    judge,
    latency_check,
    leak_check,
    measure,
    perturbation_check,
    profile_check,
    slices_of,
)
from zdm_ml.registry.package import GOLDEN_PIXELS, Package, load_package
from zdm_ml.registry.selftest import self_test_in_clean_process
from zdm_ml.registry.versions import VersionInfo, download_package, is_older

ImagesFor = Callable[[str], Path]
"""Give the DVC hash of a data version, get the folder that holds its images."""

BATCH = 64
TIMED = 10


@dataclass(frozen=True)
class Contest:
    """Who stands before the gate, where packages go and where images come from.

    `again`: a person lets the challenger in although it was rolled back or is older.
    """

    uri: str
    challenger: VersionInfo
    champion: VersionInfo | None
    folder: Path
    images_for: ImagesFor
    policy: Policy
    again: bool = False


@dataclass(frozen=True)
class Exhibit:
    """What the gate looked at: `rows` of images below `folder`, and each package's scores [N]."""

    folder: Path
    rows: Sequence[Row]
    challenger: Package
    champion: Package | None
    scores: Scores
    champion_scores: Scores | None


@dataclass(frozen=True)
class Examination:
    """Every check of the gate, and what they rest on where it could be measured."""

    checks: list[Check]
    exhibit: Exhibit | None = None


def examine(contest: Contest) -> Examination:
    """Return every check of the gate; what cannot be measured is a broken check."""
    challenger, champion = contest.challenger, contest.champion
    checks = [
        check("rolled_back", contest.again or not challenger.rolled_back),
        *([] if champion is None else [_age(challenger, champion, again=contest.again)]),
        profile_check(challenger.profile, champion.profile if champion else None),
    ]
    package, verified = _verified(contest, challenger, "digests")
    checks.append(verified)
    if package is None:
        return Examination(checks)
    checks += [_golden(package), _leak(package), *_own_figures(package, contest.policy)]
    rival: Package | None = None
    if champion is not None:
        rival, verified = _verified(contest, champion, "champion_digests")
        checks.append(verified)
        if rival is None:
            return Examination(checks)
    found = _figures(contest, package, rival)
    return Examination([*checks, *found.checks], found.exhibit)


def shared_rows(package: Package, rival: Package | None) -> list[Row]:
    """Return the challenger's test rows that show castings neither model trained on."""
    trained_on = package.info.trained_on | (rival.info.trained_on if rival else frozenset())
    return [row for row in package.test_rows if row.part not in trained_on]


def _age(challenger: VersionInfo, champion: VersionInfo, *, again: bool) -> Check:
    """Keep what an old retraining brings up again from replacing a newer champion."""
    if not is_older(challenger, champion):
        return Check("not_older", "passed")
    asked = f"older than champion version {champion.version}"
    if again:
        return Check("not_older", "passed", f"{asked}, asked for again")
    hint = f"`zdm promote {challenger.version} --again` puts it before the gate all the same"
    return Check("not_older", "failed", f"{asked} ({hint})")


def _verified(contest: Contest, version: VersionInfo, name: str) -> tuple[Package | None, Check]:
    try:
        folder = download_package(
            contest.uri, version.version, contest.folder / f"version-{version.version}"
        )
        package = load_package(folder)
    except PackageError as error:
        return None, Check(name, "broken", error.problem)
    if package.info.profile != version.profile:
        said = f"the package is of profile {package.info.profile}, its tag says {version.profile}"
        return None, Check(name, "broken", said)
    return package, Check(name, "passed", package.info.digest[:12])


def _golden(package: Package) -> Check:
    try:
        return Check("golden", "passed", self_test_in_clean_process(package.folder))
    except PackageError as error:
        return Check("golden", "broken", error.problem)


def _leak(package: Package) -> Check:
    """Check what the figures say of leaks, and the castings themselves."""
    shared = {row.part for row in package.test_rows} & package.info.trained_on
    return leak_check(package.info.profile, package.metrics.get("leaky"), len(shared))


def _own_figures(package: Package, policy: Policy) -> list[Check]:
    """Check what needs no rival: the worst perturbation, and the time that a verdict takes."""
    images = package.golden_images()
    lasted = []
    for image in images[:1] * (1 + TIMED):
        started = time.perf_counter()
        package.net.scores([image])
        lasted.append(1000 * (time.perf_counter() - started))
    # The first pass warms up; the slowest of the others counts.
    latency = latency_check(max(lasted[1:]), policy.cost.takt_seconds)
    return [perturbation_check(package.metrics, policy.perturbation_floor), latency]


def _figures(contest: Contest, package: Package, rival: Package | None) -> Examination:
    rows = shared_rows(package, rival)
    if not rows:
        problem = "no test casting that neither model trained on"
        return Examination([Check("images", "broken", problem)])
    packages = [package, *([rival] if rival else [])]
    try:
        folder = contest.images_for(package.info.data_md5)
        scores = _scores(folder, rows, packages)
    except (DataError, PipelineError, OSError) as error:
        return Examination([Check("images", "broken", str(error).splitlines()[0])])
    sides = [
        measure(found, *truth(rows), each.ruling.verdicts, contest.policy.cost)
        for found, each in zip(scores, packages, strict=True)
    ]
    evidence = Evidence(
        images=len(rows),
        challenger=sides[0],
        champion=sides[1] if rival else None,
        slices=slices_of(rows, sides[0].judged.castings.parts),
    )
    checks = [Check("images", "passed", len(rows)), *judge(evidence, contest.policy)]
    exhibit = Exhibit(folder, rows, package, rival, scores[0], scores[1] if rival else None)
    return Examination(checks, exhibit)


def _scores(folder: Path, rows: Sequence[Row], packages: Sequence[Package]) -> list[Scores]:
    """Score every image with each package; images are decoded once for all of them."""
    scores: list[list[Scores]] = [[] for _ in packages]
    for start in range(0, len(rows), BATCH):
        images = [read_image(folder, row) for row in rows[start : start + BATCH]]
        for kept, package in zip(scores, packages, strict=True):
            kept.append(package.net.scores(images))
    return [np.concatenate(kept) for kept in scores]


def read_image(folder: Path, row: Row) -> Grey:
    """Return a row's image, uint8 [H, W]; one that is not the manifest's raises `DataError`."""
    content = (folder / row.path).read_bytes()
    if hashlib.sha256(content).hexdigest() != row.sha256:
        raise DataError(f"{folder / row.path} is not the image that the manifest names")
    return decode_grey(content, max_pixels=GOLDEN_PIXELS)
