"""Our training engine beside the reference loop: each figure measured in turns, in one run.

`make bench` prints the table and writes reports/bench.json, a row as soon as it is measured.
`--only SUBSTRING`, once or more, measures the figures whose name holds it, and leaves the other
rows of the report as they are; a whole run drops what it did not measure. `--quick` tries every
figure at toy size in seconds, for tests: its rows mean nothing, and go to
reports/bench-quick.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from arithmetic import arithmetic
from bench import Bench, open_bench
from eight import all_eight
from heads import head_only
from pictures import augmentation, cold_start, faithful
from race import time_to_errors
from recording import with_mlflow
from table import Line, console, show, write
from trainings import same_recipe

from zdm_ml.training.device import choose_device

FIGURES: dict[str, Callable[[Bench], list[Line]]] = {
    "augmentation": augmentation,
    "reference augmentation": faithful,
    "cold start": cold_start,
    "same recipe": same_recipe,
    "time to errors": time_to_errors,
    "head only": head_only,
    "arithmetic": arithmetic,
    "all eight": all_eight,
    "mlflow": with_mlflow,
}


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Of: {', '.join(FIGURES)}.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Toy sizes, to try the code.")] = False,
    device: Annotated[str, typer.Option()] = "auto",
    report: Annotated[Path | None, typer.Option(help="JSON list of the rows.")] = None,
) -> None:
    """Measure ours and the reference in turns, and print both."""
    parts = [part.lower() for part in only or [""]]
    chosen = {name: it for name, it in FIGURES.items() if any(part in name for part in parts)}
    if not chosen:
        raise typer.BadParameter(
            f"no figure's name holds {' or '.join(parts)!r}: {', '.join(FIGURES)}"
        )
    report = report or Path("reports", "bench-quick.json" if quick else "bench.json")
    with open_bench(choose_device(device), toy=quick) as bench:
        console.print(f"{bench.source}; {bench.label}", markup=False)
        lines, failed = _measure(bench, chosen, report)
        if lines:
            write(report, lines, complete=len(chosen) == len(FIGURES) and not failed)
            show(lines, f"{bench.source}{', toy sizes' if quick else ''}")
    if failed:
        console.print(f"not measured: {', '.join(failed)}", markup=False)
        raise typer.Exit(1)


def _measure(
    bench: Bench, figures: dict[str, Callable[[Bench], list[Line]]], report: Path
) -> tuple[list[Line], list[str]]:
    """Return all lines and the names of figures that failed; each figure is written at once."""
    lines, failed, started = list[Line](), list[str](), time.monotonic()
    for number, (name, figure) in enumerate(figures.items(), start=1):
        console.print(f"{number}/{len(figures)} {name} ...", markup=False)
        begun = time.monotonic()
        try:
            found = figure(bench)
        except Exception:  # half an hour of other figures must not be lost with it
            console.print_exception(max_frames=4)
            failed.append(name)
            continue
        lines += found
        write(report, found)
        ratios = ", ".join(f"{line.ratio:.3g}" for line in found)
        took, whole = time.monotonic() - begun, time.monotonic() - started
        console.print(f"    ratio {ratios} in {took:.0f} s, {whole:.0f} s in all", markup=False)
    return lines, failed


if __name__ == "__main__":
    typer.run(main)
