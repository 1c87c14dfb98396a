"""The loop of a search alone: who listens changes nothing, and a lost state is told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from families import slow
from omegaconf import OmegaConf

from pneumonia import startup
from pneumonia.artifacts import state_key
from pneumonia.config import compose
from pneumonia.config.search_space import plain
from pneumonia.errors import UserError
from pneumonia.evaluation import plots
from pneumonia.evaluation.objective import Fit, Metrics
from pneumonia.models import classifier_file
from pneumonia.search import loop, resume
from pneumonia.search.callbacks import SearchCallback, SearchEnd, SearchInfo
from pneumonia.search.resume import SearchSpec
from pneumonia.search.trials import Proposal
from pneumonia.storage import journal, provenance
from pneumonia.storage.journal import Event

SMALL = (
    *("dataset=phantom", "dataset.train=40", "dataset.val=20", "dataset.test=20"),
    *("dataset.image_size=32", "model=cnn", "model.image_size=16", "model.blocks=1"),
    *("model.filters=2", "dense.units=4", "training.jit=false", "training.early_stopping=null"),
    "optimizer.learning_rate=0.01",
)
GRID = (*SMALL, "tuner=grid", "tuner.max_trials=3", "tuner.max_epochs=2",
        'dense.dropout="choice(0.1, 0.3, 0.5)"')  # fmt: skip
PROMOTING = (*SMALL, "tuner=hyperband", "tuner.max_epochs=2", "tuner.factor=2",
             'dense.dropout="choice(0.1, 0.3)"')  # fmt: skip


@functools.cache
def composed(overrides: tuple[str, ...]) -> Any:
    startup.start()
    return compose.check(compose.prepare(overrides))[0]


def run(
    folder: Path,
    *overrides: str,
    callbacks: Sequence[SearchCallback] = (),
    fork_of: Path | None = None,
) -> list[Event]:
    """Run a search, or go on with the one in a folder; return its journal."""
    cfg = composed(overrides)
    chosen = {str(k): str(v) for k, v in cfg.hydra.runtime.choices.items() if v is not None}
    spec = SearchSpec(OmegaConf.create(plain(cfg)), folder, chosen)
    if fork_of is not None:
        search_id = next(journal.read(fork_of))["search_id"]
        spec = replace(spec, origin=resume._compared(fork_of, search_id, spec=spec))
    with closing(resume.claim(spec, uri=None)) as log:
        loop.run(spec, log, callbacks=callbacks)
    return list(journal.read(folder))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "save", lambda figure, path: None)  # takes most of the time
    return tmp_path / "outputs"


def of(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["kind"] == kind]


def results(events: list[Event]) -> list[Any]:
    """Return what the trials and the search came to."""
    trials = [(e["trial_id"], e["score"], e["metrics"]) for e in of(events, "trial_ended")]
    (end,) = of(events, "search_ended")
    scores = {k: v for k, v in end["metrics"].items() if not k.startswith("seconds")}
    return [trials, end["winner"], scores]


class Told(SearchCallback):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        for name in vars(SearchCallback):
            if not name.startswith("_") and name != "name":
                setattr(self, name, functools.partial(self._note, name))

    def _note(self, name: str, *args: object) -> None:
        self.events.append(name)


class Failing(SearchCallback):
    """Raises an error at every epoch."""

    def __init__(self) -> None:
        self.calls, self.is_closed = 0, False

    def epoch_ended(self, *_: object) -> None:
        self.calls += 1
        raise ValueError("https://anna:hush@h/x is away")

    def close(self) -> None:
        self.is_closed = True


class Saying(SearchCallback):
    """Notes the lines for the user."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


class Doing(SearchCallback):
    """Does something with the search's folder when a trial begins, or its end."""

    def __init__(self, do: Callable[[Path, Proposal | None], object]) -> None:
        self.do = do

    def search_opened(self, search: SearchInfo) -> None:
        self.folder = search.folder

    def trial_started(self, proposal: Proposal, config: Any) -> None:
        self.do(self.folder, proposal)

    def phase(self, text: str) -> None:
        if text == "evaluating the winner":
            self.do(self.folder, None)


