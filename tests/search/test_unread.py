"""A search leaves the test split alone where it is told to; a fork of it reads it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_loop import GRID, composed, here, of, run

from pneumonia.config.search_space import plain
from pneumonia.console import summary
from pneumonia.reporting import report
from pneumonia.search import loop, resume
from pneumonia.search.resume import SearchSpec
from pneumonia.storage import journal, readings, search_record
from pneumonia.storage.search_folder import PREDICTIONS
from pneumonia.training import ensemble

__all__ = ["here"]  # a fixture

UNREAD = (*GRID, "winner.members=2", "winner.test=false")


def fork(source: Path, folder: Path, *more: str) -> list[journal.Event]:
    overrides = [f"resume.search={source}", "resume.fork=true", *more]
    cfg = composed((*UNREAD, *overrides))
    chosen = {str(k): str(v) for k, v in cfg.hydra.runtime.choices.items() if v is not None}
    spec = SearchSpec(OmegaConf.create(plain(cfg)), folder, chosen)
    made = resume.plan(spec, overrides)
    with closing(resume.claim(made, uri=None)) as log:
        loop.run(made, log)
    return list(journal.read(folder))


def test_the_test_split_is_left_alone_until_a_fork_reads_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    predict = ensemble.predict
    monkeypatch.setattr(
        ensemble, "predict", lambda m, split, **k: asked.append(split) or predict(m, split, **k)
    )
    (end,) = of(run(here / "a", *UNREAD), "search_ended")
    assert asked == ["val"]
    assert not (here / readings.NAME).exists()
    assert end["status"] == "completed"
    assert not [name for name in end["metrics"] if "test" in name]
    assert (end["test_readings"], end["artifacts"][-1]) == ({}, "plots/learning_curves.png")
    record = search_record.read(here / "a")
    assert set(record.predictions) == {"val"}
    page = report.render(record)
    assert "The test split was not read." in page
    assert "Worst errors" not in page
    # Nor does its preset read it, which the report says to run next.
    assert OmegaConf.load(here / "a" / "best.yaml").winner == {"test": False}
    text = (here / "a" / PREDICTIONS).read_text()
    events = fork(here / "a", here / "b", "winner.test=true")
    assert of(events, "epoch_ended")
    assert of(events, "training_repeated") == []
    (forked,) = of(events, "search_ended")
    (whole,) = of(run(here / "c", *GRID, "winner.members=2"), "search_ended")
    assert forked["members"] == whole["members"] == end["members"]
    for name, value in whole["metrics"].items():
        if not name.startswith("seconds"):
            assert forked["metrics"][name] == value
    assert "winner" not in OmegaConf.load(here / "b" / "best.yaml")
    assert (here / "b" / PREDICTIONS).read_text().startswith(text)
    assert forked["test_readings"] == {"searches": 1, "times": 1}


def test_the_note_on_a_search_says_it() -> None:
    rows = [summary.Row(1, 0.9, {"dense.units": 4})]
    text = summary.description(rows, None, objective="val_auc")
    assert text.endswith("The test split was not read.\n")
    assert "Scores" not in text
