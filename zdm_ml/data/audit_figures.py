"""The audit's figures: counts, leakage, label conflicts and probes, as one JSON-ready mapping."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.data.findings import findings
from zdm_ml.data.inspection import Inspection
from zdm_ml.data.issues import UNDECODABLE, has_issue
from zdm_ml.data.layout import SHIPPED_SPLITS
from zdm_ml.data.manifest import CLASSES, Row
from zdm_ml.data.probes import FEATURES, FIRST_OF_BACKGROUND, probe_background, probe_feature

Features = Mapping[str, npt.NDArray[np.float32]]
Figures = dict[str, Any]

SHOWN = 20
IDENTITIES = ("known", "remembered", "ring", "outline", "alone")


def audit_figures(
    rows: Sequence[Row],
    features: Features,
    near_duplicates: Sequence[Sequence[str]],
    inspection: Inspection,
    warnings: Sequence[str],
) -> Figures:
    """Return `reports/audit.json`; `features` has every row that decodes.

    Castings (`parts*`, sample size, leakage) are counted over the images that decode.
    """
    decoded = [row for row in rows if row.path in features]
    parts = _grouped(decoded, lambda row: row.part)
    figures: Figures = {
        **_image_figures(rows, decoded),
        **_part_figures(parts),
        **_leakage(rows, parts),
        **_conflicts(rows, parts),
        **_probes(decoded, features),
        "near_duplicates": sum(len(group) - 1 for group in near_duplicates),
        "near_duplicate_images": [list(group) for group in near_duplicates],
        "lighting": _lighting(decoded),
        "identity": {**dict.fromkeys(IDENTITIES, 0), **Counter(row.identity for row in decoded)},
        "threshold": _threshold(inspection),
        "contradictions": [asdict(item) for item in inspection.contradictions],
        "suspects": [asdict(item) for item in inspection.suspects],
        "warnings": list(warnings),
    }
    found = findings(figures)
    figures["verdict"] = max(item.level for item in found).word
    figures["findings"] = [item.as_json() for item in found]
    figures["suggestions"] = list(dict.fromkeys(item.action for item in found if item.action))
    return figures


def _image_figures(rows: Sequence[Row], decoded: Sequence[Row]) -> Figures:
    broken = [row.path for row in rows if has_issue(row, UNDECODABLE)]
    distinct = len({row.sha256 for row in rows})
    sizes = Counter(f"{row.width}x{row.height}" for row in decoded)
    usual = max(sizes, key=lambda size: (sizes[size], size))
    odd = [row.path for row in decoded if f"{row.width}x{row.height}" != usual]
    return {
        "images": len(rows),
        "distinct_images": distinct,
        "exact_duplicates": len(rows) - distinct,
        "quarantined": len(broken),
        "undecodable": len(broken),
        "undecodable_images": broken,
        "per_split": {
            split: _per_class(row for row in rows if row.shipped_split == split)
            for split in SHIPPED_SPLITS
        },
        "per_class": _per_class(decoded),
        "sizes": dict(sorted(sizes.items())),
        "odd_sizes": {"usual": usual, "images": len(odd), "examples": odd[:SHOWN]},
        "mean_grey": {
            label: round(
                float(np.mean([row.mean_grey for row in decoded if row.label == label])), 3
            )
            for label in CLASSES
        },
    }


def _part_figures(parts: Mapping[str, Sequence[Row]]) -> Figures:
    labels = Counter(_part_label(members) for members in parts.values())
    sizes = [len(members) for members in parts.values()]
    return {
        "parts": len(parts),
        "parts_defect": labels["defect"],
        "parts_ok": labels["ok"],
        "parts_mixed": labels["mixed"],
        "effective_sample_size": {label: labels[label] for label in CLASSES},
        "families": len({members[0].family for members in parts.values()}),
        "images_per_part": {"min": min(sizes), "median": median(sizes), "max": max(sizes)},
    }


def _leakage(rows: Sequence[Row], parts: Mapping[str, Sequence[Row]]) -> Figures:
    """Count what shipped test shares with shipped train: bytes, and castings."""
    splits_of_bytes = defaultdict(set)
    for row in rows:
        splits_of_bytes[row.sha256].add(row.shipped_split)
    in_train = {row.part for row in rows if row.shipped_split == "train"}
    test = [row for row in rows if row.shipped_split == "test"]
    siblings = sum(row.part in in_train for row in test)
    identical = sum(len(splits) > 1 for splits in splits_of_bytes.values())
    both = {"train", "test"}
    leaking = sum({row.shipped_split for row in members} >= both for members in parts.values())
    return {
        "identical_across_splits": identical,
        "test_images": len(test),
        "test_images_with_train_sibling": siblings,
        "leakage": {
            "identical": identical,
            "siblings": siblings,
            "parts": leaking,
            "share_of_test": round(siblings / len(test), 4) if test else None,
        },
    }


def _conflicts(rows: Sequence[Row], parts: Mapping[str, Sequence[Row]]) -> Figures:
    """Name the castings with two labels, and the bytes that were filed under both."""
    mixed = {part: members for part, members in parts.items() if _part_label(members) == "mixed"}
    same_bytes = [
        [row.path for row in members]
        for members in _grouped(rows, lambda row: row.sha256).values()
        if len({row.label for row in members}) > 1
    ]
    return {
        "label_conflicts": len(mixed),
        "label_conflict_images": {
            "castings": {
                part: {
                    label: [row.path for row in members if row.label == label] for label in CLASSES
                }
                for part, members in mixed.items()
            },
            "same_bytes": sorted(same_bytes),
        },
    }


def _probes(decoded: Sequence[Row], features: Features) -> Figures:
    table = np.stack([features[row.path] for row in decoded]).astype(np.float64)
    target = np.array([row.target for row in decoded], dtype=np.int64)
    parts = [row.part for row in decoded]
    probes = {
        "brightness": probe_feature(
            table[:, FEATURES.index("mean")], target, parts, ("darker", "brighter")
        ),
        "contrast": probe_feature(
            table[:, FEATURES.index("contrast")], target, parts, ("flatter", "richer in contrast")
        ),
        "background": probe_background(table[:, FIRST_OF_BACKGROUND:], target, parts),
    }
    figures: Figures = {"probes": {name: asdict(probe) for name, probe in probes.items()}}
    for name, probe in probes.items():
        figures |= {f"{name}_auc": probe.auc, f"{name}_auc_per_part": probe.auc_per_part}
    return figures


def _lighting(decoded: Iterable[Row]) -> Figures:
    return {
        name: {
            "images": len(members),
            **_per_class(members),
            "mean_grey": _mean_grey(members),
        }
        for name, members in sorted(_grouped(decoded, lambda row: row.lighting).items())
    }


def _threshold(inspection: Inspection) -> Figures | None:
    found = inspection.threshold
    if found is None:
        return None
    return {
        "similarity": round(float(found.value), 4),
        "gap": [round(float(end), 4) for end in found.gap],
        "clear": bool(found.clear),
    }


def _part_label(members: Sequence[Row]) -> str:
    labels = {row.label for row in members}
    return labels.pop() if len(labels) == 1 else "mixed"


def _per_class(rows: Iterable[Row]) -> dict[str, int]:
    counts = Counter(row.label for row in rows)
    return {label: counts[label] for label in CLASSES}


def _mean_grey(rows: Iterable[Row]) -> float:
    return round(float(np.mean([row.mean_grey for row in rows])), 3)


def _grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(sorted(groups.items()))
