"""Searches and trials as rows: chosen, filtered, sorted, written."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from typing import Any

import pytest

from pneumonia.cli import runs_table
from pneumonia.errors import ConfigError
from pneumonia.tracking.runs import Run

SEARCH = Run(
    run_id="a" * 32,
    name="grid-cnn-phantom",
    status="FINISHED",
    started=1_700_000_000_000,
    seconds=61.0,
    params={"objective.name": "val_auc", "dense.units": "choice(8, 16)", "dense.dropout": "0.1"},
    metrics={"val_auc": 0.9, "best_score": 0.9, "trials": 2.0, "test_auc": 0.8},
    tags={"kind": "search", "status": "completed", "winner": "0001", "mlflow.user": "me"},
    digests={"test": "d1"},
)


def trial(number: int, *, status: str = "FINISHED", **metrics: float) -> Run:
    return Run(
        run_id=f"{number}" * 32,
        name=f"trial {number}",
        status=status,
        started=1_700_000_000_000 + number,
        seconds=None if status == "RUNNING" else float(number),
        params={"dense.units": str(8 * number), "dense.activation": "relu", "epochs": "4",
                "optimizer.weight_decay": "null", "training.retrain": "false"},
        metrics=metrics,
        tags={"kind": "trial", "trial_id": f"{number - 1:04}", "mlflow.parentRunId": "a" * 32},
        digests={},
    )  # fmt: skip


TRIALS = [
    trial(1, score=0.8, val_auc=0.7, best_val_auc=0.8, best_best_epoch=3.0),
    trial(2, score=0.9, val_auc=0.9, best_val_auc=0.9, best_epoch=4.0),
    trial(3, status="FAILED"),
]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [runs_table.trial_record(run, SEARCH) for run in TRIALS]


def test_a_search_is_its_params_metrics_and_tags_by_their_names() -> None:
    row = runs_table.search_record(SEARCH)
    assert row["search"] == "a" * 8
    assert row["score"] == row["val_auc"] == 0.9
    assert (row["dense.units"], row["dense.dropout"]) == ("choice(8, 16)", 0.1)
    assert (row["status"], row["winner"]) == ("completed", "0001")
    assert "mlflow.user" not in row
    columns = runs_table.filled(runs_table.SEARCH_COLUMNS, [row])
    assert columns == ["search", "started", "name", "status", "trials", "score", "test_auc"]


def test_a_trial_has_the_metrics_of_its_best_epoch(rows: list[dict[str, Any]]) -> None:
    assert rows[0]["val_auc"] == 0.8
    assert [row.get("best_epoch") for row in rows] == [3, 4, None]
    assert [row["is_winner"] for row in rows] == [False, True, False]
    assert rows[0]["optimizer.weight_decay"] is None
    assert rows[0]["training.retrain"] is False
    columns = runs_table.columns_of_trials(rows, TRIALS[0].params)
    assert columns == ["trial", "score", "best_epoch", "seconds", "status", "dense.units"]


@pytest.mark.parametrize(
    ("text", "trials"),
    [
        ("score>0.8", [2]),
        ("score>=0.8", [1, 2]),
        ("score<0.9", [1]),
        ("score != 0.9", [1, 3]),
        ("dense.units=16", [2]),
        ("dense.units<=16, score>0", [1, 2]),
        ("dense.activation=relu", [1, 2, 3]),
        ("dense.activation~RE", [1, 2, 3]),
        ("dense.activation>a", [1, 2, 3]),
        ("dense.activation=", []),
        ("status=failed", [3]),
        ("is_winner=true", [2]),
        ("is_winner=1", []),
        ("optimizer.weight_decay=0", []),
        ("optimizer.weight_decay=null", [1, 2, 3]),
        ("optimizer.weight_decay!=null", []),
        ("score=null", [3]),
        ("score!=null", [1, 2]),
        ("score<=null", []),
        ("", [1, 2, 3]),
    ],
)
def test_conditions(text: str, trials: list[int], rows: list[dict[str, Any]]) -> None:
    assert [row["trial"] for row in runs_table.filtered(rows, text)] == trials


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1e234567", "x=1e234567"),
        ("1e234567", "x~e2345"),
        ("0012e4ab", "x~12e4"),
        ("2.20", "x=2.20"),
        ("2.20", "x!=2.2"),
        ("true", "x=true"),
        ("relu", 'x="relu"'),
        (2.2, "x=2.20"),
    ],
)
def test_a_text_is_compared_as_it_was_typed(value: object, text: str) -> None:
    assert runs_table.filtered([{"x": value}], text) == [{"x": value}]


@pytest.mark.parametrize(
    ("text", "trials"),
    [
        ("score", [1, 2, 3]),
        ("-score", [2, 1, 3]),
        ("-trial", [3, 2, 1]),
        ("status,-dense.units", [2, 1, 3]),
        ("dense.activation,-trial", [3, 2, 1]),
        ("", [1, 2, 3]),
    ],
)
def test_order(text: str, trials: list[int], rows: list[dict[str, Any]]) -> None:
    assert [row["trial"] for row in runs_table.ordered(rows, text)] == trials


def test_columns(rows: list[dict[str, Any]]) -> None:
    assert runs_table.chosen("trial, val_auc", ["score"], rows) == ["trial", "val_auc"]
    assert runs_table.chosen("+val_auc,score", ["score"], rows) == ["score", "val_auc"]
    assert set(runs_table.chosen("all", ["score"], rows)) == {name for row in rows for name in row}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rows: runs_table.filtered(rows, "score"), "`filter`: expected conditions such as"),
        (
            lambda rows: runs_table.filtered(rows, "dense.unit>3"),
            "`filter`: expected the name of a column. Received: 'dense.unit'. "
            "The nearest is `dense.units`.",
        ),
        (lambda rows: runs_table.ordered(rows, "-scor"), "`sort`: expected the name of a column"),
        (
            lambda rows: runs_table.chosen("a,b", [], rows),
            "`columns`: expected the name of a column",
        ),
    ],
)
def test_mistakes(call: Any, message: str, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError) as caught:
        call(rows)
    assert str(caught.value).startswith(message)


def test_the_three_forms(rows: list[dict[str, Any]]) -> None:
    rows[0]["score"] = 1 / 3
    rows[1]["score"] = math.nan
    columns = ["trial", "score", "seconds", "dense.activation", "is_winner"]
    text = str(runs_table.render(rows, columns, "table", title="3 trials", notes=["A note."]))
    assert text.splitlines() == [
        "3 trials",
        "",
        "trial   score  seconds  dense.activation  is_winner",
        "-----  ------  -------  ----------------  ---------",
        "    1  0.3333     0:01  relu                  false",
        "    2       -     0:02  relu                   true",
        "    3       -     0:03  relu                  false",
        "",
        "A note.",
    ]
    parsed = list(csv.DictReader(io.StringIO(runs_table.render(rows, columns, "csv"))))
    assert [row["score"] for row in parsed] == [str(1 / 3), "", ""]
    assert parsed[1]["is_winner"] == "true"
    assert json.loads(runs_table.render(rows, columns, "json"))[0]["score"] == 1 / 3
    assert json.loads(runs_table.render(rows, columns, "json"))[1]["score"] is None


def test_no_rows_are_a_table_too() -> None:
    assert runs_table.filtered([], "a>1") == runs_table.ordered([], "a") == []
    assert "0 trials" in str(runs_table.render([], ["trial"], "table", title="0 trials"))
    assert runs_table.render([], ["trial"], "csv") == "trial\n"


def test_csv_has_no_formulas_and_its_numbers_stay_numbers() -> None:
    rows = [{"trial": 1, "-note": "=1+1", "score": -0.5, "is_winner": True, "list": [1, -2]}]
    text = runs_table.render(rows, list(rows[0]), "csv")
    assert text == "trial,'-note,score,is_winner,list\n1,'=1+1,-0.5,true,\"[1, -2]\"\n"


def test_the_folds_are_part_of_what_ranks() -> None:
    folded = replace(SEARCH, params={**SEARCH.params, "objective.folds": "5"})
    assert runs_table.search_record(folded)["objective"] == "val_auc over 5 folds"
    assert runs_table.search_record(folded)["score"] == 0.9
    for params in ({**SEARCH.params, "objective.folds": "null"}, SEARCH.params):
        assert runs_table.objective(replace(SEARCH, params=params)) == "val_auc"
