"""Searches without what a test does not look at: their pictures, and their report."""

from __future__ import annotations

from typing import Any

import pytest

DRAWN = (
    *("confusion_matrix", "roc", "precision_recall", "calibration", "learning_curves"),
    *("error_sheet", "save"),
)


def leave_out(patch: pytest.MonkeyPatch | None = None) -> None:
    """Let the searches of this process draw nothing and write no report, if only for a time."""
    patch = patch or pytest.MonkeyPatch()

    def nothing(*_: Any, **__: Any) -> None:
        return None

    for name in DRAWN:
        patch.setattr(f"pneumonia.evaluation.plots.{name}", nothing)
    patch.setattr("pneumonia.reporting.report.attempt", lambda *_, **__: [])
