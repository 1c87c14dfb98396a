"""MLflow's UI as people use it, in a real browser, on a search that really ran."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import browsers
import mlflow_pages
import pytest
from browsers import chromium, mlflow_ui, run_module

from pneumonia.storage import journal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(browsers.missing()), reason=f"needs {browsers.missing()}"),
]
SEARCH = (
    *("dataset=phantom", "dataset.train=120", "dataset.val=60", "dataset.test=60"),
    *("dataset.image_size=32", "model.image_size=32", "model.layer=block2b_add"),
    *('dense.units="choice(4, 8)"', 'dense.dropout="choice(0.1, 0.3, 0.5)"'),
    *("tuner=random", "tuner.max_trials=6", "tuner.max_epochs=3"),
)
SEARCHED = {"dense.units", "dense.dropout", "optimizer.learning_rate"}


@dataclass(frozen=True)
class Shown:
    """A search that ran, and MLflow's UI on its folder."""

    folder: Path
    link: str
    browser: Any

    @property
    def run_id(self) -> str:
        return str(json.loads((self.folder / "tracking.json").read_text())["run_id"])

    @property
    def scores(self) -> dict[str, float]:
        """The score of each trial, by the name of its run."""
        events = list(journal.read(self.folder))
        names = {one["trial_id"]: one["name"] for one in events if one["kind"] == "trial_started"}
        ends = [one for one in events if one["kind"] == "trial_ended"]
        return {names[one["trial_id"]]: one["score"] for one in ends}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    project = tmp_path_factory.mktemp("project")
    run_module(project, "pneumonia", *SEARCH)
    (path,) = (project / "outputs").rglob(journal.NAME)
    with mlflow_ui(project) as link, chromium() as browser:
        browsers.resize(browser, 1440, 900)
        yield Shown(path.parent, link, browser)


def trials(rows: list[mlflow_pages.Row]) -> list[str]:
    names = [mlflow_pages.name(row) for row in rows]
    return [name for name in names if name.startswith("trial ")]


def test_the_link_opens_on_the_search_also_on_a_first_visit(shown: Shown) -> None:
    (row,) = mlflow_pages.open_runs(shown.browser, shown.link)
    assert mlflow_pages.name(row) == "random-efficientnet_lite0-phantom"
    assert {f"params.`{name}`" for name in SEARCHED} < row.keys()
    assert {"metrics.`score`", "metrics.`test_auc`"} < row.keys()
    assert "Not for clinical use" in browsers.text(shown.browser)
    mlflow_pages.keep_calm(shown.browser)


def test_its_trials_are_nested_in_it(shown: Shown) -> None:
    mlflow_pages.open_runs(shown.browser, shown.link)
    rows = mlflow_pages.expand(shown.browser)
    assert mlflow_pages.name(rows[0]).startswith("random-")
    assert sorted(trials(rows)) == sorted(shown.scores)
    for row in rows[1:]:
        score = float(row["metrics.`score`"])
        assert score == pytest.approx(shown.scores[mlflow_pages.name(row)])
        assert row["params.`dense.dropout`"] in ("0.1", "0.3", "0.5")


def test_trials_are_sorted_filtered_and_compared_by_dotted_params(shown: Shown) -> None:
    mlflow_pages.open_runs(shown.browser, shown.link)
    found = [shown.scores[name] for name in trials(mlflow_pages.sort(shown.browser, "score"))]
    assert found == sorted(shown.scores.values(), reverse=True)
    worst = found[-1]
    words = f"params.`dense.dropout` LIKE '0.%' and metrics.score > {worst}"
    left = [shown.scores[name] for name in trials(mlflow_pages.search(shown.browser, words))]
    assert left == [score for score in found if score > worst]
    assert len(left) > 1
    axes = mlflow_pages.compare_all(shown.browser)
    assert f"Comparing {len(left)} Runs" in browsers.text(shown.browser)
    assert len(SEARCHED & set(axes)) > 1
    mlflow_pages.choose_axes(shown.browser, sorted(SEARCHED), ["score"])


def test_the_note_has_winner_scores_and_pictures(shown: Shown) -> None:
    shown.browser.get(mlflow_pages.run_link(shown.link, shown.run_id))
    assert min(mlflow_pages.pictures(shown.browser)) > 600
    text = browsers.text(shown.browser)
    best = max(shown.scores.values())
    assert f"Winner: trial {best_number(shown)}, val_auc {best:.4f}" in text
    assert "balanced accuracy" in text


def test_the_model_and_its_version_are_described(shown: Shown) -> None:
    address = shown.link.partition("#")[0]
    shown.browser.get(f"{address}#/models/pneumonia-phantom")
    ready = "return document.body.innerText.includes('final classifier of a search')"
    browsers.wait_for(shown.browser, ready)
    shown.browser.get(f"{address}#/models/pneumonia-phantom/versions/1")
    assert min(mlflow_pages.pictures(shown.browser)) > 600
    assert "Winner: trial" in browsers.text(shown.browser)


def test_nothing_was_asked_of_another_machine(shown: Shown) -> None:
    address = shown.link.partition("#")[0]
    assert browsers.requests(shown.browser, address) == []
    with urllib.request.urlopen(f"{address}health", timeout=5) as answer:
        assert answer.status == 200


def best_number(shown: Shown) -> int:
    (end,) = [one for one in journal.read(shown.folder) if one["kind"] == "search_ended"]
    return int(end["winner"]) + 1
