"""The model card: what a version is, in words, for people who open it in the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zdm_ml.data.manifest import read_manifest
from zdm_ml.files import read_json
from zdm_ml.registry.naming import display_name
from zdm_ml.registry.package import Source

FIGURES = ("accuracy", "balanced_accuracy", "recall", "precision", "f1", "roc_auc")
COUNTS = ("images", "escapes", "overkills")


def model_card(folder: Path, source: Source) -> str:
    """Return the card as Markdown for the package being assembled in `folder`."""
    spec, decision = read_json(folder / "net.json"), read_json(folder / "decision.json")
    castings = read_json(folder / "castings.json")
    test_castings = {row.part for row in read_manifest(folder / "test.csv")}
    shared = test_castings & set(castings["trained_on"])
    lines = [
        f"# casting-inspector: {display_name(source.model_name, source.profile)}",
        "",
        "Judges grey top views of castings: `score` is P(defect); "
        f"`defect` when score >= {decision['threshold']:.6g}.",
        "",
        *_demo(source.profile),
        f"- network: {source.model_name}, input {spec['input_size']} px, transfer "
        f"{spec['transfer']}, {_init(spec)}",
        f"- data version: {source.data_md5}; trained on {len(castings['trained_on'])} castings",
        f"- test castings: {len(test_castings)}, of which {len(shared)} were also trained on",
        f"- made by run {source.run_id}, commit {source.git_commit[:12]}",
        "",
        *_figures(read_json(folder / "metrics.json")),
        "Limits: the figures count images of the shipped test set, which shows castings that "
        "training images show too; on unseen castings expect worse. Not validated outside this "
        "kind of part, camera and lighting. Casting images: CC BY-NC-ND 4.0.",
    ]
    return "\n".join(lines) + "\n"


def _demo(profile: str) -> list[str]:
    if profile == "full":
        return []
    return [f"**Demo:** trained with profile `{profile}`; it never replaces a full model.", ""]


def _init(spec: dict[str, Any]) -> str:
    if spec["init"] == "scratch":
        return "trained from scratch (no pretrained weights)"
    return f"pretrained weights {spec['weights_file']} ({spec['init']})"


def _figures(metrics: dict[str, Any]) -> list[str]:
    test = metrics.get("test", metrics)
    rows = [f"| {key} | {test[key]:.4f} |" for key in FIGURES if _number(test.get(key))]
    rows += [f"| {key} | {test[key]:g} |" for key in COUNTS if _number(test.get(key))]
    return ["| test figure | value |", "| --- | --- |", *rows, ""] if rows else []


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
