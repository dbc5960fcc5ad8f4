"""What figures are measured on: castings split so that none is on two sides, recipes, a device."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeVar

import machine
import numpy as np
import torch
import yaml
from reference_loop import ImageFile

from zdm_ml.data.manifest import CLASSES, Row, read_manifest
from zdm_ml.data.resident import resident_array
from zdm_ml.data.sides import LOCKBOX
from zdm_ml.data.splits import split_rows
from zdm_ml.data.synthetic import PARTS_FILE, make_synthetic
from zdm_ml.files import sha256_file
from zdm_ml.params import Params, parse_params
from zdm_ml.pipeline.profiles import overlay
from zdm_ml.recipes import Recipe, RecipeName
from zdm_ml.training.sides import Images, Indices, Side

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3
FOLDS = 5

Scale = Literal["toy", "cpu", "cuda"]
Chosen = TypeVar("Chosen")


@dataclass(frozen=True)
class Bench:
    """`rows` have their side of the split; `toy` says that nothing but the code is tried."""

    castings: Path
    rows: Sequence[Row]
    source: str
    device: torch.device
    toy: bool
    scratch: Path

    @property
    def repeats(self) -> int:
        """How often both sides are measured."""
        return 1 if self.toy else REPEATS

    @property
    def label(self) -> str:
        """The machine, for a row of the table."""
        return machine.describe(self.device)

    def scaled(self, *, toy: Chosen, cpu: Chosen, cuda: Chosen) -> Chosen:
        """Return what fits this machine."""
        if self.toy:
            return toy
        return cuda if self.device.type == "cuda" else cpu

    def goal(self, *, cpu: float | None, cuda: float | None) -> float | None:
        """Return the goal of a figure on this kind of device."""
        return cuda if self.device.type == "cuda" else cpu

    def params(self, profile: str = "full") -> Params:
        """Return params.yaml under a profile; toys are under `smoke` whatever is asked for."""
        text = (ROOT / "params.yaml").read_text()
        if self.toy or profile != "full":
            text = overlay(text, ROOT, "smoke" if self.toy else profile)
        return parse_params(yaml.safe_load(text), "params.yaml")

    def recipe(
        self,
        name: str,
        recipe: RecipeName,
        *,
        epochs: int | None = None,
        scratch: bool = True,
        profile: str = "full",
    ) -> Recipe:
        """Return one recipe of a model without cross-fitting, which would train several nets."""
        found = self.params(profile).named_recipe(recipe, name, scratch=scratch)
        return replace(found, epochs=epochs or found.epochs, crossfit=0)

    def drawn(self, count: int, *splits: str) -> list[Row]:
        """Return rows of sides of the split: half of each class, castings in turn."""
        return _drawn([row for row in self.rows if row.split in splits], count)

    def whole(self, split: str) -> list[Row]:
        """Return all rows of a side of the split."""
        return [row for row in self.rows if row.split == split]

    def fold(self, number: int, learn: int, judge: int) -> tuple[list[Row], list[Row]]:
        """Return `learn` and `judge` rows of a fold's two sides, drawn likewise.

        Folds are dealt by casting; nothing of the lockbox is in them.
        """
        params = self.params()
        split = replace(params.split, protocol="kfold", folds=FOLDS, fold=number)
        open_rows = [row for row in self.rows if row.split != LOCKBOX]
        rows, _ = split_rows(open_rows, split, params.seed, {})
        tested = [row for row in rows if row.split == "test"]
        others = [row for row in rows if row.split in ("train", "val", "calibration")]
        return _drawn(others, learn), _drawn(tested, judge)

    def files(self, rows: Sequence[Row]) -> list[ImageFile]:
        """Return rows as the reference loop takes them."""
        return [ImageFile(self.castings / row.path, row.target) for row in rows]

    def sides(self, size: int, *groups: Sequence[Row], cache: Path | None = None) -> list[Side]:
        """Return groups of rows as the engine takes them, out of one array decoded in `cache`.

        Without `cache` everything is decoded anew.
        """
        rows = [row for group in groups for row in group]
        with TemporaryDirectory(dir=self.scratch) as fresh:
            images = resident_array(self.castings, rows, size, cache or Path(fresh))
        ends = np.cumsum([len(group) for group in groups])
        return sides_of(images, rows, np.split(np.arange(len(rows)), ends[:-1]))


def sides_of(images: Images, rows: Sequence[Row], groups: Sequence[Indices]) -> list[Side]:
    """Return sides that share `images`, uint8 [M, S, S] of M rows; a group is a side's places."""
    castings = np.unique([row.part for row in rows], return_inverse=True)[1]
    targets = np.array([row.target for row in rows], dtype=np.int64)
    return [Side(images, places, targets[places], castings[places]) for places in groups]


@contextmanager
def open_bench(device: torch.device, *, toy: bool) -> Iterator[Bench]:
    """Yield a bench on the project's castings where they are split, else on rendered ones."""
    castings, manifest = ROOT / "data" / "castings", ROOT / "manifest" / "split.csv"
    with TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        rows = read_manifest(manifest) if manifest.is_file() and castings.is_dir() else []
        if rows and not toy:
            source = f"{castings.relative_to(ROOT)}, split by casting"
        else:
            castings, source = scratch / "castings", "rendered castings, split by casting"
            make_synthetic(castings, parts=24 if toy else 120, views=2 if toy else 16, seed=0)
            rows = _split(castings)
        yield Bench(castings, rows, source, device, toy, scratch)


def _split(castings: Path) -> list[Row]:
    """Return rendered castings with their sides, which the pipeline's own split deals."""
    with (castings / PARTS_FILE).open(newline="") as file:
        rows = [_row(castings, entry["path"], entry["part"]) for entry in csv.DictReader(file)]
    params = parse_params(yaml.safe_load((ROOT / "params.yaml").read_text()), "params.yaml")
    assigned, _ = split_rows(rows, params.split, params.seed, {})
    return assigned


def _row(castings: Path, path: str, part: str) -> Row:
    return Row(
        path=path,
        sha256=sha256_file(castings / path),
        label="defect" if "/def_front/" in path else "ok",
        part=part,
        shipped_split=path.split("/")[0],
        split="",
        fold=-1,
        width=300,
        height=300,
        mean_grey=0.0,
        lighting="",
        issues="",
    )


def _drawn(rows: Sequence[Row], count: int) -> list[Row]:
    """Return `count` rows, fewer where a class has less than half of that."""
    good, bad = (_in_turn([row for row in rows if row.label == label]) for label in CLASSES)
    pairs = list(zip(good, bad, strict=False))[: count // 2]
    return [row for pair in pairs for row in pair]


def _in_turn(rows: Sequence[Row]) -> list[Row]:
    """Return one row of every casting, then a second of every casting that has one, ..."""
    of_casting: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_casting[row.part].append(row)
    rounds = zip_longest(*of_casting.values())
    return [row for turn in rounds for row in turn if row is not None]
