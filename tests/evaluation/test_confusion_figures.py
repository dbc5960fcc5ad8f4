"""Figures of a side as people read them."""

from __future__ import annotations

import numpy as np
from castings_rows import castings

from zdm_ml.evaluation.figures import casting_errors
from zdm_ml.evaluation.verdicts import Verdicts


def test_castings_that_go_to_review_have_neither_escaped_nor_been_rejected() -> None:
    rows = castings(2, 2, views=1)
    # Good ones: passed, to review; defective ones: to review, escaped.
    scores = np.array([0.1, 0.5, 0.5, 0.1])

    counted = casting_errors(scores, rows, Verdicts(0.2, 0.8), 0.95)

    assert (counted["escapes"], counted["overkills"]) == (1, 0)
    assert counted["escape_rate_upper"] > 0.9


def test_with_one_threshold_every_casting_is_passed_or_rejected() -> None:
    rows = castings(2, 2, views=1)

    counted = casting_errors(np.array([0.1, 0.5, 0.5, 0.1]), rows, Verdicts(0.3, 0.3), 0.95)

    assert (counted["escapes"], counted["overkills"]) == (1, 1)
