"""How well castings are recognised, beside image hashes, and how the time grows.

Parts are rendered with a seed that no development used; their identity is known. `make
bench-identity` prints the tables and writes reports/bench_identity.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Annotated, Any

import imagehash
import numpy as np
import numpy.typing as npt
import typer
from distortion import IN_VIEW, render_castings
from PIL import Image
from rich.console import Console
from rich.table import Table

from zdm_ml.data.discovery import find_images
from zdm_ml.data.fingerprints import ANGLES, HARMONICS, Spectra, mean_power, whiten
from zdm_ml.data.inspection import inspect_castings
from zdm_ml.data.parts import NEIGHBOURS, candidate_pairs, describe, recover
from zdm_ml.params import AuditParams

BASELINES: dict[str, Callable[[Image.Image], imagehash.ImageHash]] = {
    "mean hash": imagehash.average_hash,
    "perceptual hash": imagehash.phash,
}
SIZES = (5_000, 10_000, 20_000, 50_000)
VIEWS = 10
RADII = 8
"""Radii of the spectra in the scale run: 50,000 images take 0.2 GB and not 1 GB."""

console = Console(width=100, highlight=False)


def main(
    seed: Annotated[int, typer.Option(help="Draws the parts.")] = 20260,
    parts: Annotated[int, typer.Option(help="Parts to render.")] = 200,
    plain: Annotated[bool, typer.Option(help="Photographs as rendered, not distorted.")] = False,
    width: Annotated[float, typer.Option(help="1: distorted castings may be cut off.")] = IN_VIEW,
    scale: Annotated[bool, typer.Option(help="Measure the time for up to 50,000 images.")] = True,
    report: Annotated[Path, typer.Option()] = Path("reports/bench_identity.json"),
) -> None:
    """Recognise castings whose identity is known, and measure how the time grows."""
    result: dict[str, Any] = {"seed": seed, "parts": parts, "views": VIEWS, "distorted": not plain}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = render_castings(
            folder, parts=parts, views=VIEWS, seed=seed, distorted=not plain, width=width
        )
        result["methods"] = measure_methods(folder, truth)
    show_methods(result)
    if scale:
        result["scale"] = measure_scale(seed)
        show_scale(result["scale"])
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")


def measure_methods(folder: Path, truth: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Return precision, recall and what else is known of each method."""
    start = time.perf_counter()
    seen = inspect_castings(folder, find_images(folder), AuditParams(25_000_000, None))
    seconds = time.perf_counter() - start
    precision, recall = group_scores(
        [truth[row.path] for row in seen.rows], [row.part for row in seen.rows]
    )
    parts_of = {
        index: {row.part for row in seen.rows if truth[row.path] == index}
        for index in set(truth.values())
    }
    methods: dict[str, dict[str, Any]] = {
        "zdm": {
            "precision": precision,
            "recall": recall,
            "threshold": seen.threshold.value if seen.threshold else None,
            "gap": seen.threshold.gap if seen.threshold else None,
            "parts": len({row.part for row in seen.rows}),
            "identity": dict(Counter(row.identity for row in seen.rows)),
            "scattered": sorted(index for index, found in parts_of.items() if len(found) > 1),
            "seconds": round(seconds, 1),
        }
    }
    paths = sorted(truth)
    indices = np.array([truth[path] for path in paths])
    for name, hash_of in BASELINES.items():
        codes = [hash_of(Image.open(folder / path)).hash.ravel() for path in paths]
        methods[name] = best_scores(np.array(codes), indices)
    return methods


def group_scores(truth: Iterable[Hashable], found: Iterable[Hashable]) -> tuple[float, float]:
    """Return precision and recall over all pairs of images."""
    truth, found = list(truth), list(found)
    right = _pairs(zip(truth, found, strict=True))
    return right / max(1, _pairs(found)), right / max(1, _pairs(truth))


