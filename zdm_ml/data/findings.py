"""Findings: the audit's figures as sentences; what is wrong, how bad it is, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

LEAK = 0.01
"""Share of the test images above which a leak spoils every figure on them."""

FEW, ENOUGH = 10, 59
"""Castings of a class: fewer than the first prove nothing; with the second, zero errors prove a
rate below 5 % (95 % confidence)."""

SHORTCUT, STRONG_SHORTCUT = 0.6, 0.75
IMBALANCE = 3.0
BROKEN = 0.01
UNCERTAIN = 0.05
CONFIDENCE = 0.95


class Level(IntEnum):
    """How bad a finding is, as a traffic light."""

    GREEN = 0
    AMBER = 1
    RED = 2

    @property
    def word(self) -> str:
        """The colour, as reports spell it."""
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `action` is empty where nothing needs to be done."""

    level: Level
    title: str
    measured: str
    meaning: str
    action: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding with its level as a colour."""
        texts = {"title": self.title, "measured": self.measured, "meaning": self.meaning}
        return {"level": self.level.word, **texts, "action": self.action}


def findings(figures: dict[str, Any]) -> list[Finding]:
    """Return what the figures mean, the worst first."""
    about_castings = (_leak, _sample, _labels, _shortcuts, _balance)
    about_files = (_broken, _duplicates, _sizes, _known)
    found = [item for check in (*about_castings, *about_files) for item in check(figures)]
    return sorted(found, key=lambda item: -item.level)


def escape_bound(castings: int) -> float:
    """Return the rate that zero errors in so many castings exclude (exact binomial, one-sided)."""
    return float(1 - (1 - CONFIDENCE) ** (1 / castings)) if castings else 1.0


def _leak(figures: dict[str, Any]) -> Iterator[Finding]:
    total, siblings = figures["test_images"], figures["test_images_with_train_sibling"]
    title = "Test images whose casting is in train"
    if not total:
        yield Finding(Level.GREEN, title, "no shipped test set", "Nothing can leak into it.")
        return
    share = siblings / total
    measured = (
        f"{siblings} of {total} test images ({share:.1%}); "
        f"{figures['identical_across_splits']} files are byte-identical in train and test"
    )
    if not siblings:
        yield Finding(Level.GREEN, title, measured, "The shipped split is honest.")
        return
    yield Finding(
        Level.RED if share >= LEAK else Level.AMBER,
        title,
        measured,
        "Accuracy on the shipped test set rewards remembering castings, not finding defects: "
        "expect it to fall on castings that were never seen.",
        "Divide the images by casting (params.yaml, split.protocol: grouped); quote figures of the "
        "shipped split only beside those, marked as leaky.",
    )


def _sample(figures: dict[str, Any]) -> Iterator[Finding]:
    size = figures["effective_sample_size"]
    smallest = min(size.values())
    level = Level.RED if smallest < FEW else Level.AMBER if smallest < ENOUGH else Level.GREEN
    yield Finding(
        level,
        "Number of different castings",
        f"{figures['images']} images show {figures['parts']} castings: {size['defect']} defective "
        f"and {size['ok']} good ones{_at_least(figures)}",
        "Many pictures of one casting count as one. Even a model without a single error on all of "
        f"them would only prove (95 % confidence) that it misses fewer than "
        f"{escape_bound(size['defect']):.1%} of the defective castings and rejects fewer than "
        f"{escape_bound(size['ok']):.1%} of the good ones.",
        ""
        if level is Level.GREEN
        else f"Photograph more castings, not more views of the same ones ({ENOUGH} of each class "
        "would be a start); read rates together with their bounds by casting.",
    )


def _at_least(figures: dict[str, Any]) -> str:
    if figures["families"] == figures["parts"]:
        return ""
    return f"; only {figures['families']} if those that may be one, photographed anew, are one"


def _labels(figures: dict[str, Any]) -> Iterator[Finding]:
    mixed = figures["label_conflicts"]
    same = len(figures["label_conflict_images"]["same_bytes"])
    title = "Castings labelled both good and defective"
    if not mixed and not same:
        yield Finding(Level.GREEN, title, "none", "The labels do not contradict each other.")
        return
    yield Finding(
        Level.RED if same or mixed > UNCERTAIN * figures["parts"] else Level.AMBER,
        title,
        f"{mixed} castings; {same} files lie in both classes with the same bytes",
        "One of the two labels is wrong. Such castings are left out of all figures.",
        "Have a quality engineer look at the label conflicts listed here, correct the labels and "
        "import again.",
    )


def _shortcuts(figures: dict[str, Any]) -> Iterator[Finding]:
    light = "Photograph both classes on the same table under the same fixed light, in mixed order"
    table = f"{light}; see how each model bears other light in its robustness table."
    for name in ("brightness", "contrast"):
        probe = figures["probes"][name]
        detail = f"defective castings are {probe['defects_are']}"
        yield _shortcut(probe, f"{name.capitalize()} as a shortcut to the label", detail, table)
    probe = figures["probes"]["background"]
    title = "The background (casting masked out) as a shortcut to the label"
    yield _shortcut(probe, title, probe["method"], f"{light}; look at a model's heat maps.")


def _shortcut(probe: dict[str, Any], title: str, detail: str, action: str) -> Finding:
    value = probe["auc_per_part"]
    if value is None:
        return Finding(
            Level.AMBER, title, "not measurable", "No casting of one of the classes is unmixed."
        )
    measured = (
        f"AUC {value:.2f} per casting, {probe['auc']:.2f} per image (0.5 is chance, 1 is perfect); "
        f"{detail}"
    )
    if value < SHORTCUT:
        return Finding(Level.GREEN, title, measured, "It says little about the label.")
    if value <= probe["chance"]:
        return Finding(
            Level.AMBER,
            title,
            measured,
            f"With so few castings, up to {probe['chance']:.2f} can be luck.",
            "Add castings, then audit again.",
        )
    return Finding(
        Level.RED if value >= STRONG_SHORTCUT else Level.AMBER,
        title,
        measured,
        "A model can score well here without looking at the defect, and fail when the light or "
        "the table changes.",
        action,
    )


def _balance(figures: dict[str, Any]) -> Iterator[Finding]:
    size = figures["effective_sample_size"]
    few, many = sorted(size.values())
    images = figures["per_class"]
    uneven = many > IMBALANCE * few
    rare = "defective" if size["defect"] < size["ok"] else "good"
    yield Finding(
        Level.AMBER if uneven else Level.GREEN,
        "Balance of the classes",
        f"castings: {size['defect']} defective, {size['ok']} good; images: {images['defect']} "
        f"defective, {images['ok']} good",
        f"Few castings are {rare}." if uneven else "Both classes are represented.",
        f"Add {rare} castings first." if uneven else "",
    )


def _broken(figures: dict[str, Any]) -> Iterator[Finding]:
    broken, images = figures["quarantined"], figures["images"]
    level = Level.RED if broken > BROKEN * images else Level.AMBER if broken else Level.GREEN
    yield Finding(
        level,
        "Files that do not decode",
        f"{broken} of {images}",
        "An import leaves them out." if broken else "All files are whole.",
        "Copy or export the listed files again." if broken else "",
    )


def _duplicates(figures: dict[str, Any]) -> Iterator[Finding]:
    exact, near = figures["exact_duplicates"], figures["near_duplicates"]
    extra = exact + near
    yield Finding(
        Level.AMBER if extra else Level.GREEN,
        "Duplicates",
        f"{exact} exact copies, {near} images almost the same as another one",
        "They make the set look larger than it is." if extra else "Every image is its own.",
        "Count and split by casting; drop exact copies (the intake of new images does)."
        if extra
        else "",
    )


def _sizes(figures: dict[str, Any]) -> Iterator[Finding]:
    odd = figures["odd_sizes"]
    yield Finding(
        Level.AMBER if odd["images"] else Level.GREEN,
        "Picture sizes",
        f"{odd['images']} images are not {odd['usual']} pixels",
        "Size alone can give a class away." if odd["images"] else "All are alike.",
        "Export all images with the same camera settings." if odd["images"] else "",
    )


def _known(figures: dict[str, Any]) -> Iterator[Finding]:
    contradictions, warnings = figures["contradictions"], figures["warnings"]
    if not contradictions and not warnings:
        return
    first = warnings[:1] or [
        f"{item['path']} ({item['part']}) looks like {item['other_path']} ({item['other_part']})"
        for item in contradictions[:1]
    ]
    yield Finding(
        Level.AMBER,
        "Castings named by the source",
        f"{len(contradictions)} images look like another casting than the one named; {first[0]}",
        "The names count, whatever the pictures look like.",
        "Check parts.csv or the serial numbers in the file names.",
    )
