"""Descriptions in Markdown, and the columns of the runs table, in a real store."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pneumonia.tracking import ui_view
from pneumonia.tracking.mlflow_store import Store
from pneumonia.tracking.settings import TrackingSettings

VIEW = "mlflow.sharedViewState.pneumonia"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    return Store(TrackingSettings())


def tags(store: Store) -> dict[str, str]:
    return dict(store._client.get_experiment(store.experiment_id).tags)


def columns(store: Store) -> list[str]:
    return list(json.loads(tags(store)[VIEW])["selectedColumns"])


def add_search(store: Store, *trials: dict[str, Any]) -> None:
    run_id = store.create_run("search", {"kind": "search"}, time=1)
    for number, params in enumerate(trials):
        child = store.create_run(f"trial {number}", {"mlflow.parentRunId": run_id}, time=2)
        store.log(child, params=params)


def test_the_table_shows_what_differs_between_the_trials_of_the_latest_search(store: Store) -> None:
    place = store.arrange_view()
    assert place.startswith(f"#/experiments/{store.experiment_id}/runs?viewStateShareKey=pneumonia")
    assert columns(store) == ["metrics.`score`", "metrics.`test_auc`"]
    same = {"seed": 1, "dense.dropout": 0.5}
    add_search(store, {**same, "dense.units": 1, "epochs": 2}, {**same, "dense.units": 2})
    assert store.arrange_view() == place
    assert columns(store)[2:] == ["params.`dense.units`"]


def test_a_store_that_takes_no_tags_is_shown_as_it_is(store: Store) -> None:
    experiment_id = store.experiment_id
    with closing(sqlite3.connect("mlruns/mlflow.db")) as database:
        database.execute(
            "create trigger refuse before insert on experiment_tags "
            "begin select raise(abort, 'attempt to write a readonly database'); end"
        )
    assert store.arrange_view() == f"#/experiments/{experiment_id}/runs"


def test_a_note_of_the_user_stays(store: Store) -> None:
    store.arrange_view()
    assert tags(store)[ui_view.NOTE] == ui_view.EXPERIMENT_NOTE
    store._client.set_experiment_tag(store.experiment_id, ui_view.NOTE, "mine")
    store.arrange_view()
    assert tags(store)[ui_view.NOTE] == "mine"
    assert tags(store)["mlflow.experimentKind"] == "custom_model_development"


def test_a_note_links_the_pictures_that_there_are() -> None:
    assert ui_view.note("Text", "r1", ["best.yaml"]) == "Text"
    text = ui_view.note("Text\n", "r1", ["plots/roc.png"])
    assert text.endswith("![plots/roc.png](get-artifact?path=plots/roc.png&run_uuid=r1)\n")


def test_a_version_tells_less_where_the_database_takes_no_more() -> None:
    text = ui_view.version_note("owl", "1", "r1", "x" * ui_view.VERSION_LENGTH)
    assert text == "The final classifier of the search [owl](#/experiments/1/runs/r1)."
    assert ui_view.version_note("owl", "1", "r1", "Scores").endswith(".\n\nScores")