def test_a_search_runs_with_nobody_listening_and_comes_to_the_same(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = run(here / "a", *GRID)
    assert capsys.readouterr() == ("", "")
    told, failing, saying = Told(), Failing(), Saying()
    listened = run(here / "b", *GRID, callbacks=[failing, told, saying])
    assert results(listened) == results(alone)
    counts = [of(events, "search_ended")[0]["test_readings"] for events in (alone, listened)]
    assert counts == [{"searches": 1, "times": 1}, {"searches": 2, "times": 2}]
    assert (here / "b" / "best.yaml").exists()
    calls = {name: told.events.count(name) for name in told.events}
    expected = {"search_opened": 1, "search_started": 1, "trial_started": 3, "epoch_ended": 6,
                "trial_ended": 3, "search_ending": 1, "search_ended": 1, "close": 1}  # fmt: skip
    assert {name: calls[name] for name in expected} == expected
    assert (told.events[0], told.events[-1]) == ("search_opened", "close")
    # One warning that names it; the search goes on.
    assert (failing.calls, failing.is_closed) == (1, True)
    (line,) = saying.lines
    assert line.startswith("warning: Failing failed and is called no more: ValueError: https://h/x")
    assert "(test_loop.py, line " in line


def test_without_a_console_a_warning_goes_to_standard_error(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = Failing()
    failing.name = "mine"
    run(here / "a", *GRID, callbacks=[failing])
    assert capsys.readouterr().err.startswith("warning: `callbacks.mine` failed and is called no")


def test_what_a_callback_adds_to_the_end_is_recorded(here: Path) -> None:
    class Adding(SearchCallback):
        def search_ending(self, end: SearchEnd) -> None:
            end.artifacts.append("mine.txt")
            end.description = "A note."

    (end,) = of(run(here / "a", *GRID, callbacks=[Adding()]), "search_ended")
    assert "mine.txt" in end["artifacts"]
    assert end["description"] == "A note."


# States that are lost.


def lose_parent(folder: Path, proposal: Proposal | None) -> None:
    if proposal is not None and proposal.parent:
        path = folder / state_key(proposal.parent)
        path.rename(path.with_suffix(".gone"))


def lose_parents_for_a_time(folder: Path, proposal: Proposal | None) -> None:
    lose_parent(folder, proposal)
    for path in (folder / "trials").glob("*.gone") if proposal is None else ():
        path.rename(path.with_suffix(".zip"))


def lose_all(folder: Path, proposal: Proposal | None) -> None:
    if proposal is None:
        for path in (folder / "trials").iterdir():
            path.write_bytes(path.read_bytes()[:-100])


@pytest.fixture
def whole(here: Path) -> list[Event]:
    events = run(here / "whole", *PROMOTING)
    assert of(events, "training_repeated") == []
    return events


@pytest.mark.slow  # as of a trial alone, in test_trial
def test_what_was_lost_is_trained_again_to_the_same_and_told(
    here: Path, whole: list[Event]
) -> None:
    promoted = [e for e in of(whole, "trial_started") if "promoted_from" in e["tags"]]
    saying = Saying()
    events = run(here / "a", *PROMOTING, callbacks=[Doing(lose_parent), Doing(lose_all), saying])
    assert results(events) == results(whole)
    (end,) = of(whole, "search_ended")
    repeated = [(e["trial_id"], e["reason"]) for e in of(events, "training_repeated")]
    parents = {e["trial_id"]: e["tags"]["promoted_from"] for e in promoted}
    lost = "missing" if end["winner"] in parents.values() else "damaged"
    assert repeated == [
        *((name, f"trials/{parent}.zip is missing.") for name, parent in parents.items()),
        (end["winner"], f"trials/{end['winner']}.zip is {lost}."),
    ]
    assert len(promoted) > 0
    assert len(saying.lines) == len(promoted) + 1
    assert "is trained again from its beginning, to the same" in saying.lines[0]


@pytest.mark.parametrize("where", ["elsewhere", "here"])
def test_a_parent_that_is_lost_fails_a_trial_where_it_would_not_be_the_same(
    where: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(folder: Path, proposal: Proposal | None) -> None:
        lose_parents_for_a_time(folder, proposal)
        if proposal and proposal.parent and where == "here":
            # As if the machine were the same by all that is known of it, and is not.
            search.past.trials[proposal.parent].curves[Fit()][0]["loss"] += 1e-9

    if where == "elsewhere":
        monkeypatch.setattr(provenance, "other_machine", lambda tags: "this machine is another one")
    cfg = composed(PROMOTING)
    chosen = {str(k): str(v) for k, v in cfg.hydra.runtime.choices.items() if v is not None}
    spec = SearchSpec(OmegaConf.create(plain(cfg)), here / "a", chosen)
    with closing(resume.claim(spec, uri=None)) as log:
        search = loop.Search(spec, log, [Doing(lose)], None)
        search.run()
    events = list(journal.read(here / "a"))
    started = {e["trial_id"]: e["tags"] for e in of(events, "trial_started")}
    failed = {e["trial_id"]: e["reason"] for e in of(events, "trial_ended")
              if e["status"] == "FAILED"}  # fmt: skip
    assert failed.keys() == {name for name, tags in started.items() if "promoted_from" in tags}
    for name, reason in failed.items():
        if where == "elsewhere":
            parent = started[name]["promoted_from"]
            assert reason.startswith(f"trials/{parent}.zip is missing. Trained again it would not")
        else:
            assert "training again gives something else: epoch 1 is not" in reason
    assert bool(of(events, "training_repeated")) == (where == "here")
    assert of(events, "search_ended")[0]["status"] == "completed"


def test_a_winner_that_is_lost_ends_the_search_where_it_would_not_be_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "other_machine", lambda tags: "this machine is another one")
    with pytest.raises(UserError, match=r"trials/\d+\.zip is damaged\. Trained again it would not"):
        run(here / "a", *GRID, callbacks=[Doing(lose_all)])
    events = list(journal.read(here / "a"))
    (end,) = of(events, "search_ended")
    assert (end["status"], end["winner"]) == ("failed", None)
    assert "as this machine is another one. Put a copy in its place" in end["reason"]
    monkeypatch.setattr(provenance, "other_machine", lambda tags: "")
    again = run(here / "a", *GRID)  # where it began
    assert of(again, "search_ended")[-1]["status"] == "completed"
    assert len(of(again, "training_repeated")) == 1


class Stillborn(SearchCallback):
    """Ends a search when its second trial has begun, before its first epoch."""

    def trial_started(self, proposal: Proposal, config: dict[str, Any]) -> None:
        if proposal.number == 2:
            raise KeyboardInterrupt


def test_a_trial_that_was_killed_before_its_first_epoch_has_lost_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(here / "a", *GRID, callbacks=[Stillborn()])
    monkeypatch.setattr(provenance, "other_machine", lambda tags: "this machine is another one")
    events = run(here / "a", *GRID)
    assert not of(events, "training_repeated")
    assert {one["status"] for one in of(events, "trial_ended")} == {"COMPLETED"}
    assert of(events, "search_ended")[-1]["status"] == "completed"


class Interrupting(SearchCallback):
    """Ends a search after the first epoch of its second trial, as Ctrl-C does."""

    def epoch_ended(self, proposal: Proposal, fit: Fit, epoch: int, metrics: Metrics) -> None:
        if (proposal.number, epoch) == (2, 1):
            raise KeyboardInterrupt


@pytest.mark.parametrize("is_elsewhere", [False, slow(True)])
def test_a_checkpoint_that_is_lost_is_not_passed_over_in_silence(
    is_elsewhere: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(here / "a", *GRID, callbacks=[Interrupting()])
    (here / "a" / state_key("0001")).write_bytes(b"damaged")
    if is_elsewhere:
        monkeypatch.setattr(provenance, "other_machine", lambda tags: "this machine is another one")
    told = Told()
    events = run(here / "a", *GRID, callbacks=[told])
    statuses = [event["status"] for event in of(events, "trial_ended")]
    assert statuses == ["COMPLETED", "FAILED" if is_elsewhere else "COMPLETED", "COMPLETED"]
    assert len(of(events, "training_repeated")) == (0 if is_elsewhere else 1)
    assert told.events.count("trial_replayed") == 1
    if not is_elsewhere:
        assert told.events.count("epoch_replayed") == 1
        whole = run(here / "whole", *GRID)
        assert results([e for e in events if e.get("status") != "interrupted"]) == results(whole)


def test_folds_choose_and_what_wins_is_the_mean_of_its_trainings(here: Path) -> None:
    class Breaking(SearchCallback):
        def epoch_ended(self, proposal: Proposal, fit: Fit, epoch: int, metrics: Metrics) -> None:
            if (proposal.number, fit, epoch) == (2, Fit(1), 1):
                raise KeyboardInterrupt

    options = (*GRID, "objective.folds=2", "threshold.rule=youden", "threshold.calibrate=true")
    whole = run(here / "whole", *options)
    with pytest.raises(KeyboardInterrupt):
        run(here / "a", *options, callbacks=[Breaking()])
    events = run(here / "a", *options)
    assert results([e for e in events if e.get("status") != "interrupted"]) == results(whole)
    epochs = [[(e["trial_id"], e["fold"], e["epoch"], e["metrics"]) for e in of(one, "epoch_ended")]
              for one in (events, whole)]  # fmt: skip
    assert epochs[0] == epochs[1]
    assert [fold for trial_id, fold, *_ in epochs[0] if trial_id == "0001"] == [0, 0, 1, 1]
    (end,) = of(whole, "search_ended")
    assert end["metrics"]["epochs"] == len(epochs[1]) == 12
    (won,) = [e for e in of(whole, "trial_ended") if e["trial_id"] == end["winner"]]
    assert (end["metrics"]["val_auc"], end["metrics"]["val_auc_std"]) == (
        won["score"],
        won["spread"],
    )
    assert {e["classifier"] for e in of(whole, "trial_ended")} == {None}
    facts = classifier_file.read_facts(here / "whole" / end["classifier"])
    assert "out of fold (60 images)" in facts["statement"]
    assert facts["temperature"] != 1
    for name in ("predictions.csv", "best.yaml"):
        one, other = ((here / folder / name).read_text() for folder in ("a", "whole"))
        assert one.replace("/a/", "/whole/") == other
    assert "folds: 2" in other


# As completed.


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("tuner", [slow("random"), slow("bayesian"), "hyperband"])
def test_a_search_as_completed_goes_on_to_where_it_was(tuner: str, here: Path) -> None:
    options = (*SMALL, f"tuner={tuner}", "executor.in_order=false",
               *(("tuner.max_epochs=4",) if tuner == "hyperband" else
                 ("tuner.max_epochs=2", "tuner.max_trials=5")),
               'dense.dropout="interval(0.1, 0.5)"', "executor.workers=2")  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        run(here / "a", *options, callbacks=[Interrupting()])
    before = list(journal.read(here / "a"))
    events = run(here / "a", *options)
    assert events[: len(before)] == before
    assert of(events, "search_ended")[-1]["status"] == "completed"
    ended = {event["trial_id"] for event in of(events, "trial_ended")}
    assert ended == {event["trial_id"] for event in of(events, "trial_started")}
    assert len(ended) >= 5
