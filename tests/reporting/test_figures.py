"""Interactive figures: what plotly says of them, and that others' texts stay texts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import finished

from pneumonia.evaluation import importance
from pneumonia.evaluation.metrics import measure_reliability, roc_auc
from pneumonia.reporting import curve_figures, score_figures, trial_figures
from pneumonia.reporting.figures import Figure, escape, focus, number
from pneumonia.storage import search_record
from pneumonia.storage.search_record import Chronicle, Predictions

THRESHOLDS = {"at 0.5": 0.5, "at 0.62": 0.62}


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Chronicle:
    return search_record.read(finished(tmp_path_factory.mktemp("search")))


@pytest.fixture(scope="module")
def figures(search: Chronicle) -> dict[str, Figure]:
    predictions = search.predictions
    measured = {
        name: measure_reliability(p.labels, p.probabilities) for name, p in predictions.items()
    }
    found = [
        trial_figures.parallel(search),
        trial_figures.importances(importance.measure(search.trials, search.ranges).parts),
        *curve_figures.best_so_far(search),
        *trial_figures.brackets(search),
        *curve_figures.learning(search),
        curve_figures.times(search),
        score_figures.roc(predictions, THRESHOLDS),
        score_figures.precision_recall(predictions, THRESHOLDS),
        score_figures.reliability(measured),
        score_figures.histogram(predictions["test"], ("a", "b"), "test"),
    ]
    return {figure.key: figure for figure in found if figure is not None}


def painted(value: Any) -> Any:
    """Return a figure with colours that plotly knows."""
    if isinstance(value, dict):
        return {key: painted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [painted(one) for one in value]
    if isinstance(value, str) and value.startswith("@"):
        return "Viridis" if value == "@scale" else "#123456"
    return value


def test_plotly_knows_every_property(figures: dict[str, Figure]) -> None:
    from plotly.graph_objects import Figure as Checked

    assert len(figures) == 13
    for figure in figures.values():
        assert len(Checked(data=painted(figure.data), layout=painted(figure.layout)).data)
        assert json.dumps(figure.data, allow_nan=False)
        assert len(figure.alt) > 20


def test_parallel_coordinates_have_every_hyperparameter(
    search: Chronicle, figures: dict[str, Figure]
) -> None:
    (trace,) = figures["parallel"].data
    axes = {axis["label"].replace("<br>", ""): axis for axis in trace["dimensions"]}
    assert list(axes) == [*(item.path for item in search.ranges), "epochs", "val_auc"]
    assert all(len(axis["values"]) == 21 for axis in axes.values())
    assert axes["model.layer"]["ticktext"] == ["low", "high"]
    assert axes["dense.units"]["ticktext"] == ["64", "128", "256"]
    assert axes["optimizer.learning_rate"]["range"] == [-4, -2]
    assert axes["optimizer.learning_rate"]["ticktext"][0] == "0.0001"
    assert trace["line"]["color"] == axes["val_auc"]["values"]


def test_the_best_so_far_never_falls_and_ends_with_the_winner(
    search: Chronicle, figures: dict[str, Figure]
) -> None:
    for kind in ("epochs", "seconds"):
        _, line = figures[f"best-{kind}"].data
        assert line["y"] == sorted(line["y"])
        assert line["x"] == sorted(line["x"])
    assert figures["best-epochs"].data[1]["x"][-1] == 12 * 3 + 4 * 6 + 5 * 9
    steps = curve_figures.best_steps(search)
    winner = search.winner()
    assert winner is not None
    assert steps[-1].best == max(
        metrics["val_auc"] for t in search.trials for _, metrics in t.points
    )


def test_of_several_executions_the_mean_counts_at_the_end_of_a_trial(search: Chronicle) -> None:
    params = {**search.started["params"], "training.executions_per_trial": 2}
    several = dataclasses.replace(
        search,
        started={**search.started, "params": params},
        trials=tuple(dataclasses.replace(t, score=(t.score or 0.0) - 0.1) for t in search.trials),
    )
    steps = curve_figures.best_steps(several)
    assert steps[-1].best == max(trial.score or 0.0 for trial in several.trials)
    assert steps[0].epochs == 3
    assert steps[-1].epochs == curve_figures.best_steps(search)[-1].epochs


def test_brackets_show_who_was_promoted(figures: dict[str, Figure]) -> None:
    lines, *nodes = figures["bracket-1"].data
    assert lines["x"] == [3, 9, None] * 4
    by_name = {node["name"]: node for node in nodes}
    assert len(by_name["promoted"]["x"]) == 4
    assert len(by_name["stopped"]["x"]) == 12
    assert figures["bracket-1"].note == "12 trials to epoch 3, then 4 trials to epoch 9."
    assert figures["bracket-0"].data[0]["x"] == []


def test_a_bracket_without_a_score_is_not_drawn(search: Chronicle) -> None:
    trials = [t if t.bracket == 0 else dataclasses.replace(t, score=None) for t in search.trials]
    found = trial_figures.brackets(dataclasses.replace(search, trials=tuple(trials)))
    assert [figure.key for figure in found] == ["bracket-0"]


def test_the_area_under_the_curve_that_is_drawn_is_the_auc(
    search: Chronicle, figures: dict[str, Figure]
) -> None:
    curve = figures["roc"].data[1]
    test = search.predictions["test"]
    assert np.trapezoid(curve["y"], curve["x"]) == pytest.approx(
        roc_auc(test.labels, test.probabilities), abs=1e-4
    )
    marks = figures["roc"].data[-2:]
    assert [mark["name"] for mark in marks] == list(THRESHOLDS)
    assert marks[0]["x"] > marks[1]["x"]


def test_many_points_are_thinned() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=50_000)
    many = Predictions((), labels, rng.uniform(size=50_000))
    figure = score_figures.roc({"test": many}, {})
    assert len(json.dumps(figure.data)) < 20_000


def test_texts_of_others_are_no_html_for_plotly(tmp_path: Path) -> None:
    assert escape("<b>&</b>") == "&lt;b&gt;&amp;&lt;/b&gt;"
    nasty = '<a href="javascript:alert(1)">x</a>'
    search = search_record.read(finished(tmp_path))
    assert search.ranges
    predictions = search.predictions["test"]
    figure = score_figures.histogram(predictions, (nasty, "b"), "test")
    assert "<a" not in json.dumps(figure.data)


def test_an_outlier_does_not_squeeze_the_rest() -> None:
    low, high = focus([0.5, 0.97, 0.975, 0.98, 0.985], 1)
    assert low > 0.9
    assert high > 0.985
    assert focus([0.1, 0.11, 0.12, 0.13, 9.0], -1)[1] < 1
    assert focus([0.5], 1)[0] < 0.5


def test_numbers_that_json_does_not_know_are_none() -> None:
    assert [number(x) for x in (float("nan"), float("inf"), None, 2.0, 0.123456789)] == [
        *(None, None, None, 2, 0.123457)
    ]