def best_scores(codes: npt.NDArray[np.bool_], truth: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return a hash's scores over pairs at the distance limit that gives it its best F1."""
    bits = codes.shape[1]
    counts = np.zeros((2, bits + 1), dtype=np.int64)
    for place in range(len(codes) - 1):
        apart = np.count_nonzero(codes[place + 1 :] != codes[place], axis=1)
        same = truth[place + 1 :] == truth[place]
        for kind in (0, 1):
            counts[kind] += np.bincount(apart[same == bool(kind)], minlength=bits + 1)
    false, right = counts.cumsum(axis=1)
    precision = right / np.maximum(right + false, 1)
    recall = right / max(1, right[-1])
    best = int((2 * right / np.maximum(right + false + right[-1], 1)).argmax())
    return {"precision": precision[best], "recall": recall[best], "threshold": best}


def measure_scale(seed: int) -> dict[str, Any]:
    """Return the seconds that the search and the grouping take by number of images."""
    runs = []
    for count in SIZES:
        white, truth = made_up_spectra(count, seed)
        start = time.perf_counter()
        candidate_pairs(describe(np.abs(white).reshape(count, -1)), NEIGHBOURS)
        searched = time.perf_counter()
        found = recover(white)
        done = time.perf_counter()
        precision, recall = group_scores(truth.tolist(), found.group.tolist())
        runs.append(
            {
                "images": count,
                "search": round(searched - start, 2),
                "recover": round(done - searched, 2),
                "precision": precision,
                "recall": recall,
            }
        )
    logs = {name: np.log([run[name] for run in runs]) for name in ("images", "search", "recover")}
    return {
        "runs": runs,
        **{
            f"{name}_exponent": round(float(np.polyfit(logs["images"], logs[name], 1)[0]), 2)
            for name in ("search", "recover")
        },
    }


def made_up_spectra(count: int, seed: int) -> tuple[Spectra, npt.NDArray[np.int64]]:
    """Return whitened spectra of noisy, turned and mirrored copies, and the part of each."""
    rng = np.random.default_rng([seed, count])
    truth = np.repeat(np.arange(count // VIEWS), VIEWS)
    raw = np.empty((count, RADII, HARMONICS), dtype=np.complex64)
    harmonics = np.arange(1, HARMONICS + 1)
    for part in range(count // VIEWS):
        rows = slice(part * VIEWS, (part + 1) * VIEWS)
        own = np.repeat(_noise(rng, 1), VIEWS, axis=0)
        mirrored = rng.random(VIEWS) < 0.5
        own[mirrored] = own[mirrored].conj()
        turns = 2j * np.pi / ANGLES * rng.integers(0, ANGLES, (VIEWS, 1, 1)) * harmonics
        raw[rows] = own * np.exp(turns) + 0.8 * _noise(rng, VIEWS)
    order = rng.permutation(count)
    return whiten(raw, mean_power(raw))[order], truth[order]


def _noise(rng: np.random.Generator, count: int) -> Spectra:
    real, imaginary = rng.standard_normal((2, count, RADII, HARMONICS), dtype=np.float32)
    return np.asarray(real + 1j * imaginary, dtype=np.complex64)


def _pairs(groups: Iterable[Hashable]) -> int:
    return sum(size * (size - 1) // 2 for size in Counter(groups).values())


def show_methods(result: dict[str, Any]) -> None:
    """Print precision and recall by method."""
    kind = "distorted" if result["distorted"] else "as rendered"
    title = f"{result['parts']} parts x {result['views']} views, seed {result['seed']}, {kind}"
    table = Table("", "pairwise precision", "pairwise recall", "threshold", title=title)
    for name, scores in result["methods"].items():
        figures = [f"{scores[key]:.4f}" for key in ("precision", "recall")]
        table.add_row(name, *figures, f"{scores['threshold']:.3g}")
    console.print(table)
    ours = result["methods"]["zdm"]
    console.print(f"zdm: {ours['parts']} parts in {ours['seconds']} s, found by {ours['identity']}")
    console.print(
        "hashes: at the distance with the best F1, which only who knows the truth can set"
    )


def show_scale(scale: dict[str, Any]) -> None:
    """Print the seconds by number of images."""
    columns = ("images", "search", "recover", "precision", "recall")
    table = Table(*columns, title=f"Seconds to search and to group, {RADII} radii")
    for run in scale["runs"]:
        table.add_row(*(f"{run[name]:,.6g}" for name in columns))
    console.print(table)
    console.print(
        f"time grows with images^{scale['search_exponent']} (search), "
        f"images^{scale['recover_exponent']} (search and grouping)"
    )


if __name__ == "__main__":
    typer.run(main)
