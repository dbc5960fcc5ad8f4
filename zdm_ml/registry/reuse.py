"""How often the same test castings have been used to choose a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zdm_ml.data.manifest import Row
from zdm_ml.files import sha256_json
from zdm_ml.registry.runs import ensure_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

TEST_SET = "test_set"
"""Tag of a parent run: the digest of the castings that its models were compared on."""


@dataclass(frozen=True)
class Reuse:
    """`uses` retrainings chose on these castings, this one included."""

    uses: int
    warning_level: int

    @property
    def worn(self) -> bool:
        """Tell whether the figures have to be read with care."""
        return self.uses >= self.warning_level

    @property
    def sentence(self) -> str:
        """Return what is said of it."""
        times = "once" if self.uses == 1 else f"{self.uses} times"
        said = f"these test castings have been used {times} to choose a model"
        if self.worn:
            said += f" (warning from {self.warning_level} on): their figures flatter by now"
        return said


def digest_of_test_castings(rows: Iterable[Row]) -> str:
    """Identify the test castings among `rows`, whatever images show them."""
    return sha256_json(sorted({row.part for row in rows if row.split == "test"}))


def count_uses(client: MlflowClient, digest: str, warning_level: int) -> Reuse:
    """Count the retrainings in MLflow whose models were compared on these castings."""
    runs, token = 0, None
    while True:
        page = client.search_runs(
            [ensure_experiment(client)],
            filter_string=f"tags.role = 'parent' and tags.{TEST_SET} = '{digest}'",
            max_results=1000,
            page_token=token,
        )
        runs, token = runs + len(page), page.token
        if not token:
            return Reuse(runs, warning_level)
