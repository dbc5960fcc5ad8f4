"""Manifest rows of made-up castings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import strategies as st

from zdm_ml.data.manifest import Label, Row


def image(
    part: str,
    number: int,
    label: Label,
    *,
    shipped: str = "train",
    sha256: str = "",
    issues: str = "",
) -> Row:
    folder = "def_front" if label == "defect" else "ok_front"
    return Row(
        path=f"{shipped}/{folder}/{part}_{number:03d}.jpeg",
        sha256=sha256 or f"{part}-{label}-{number}",
        label=label,
        part=part,
        shipped_split=shipped,
        split="",
        fold=-1,
        width=300,
        height=300,
        mean_grey=128.0,
        lighting="",
        issues=issues,
    )


def related(rows: list[Row], *families: set[str]) -> list[Row]:
    """The same images; the castings of each family may be one."""
    kin = {part: min(family) for family in families for part in family}
    return [replace(row, kin=kin.get(row.part, "")) for row in rows]


def castings(ok: int, defect: int, *, views: int = 4, first: int = 0) -> list[Row]:
    """Castings of both classes; the last of each four views was shipped as test."""
    return list(_castings(ok, defect, views, first))


def _castings(ok: int, defect: int, views: int, first: int) -> Iterator[Row]:
    classes: tuple[tuple[Label, int], ...] = (("ok", ok), ("defect", defect))
    for label, count in classes:
        for index in range(first, first + count):
            for view in range(views):
                shipped = "test" if view % 4 == 3 else "train"
                yield image(f"{label}{index}", view, label, shipped=shipped)


@st.composite
def datasets(draw: st.DrawFn, least: int = 6) -> list[Row]:
    """Castings with one to five views each, some undecodable, some with both labels.

    Of each class one casting at least was shipped as test, and five as train.
    """
    rows: list[Row] = []
    classes: tuple[Label, Label] = ("ok", "defect")
    for label in classes:
        for index in range(draw(st.integers(least, 24))):
            for view in range(draw(st.integers(1, 5))):
                drawn = draw(st.sampled_from(["train", "train", "test"]))
                shipped = drawn if view or index > 5 else ("train" if index else "test")
                rows.append(image(f"{label}{index}", view, label, shipped=shipped))
    for index in range(draw(st.integers(0, 2))):
        rows += [image(f"mixed{index}", view, classes[view % 2]) for view in range(3)]
    for index in range(draw(st.integers(0, 2))):
        rows.append(image(f"broken{index}", 0, "ok", issues="undecodable"))
    return rows
