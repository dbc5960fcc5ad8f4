"""Cross-validation and the comparison of splits, with a runner that writes evaluate's figures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from zdm_ml.cli.figures import casting_failures, fold_table, protocol_table, split_lines
from zdm_ml.data.versions import DataVersion
from zdm_ml.errors import ConfigError, PipelineError
from zdm_ml.files import read_json, write_json
from zdm_ml.params import parse_params
from zdm_ml.pipeline.cross_validation import compare_protocols, kfold, read_figures
from zdm_ml.pipeline.experiments import Bench, Variant
from zdm_ml.pipeline.profiles import run_params
from zdm_ml.settings import load_settings

Reproduce = Callable[[Variant], Path]


def metrics(*, accuracy: float, failed: list[Any], protocol: str = "kfold") -> dict[str, Any]:
    """What `evaluate` writes, as far as experiments read it."""
    return {
        "accuracy": accuracy,
        "recall": accuracy,
        "escapes": 3,
        "overkills": 1,
        "images": 40,
        "decision": {"escapes": 3, "overkills": 1},
        "intervals": {"per_image": {"accuracy_low": 0.8, "accuracy_high": 0.95}},
        "leaky": protocol == "shipped",
        "protocol": protocol,
        "seen": {"images": 9, "castings": 3, "accuracy": 0.999, "escapes": 0, "overkills": 0}
        if protocol == "grouped"
        else None,
        "by_casting": {
            "castings": 10,
            "defective": 5,
            "good": 5,
            "escapes": len(failed),
            "overkills": 0,
            "accuracy": accuracy,
            "recall": None,
            "escape_rate_upper": 0.45,
            "failed": failed,
        },
    }


@pytest.fixture
def variants() -> list[Variant]:
    """The variants that were trained, in order."""
    return []


@pytest.fixture
def reproduce(tmp_path: Path, variants: list[Variant]) -> Reproduce:
    """A runner that writes each fold's figures instead of training for them."""

    def run(variant: Variant) -> Path:
        variants.append(variant)
        path = tmp_path / variant.name
        path.mkdir()
        (path / "dvc.yaml").write_text("vars: [{path: {evaluation: evaluation}}]\nstages: {}\n")
        (path / "params.yaml").write_text("models: {}\n")
        fold = variant.split.get("fold", 0)
        failed = [{"part": f"C{fold}", "label": "defect", "wrong": 3, "images": 4}]
        for model in variant.models:
            figures = metrics(
                accuracy=0.9 + 0.02 * fold,
                failed=failed if fold else [],
                protocol=variant.split["protocol"],
            )
            write_json(path / "evaluation" / model / "metrics.json", figures)
        return path

    return run


