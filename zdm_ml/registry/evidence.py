"""Evidence for the gate: both packages, verified, scored on the same images at this moment."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zdm_ml.data.images import decode_grey
from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError, PackageError, PipelineError
from zdm_ml.registry.decision import Check, check
from zdm_ml.registry.gate import (
    Evidence,
    Policy,
    Side,
    judge,
    leak_check,
    measure,
    profile_check,
)
from zdm_ml.registry.package import GOLDEN_PIXELS, Package, load_package
from zdm_ml.registry.selftest import self_test_in_clean_process
from zdm_ml.registry.versions import VersionInfo, download_package, is_older

ImagesFor = Callable[[str], Path]
"""Give the DVC hash of a data version, get the folder that holds its images."""

BATCH = 64


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


def examine(contest: Contest) -> list[Check]:
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
        return checks
    checks += [_golden(package), _leak(package)]
    rival: Package | None = None
    if champion is not None:
        rival, verified = _verified(contest, champion, "champion_digests")
        checks.append(verified)
        if rival is None:
            return checks
    return [*checks, *_figures(contest, package, rival)]


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


def _figures(contest: Contest, package: Package, rival: Package | None) -> list[Check]:
    rows = shared_rows(package, rival)
    try:
        folder = contest.images_for(package.info.data_md5)
        sides = _sides(folder, rows, [package, *([rival] if rival else [])], contest.policy)
    except (DataError, PipelineError, OSError) as error:
        return [Check("images", "broken", str(error).splitlines()[0])]
    parts = {label: {row.part for row in rows if row.label == label} for label in ("ok", "defect")}
    evidence = Evidence(
        images=len(rows),
        castings_ok=len(parts["ok"]),
        castings_defect=len(parts["defect"]),
        challenger=sides[0],
        champion=sides[1] if rival else None,
    )
    return [Check("images", "passed", len(rows)), *judge(evidence, contest.policy)]


def _sides(
    folder: Path, rows: Sequence[Row], packages: Sequence[Package], policy: Policy
) -> list[Side]:
    """Score every image with each package; images are decoded once for all of them."""
    scores: list[list[np.ndarray]] = [[] for _ in packages]
    for start in range(0, len(rows), BATCH):
        images = [_image(folder, row) for row in rows[start : start + BATCH]]
        for kept, package in zip(scores, packages, strict=True):
            kept.append(package.net.scores(images))
    targets = [row.target for row in rows]
    return [
        measure(
            package.info.profile,
            np.concatenate(kept) if kept else np.empty(0),
            targets,
            package.threshold,
            policy.overkill_weight,
        )
        for kept, package in zip(scores, packages, strict=True)
    ]


def _image(folder: Path, row: Row) -> np.ndarray:
    content = (folder / row.path).read_bytes()
    if hashlib.sha256(content).hexdigest() != row.sha256:
        raise DataError(f"{folder / row.path} is not the image that the manifest names")
    return decode_grey(content, max_pixels=GOLDEN_PIXELS)
