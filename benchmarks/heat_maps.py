"""How well the heat maps of trained nets lie on defects that are known, beside maps that are blind.

`python benchmarks/heat_maps.py models/luna models/resnet18` prints a table of folders of trained
nets. Castings are rendered with a seed that no other measurement used.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from zdm_ml.data.synthetic import known_defects
from zdm_ml.evaluation.map_quality import MODEL, compare
from zdm_ml.models.net import load_net
from zdm_ml.params import load_params

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"

console = Console(width=100, highlight=False)


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of trained nets.")],
    seed: Annotated[int, typer.Option(help="Draws the castings.")] = 20261,
    castings: Annotated[int, typer.Option(help="Castings to render.")] = 200,
    threshold: Annotated[float | None, typer.Option(help="In place of params.yaml's.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="In place of params.yaml's.")] = None,
) -> None:
    """Measure each net's maps on the same castings."""
    params = load_params(PARAMS)
    given = {"threshold": threshold, "tolerance": tolerance}
    wanted = replace(params.saliency, **{k: v for k, v in given.items() if v is not None})
    photographs = known_defects(castings, seed)
    table = Table("maps", "points at it", "at 95 %", "IoU", "IoP", "judged defect", "s")
    rows: dict[str, list[str]] = {}
    for folder in folders:
        loaded, started = load_net(folder), time.monotonic()
        found = compare(
            loaded, photographs, [], wanted, confidence=params.evaluate.confidence, seed=seed
        )
        seconds = time.monotonic() - started
        scores = loaded.scores([photo.image for photo in photographs])
        more = [f"{(scores >= 0.5).mean():.1%}", f"{seconds:.1f}"]
        rows |= {name: _figures(blind) for name, blind in found.items() if name != MODEL}
        rows = {str(folder): _figures(found[MODEL]) + more, **rows}
    for name, figures in rows.items():
        table.add_row(name, *figures)
    table.title = f"{castings} castings, seed {seed}, {wanted.tolerance:.0%} beside it at most"
    console.print(table)


def _figures(found: dict[str, Any]) -> list[str]:
    return [
        f"{found['pointing']:.1%}",
        f"{found['pointing_low']:.1%} to {found['pointing_high']:.1%}",
        f"{found['iou']:.3f}",
        f"{found['iop']:.3f}",
    ]


if __name__ == "__main__":
    typer.run(main)