def printed(*shown: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    for one in shown:
        console.print(one, markup=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_fold_is_one_workspace_for_all_models(
    reproduce: Reproduce, variants: list[Variant]
) -> None:
    kfold(reproduce, ["luna", "resnet18"], 3)

    assert [variant.name for variant in variants] == ["kfold-3-0", "kfold-3-1", "kfold-3-2"]
    assert [dict(variant.split) for variant in variants] == [
        {"protocol": "kfold", "folds": 3, "fold": fold} for fold in range(3)
    ]
    assert all(variant.models == ["luna", "resnet18"] for variant in variants)


def test_kfold_gives_mean_spread_totals_and_every_fold(reproduce: Reproduce) -> None:
    summary = kfold(reproduce, ["luna"], 3)["models"]["luna"]

    accuracies = [fold["by_casting"]["accuracy"] for fold in summary["folds"]]
    assert accuracies == pytest.approx([0.9, 0.92, 0.94])
    assert summary["mean"]["by_casting"]["accuracy"] == pytest.approx(0.92)
    assert summary["spread"]["by_image"]["accuracy"] == pytest.approx(0.02)
    assert summary["total"]["by_casting"] == {
        "castings": 30,
        "defective": 15,
        "good": 15,
        "escapes": 2,
        "overkills": 0,
    }


def test_a_figure_that_no_fold_has_stays_unknown(reproduce: Reproduce) -> None:
    """Recall without one defective casting in test."""
    summary = kfold(reproduce, ["luna"], 2)["models"]["luna"]

    assert summary["mean"]["by_casting"]["recall"] is None
    assert summary["spread"]["by_casting"]["recall"] is None


def test_every_failed_casting_is_named_with_its_fold(reproduce: Reproduce) -> None:
    summary = kfold(reproduce, ["luna"], 3)["models"]["luna"]

    assert [(failure["part"], failure["fold"]) for failure in summary["failed"]] == [
        ("C1", 1),
        ("C2", 2),
    ]
    assert "escape: casting C2, 3 of 4 images, fold 2" in printed(*casting_failures(summary))


def test_the_fold_table_ends_with_mean_spread_and_total(reproduce: Reproduce) -> None:
    summary = kfold(reproduce, ["luna"], 2)["models"]["luna"]

    lines = printed(fold_table("luna", summary)).splitlines()

    starts = [line.split()[0] for line in lines if line.strip() and "─" not in line]
    assert starts[-5:] == ["0", "1", "mean", "spread", "total"]
    assert "91.00%" in next(line for line in lines if "mean" in line)


def test_one_fold_is_refused(reproduce: Reproduce) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        kfold(reproduce, ["luna"], 1)


def test_shipped_and_grouped_stand_side_by_side_with_the_leaky_mark(reproduce: Reproduce) -> None:
    found = compare_protocols(reproduce, ["luna"])["models"]

    assert [found["luna"][name]["leaky"] for name in ("shipped", "grouped")] == [True, False]
    table = printed(protocol_table(found))
    assert "shipped (LEAKY)" in table
    assert "45.00%" in table
    assert "grouped, seen castings (LEAKY)" in table


def test_figures_without_castings_name_the_file_and_the_way_out(
    reproduce: Reproduce, variants: list[Variant]
) -> None:
    path = reproduce(Variant("old", ["luna"], {"protocol": "grouped"}))
    file = path / "evaluation" / "luna" / "metrics.json"
    figures = read_json(file)
    del figures["by_casting"]
    write_json(file, figures)

    with pytest.raises(PipelineError, match=r"luna/metrics\.json.*by_casting") as caught:
        read_figures(path, "luna")

    assert "evaluate@luna" in caught.value.hint


def test_failed_castings_may_be_bare_names(reproduce: Reproduce) -> None:
    path = reproduce(Variant("bare", ["luna"], {"protocol": "grouped"}))
    write_json(path / "evaluation" / "luna" / "metrics.json", metrics(accuracy=0.9, failed=["C7"]))

    assert read_figures(path, "luna")["failed"] == [{"part": "C7"}]


def test_a_result_is_recorded_with_what_it_came_from(tmp_path: Path, project: Path) -> None:
    settings = load_settings({"ZDM_HOME": str(tmp_path)}, project)
    bench = Bench(settings, "smoke", "c0ffee", DataVersion("d", "m", "", ""), {}, lambda text: None)

    path = bench.record("kfold-3-smoke-luna", {"experiment": "kfold"})

    assert path == tmp_path / "experiments" / "kfold-3-smoke-luna.json"
    assert read_json(path) == {
        "experiment": "kfold",
        "profile": "smoke",
        "commit": "c0ffee",
        "data": "m",
    }


def test_a_run_can_set_keys_of_the_split(project: Path) -> None:
    text = (project / "params.yaml").read_text()

    changed = run_params(
        text, project, profile="quick", split={"protocol": "kfold", "folds": 3, "fold": 2}
    )

    split = parse_params(yaml.safe_load(changed), "run").split
    assert (split.protocol, split.folds, split.fold, split.train_limit) == ("kfold", 3, 2, 480)


def test_a_fold_that_does_not_exist_is_refused_before_anything_runs(project: Path) -> None:
    text = (project / "params.yaml").read_text()

    with pytest.raises(ConfigError, match=r"split\.fold"):
        run_params(text, project, profile="quick", split={"folds": 3, "fold": 3})


def split_report() -> dict[str, Any]:
    counts = {"ok": 3, "defect": 4}
    return {
        "castings": {"train": counts, "val": counts, "test": counts},
        "per_split": {side: {"ok": 30, "defect": 40} for side in ("train", "val", "test")},
        "calibration": "cross-fitted on val",
        "remembered": 14,
        "mixed_label": [{"part": "C9", "images": ["train/ok_front/a.jpeg", "b"]}],
    }


def test_the_split_is_told_in_castings_and_images_with_what_it_left_out() -> None:
    assert list(split_lines(split_report())) == [
        "train: 7 castings (3 ok, 4 defect), 70 images (30 ok, 40 defect)",
        "val: 7 castings (3 ok, 4 defect), 70 images (30 ok, 40 defect)",
        "test: 7 castings (3 ok, 4 defect), 70 images (30 ok, 40 defect)",
        "calibration: too few castings for a side of its own, cross-fitted on val",
        "14 castings keep the side that the data version remembers",
        "1 castings carry both labels and are on no side:",
        "  C9: 2 images, such as train/ok_front/a.jpeg",
    ]
