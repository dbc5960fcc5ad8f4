"""The model card: what a version is, in words, for people who open it in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zdm_ml.data.manifest import read_manifest
from zdm_ml.evaluation.map_licence import SALIENCY_FILE, read_licence
from zdm_ml.evaluation.verdicts import Ruling, read_ruling
from zdm_ml.files import read_json
from zdm_ml.registry.naming import display_name
from zdm_ml.registry.package import Source

FIGURES = ("accuracy", "balanced_accuracy", "recall", "precision", "f1", "roc_auc")
COUNTS = ("images", "escapes", "overkills")


def model_card(folder: Path, source: Source) -> str:
    """Return the card as Markdown for the package being assembled in `folder`."""
    spec, decision = read_json(folder / "net.json"), read_json(folder / "decision.json")
    maps = read_licence(folder / SALIENCY_FILE, spec["digest"])
    castings, metrics = read_json(folder / "castings.json"), read_json(folder / "metrics.json")
    test_castings = {row.part for row in read_manifest(folder / "test.csv")}
    shared = test_castings & set(castings["trained_on"])
    ruling = read_ruling(decision)
    lines = [
        f"# casting-inspector: {display_name(source.model_name, source.profile)}",
        "",
        "Judges grey top views of castings: `score` is P(defect); " + _verdicts(ruling),
        "",
        *_demo(source.profile),
        *_leak(metrics, len(shared)),
        f"- network: {source.model_name}, input {spec['input_size']} px, transfer "
        f"{spec['transfer']}, {_init(spec)}",
        f"- data version: {source.data_md5}; trained on {len(castings['trained_on'])} castings",
        f"- test castings: {len(test_castings)}, of which {len(shared)} were also trained on",
        f"- threshold chosen on: {_calibration(decision)}",
        f"- made by run {source.run_id}, commit {source.git_commit[:12]}",
        "",
        *_bounds(metrics.get("by_casting")),
        *_worst(metrics.get("robustness")),
        *_plant(metrics.get("decision")),
        *_figures(metrics, ruling.threshold),
        f"Heat maps: {'licensed' if maps.licensed else 'NOT licensed'}; {maps.reason}.",
        "",
        "Limits: views of one casting are no independent evidence, so trust the bounds by casting. "
        "Not validated outside this kind of part, camera and lighting. Casting images: "
        "CC BY-NC-ND 4.0.",
    ]
    return "\n".join(lines) + "\n"


def _verdicts(ruling: Ruling) -> str:
    low, high = ruling.verdicts.ok_below, ruling.verdicts.defect_from
    between = ", `review` between" if low < high else ""
    return f"`ok` below {low:.6g}, `defect` from {high:.6g} on{between}. {ruling.statement}."


def _demo(profile: str) -> list[str]:
    if profile == "full":
        return []
    return [f"**Demo:** trained with profile `{profile}`; it never replaces a full model.", ""]


def _leak(metrics: Mapping[str, Any], shared: int) -> list[str]:
    protocol = metrics.get("protocol", "unknown")
    if metrics.get("leaky") or shared:
        return [
            f"**LEAKY:** split protocol `{protocol}`; test castings were also trained on. The "
            "figures are too good: on unseen castings expect worse.",
            "",
        ]
    if metrics.get("leaky") is None:
        return ["**Unknown:** the figures do not say whether the split leaks.", ""]
    return [
        f"Not leaky: split protocol `{protocol}`; no test casting was trained on, and none chose "
        "the threshold.",
        "",
    ]


def _calibration(decision: Mapping[str, Any]) -> str:
    found = decision.get("calibration", {})
    if "castings" not in found:
        return "unknown"
    return f"{found['castings']} castings ({found['source']})"


def _bounds(figures: Mapping[str, Any] | None) -> list[str]:
    if figures is None:
        return []
    level = f"{100 * figures['confidence']:g} %"
    return [
        f"By casting ({figures['aggregation']}):",
        "",
        *(
            f"- {figures[errors]} of {figures[kind]} {kind} castings {verb}"
            + (f", at most {bound:.1%} at {level}" if (bound := figures[upper]) is not None else "")
            for errors, kind, verb, upper in (
                ("escapes", "defective", "escaped", "escape_rate_upper"),
                ("overkills", "good", "rejected", "overkill_rate_upper"),
            )
        ),
        "",
    ]


def _worst(figures: Mapping[str, Any] | None) -> list[str]:
    if figures is None:
        return []
    worst = figures["worst"]
    return [
        f"Worst under changes of light, camera and pose: `{worst['name']}`, balanced accuracy "
        f"{worst['balanced_accuracy']:.4f}, {worst['escapes']} escapes in {figures['images']} "
        "images, told apart at one threshold.",
        "",
    ]


def _plant(figures: Mapping[str, Any] | None) -> list[str]:
    if not figures:
        return []
    precision = figures["precision"]
    return [
        f"At the plant, where {figures['prevalence']:.2%} of the parts are defective: "
        f"{figures['cost']:,.0f} {figures['currency']} per 10,000 parts, "
        f"{figures['review_load']:.1%} to review"
        + (f", precision of `defect` {precision:.1%}." if precision is not None else "."),
        "",
    ]


def _init(spec: dict[str, Any]) -> str:
    if spec["init"] == "scratch":
        return "trained from scratch (no pretrained weights)"
    return f"pretrained weights {spec['weights_file']} ({spec['init']})"


def _figures(metrics: Mapping[str, Any], threshold: float) -> list[str]:
    rows = [f"| {key} | {metrics[key]:.4f} |" for key in FIGURES if _number(metrics.get(key))]
    rows += [f"| {key} | {metrics[key]:g} |" for key in COUNTS if _number(metrics.get(key))]
    head = f"| test figure, by image, two classes at {threshold:.6g} | value |"
    return [head, "| --- | --- |", *rows, ""] if rows else []


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
