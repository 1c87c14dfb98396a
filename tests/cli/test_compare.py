"""The command on the store of a real search, and that on a terminal; trials run again."""

from __future__ import annotations

import csv
import fcntl
import importlib.util
import json
import math
import os
import re
import shlex
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bare
import pytest
import yaml
from screens import Terminal, terminal
from test_search import Store, run_here, with_store

from pneumonia.cli import common, compare
from pneumonia.cli.compare import parse
from pneumonia.config import compose
from pneumonia.errors import ConfigError
from pneumonia.storage import journal
from pneumonia.tracking.runs import Run

ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
SEARCH = (
    *("dataset=phantom", "dataset.train=120", "dataset.val=60", "dataset.test=60"),
    *("dataset.image_size=32", "model.image_size=32", "model.layer=block2b_add", "dense.units=8"),
    *('dense.dropout="choice(0.1, 0.3, 0.5)"', "tuner.max_epochs=4", "optimizer=any"),
    "training.jit=false",
    'optimizer.name="choice(rmsprop, sgd)"',
)


# The command without its pictures and its report.
MAIN = """
import sys
import bare
from pneumonia import startup
from pneumonia.cli import main as cli
startup.foresee = lambda: None
bare.leave_out()
sys.argv[0] = "pneumonia"
sys.exit(cli.main())
"""


@dataclass(frozen=True)
class Searched:
    """A search, and where it ran."""

    project: Path
    folder: Path

    def trial(self, number: int) -> Any:
        """Return the end of a trial."""
        events = list(journal.read(self.folder))
        (trial_id,) = [one["trial_id"] for one in events if one.get("number") == number]
        (end,) = [one for one in events
                  if one["kind"] == "trial_ended" and one["trial_id"] == trial_id]  # fmt: skip
        return end

    @property
    def winner(self) -> int:
        (end,) = [one for one in journal.read(self.folder) if one["kind"] == "search_ended"]
        return int(end["winner"]) + 1

    @property
    def run_id(self) -> str:
        return str(json.loads((self.folder / "tracking.json").read_text())["run_id"])


def run(project: Path, arguments: tuple[str, ...], screen: Terminal) -> list[list[str]]:
    """Run a search on a terminal; return what that showed meanwhile."""
    left_out = ("TF_", "MLFLOW", "CI", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        stdin=screen.far, stdout=screen.far, stderr=screen.far, cwd=project,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env={**kept, "PYTHONPATH": PATH, "TERM": "xterm-256color"},
    )  # fmt: skip
    deadline, screens = time.monotonic() + 180, []
    while process.poll() is None:
        assert time.monotonic() < deadline, "\n".join(screen.lines())
        screens.append(screen.lines(0.05))
        time.sleep(0.1)
    assert process.returncode == 0, "\n".join(screen.lines())
    return screens


def folders(project: Path) -> list[Path]:
    found = [path.parent for path in (project / "outputs").rglob(journal.NAME)]
    return sorted(found, key=lambda folder: next(journal.read(folder))["time"])


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Searched:
    project = with_store(tmp_path_factory.mktemp("compare") / "project", empty_store)
    with pytest.MonkeyPatch.context() as patch:
        bare.leave_out(patch)
        ran = run_here(project, *SEARCH)
    assert ran.status == 0, ran.stderr
    return Searched(project, ran.folder)


@pytest.fixture
def told(
    searched: Searched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return a function that runs the command in the project and returns what it prints."""
    monkeypatch.chdir(searched.project)

    def tell(*arguments: str, status: int = 0) -> str:
        assert compare.main(arguments) == status
        out, err = capsys.readouterr()
        assert bool(err) == bool(status), err
        return str(err if status else out)

    return tell


@pytest.mark.slow
def test_the_terminal_shows_the_search_while_it_runs(tmp_path: Path, empty_store: Path) -> None:
    with terminal(100, 40) as screen:
        screens = run(with_store(tmp_path / "project", empty_store), SEARCH, screen)
        end = "\n".join(screen.lines())
    texts = ["\n".join(lines) for lines in screens]
    running = [text for text in texts if re.search(r"\n\ntrial \d+ of \d+ [━╸─]", text)]
    assert len(running) > 3
    assert all(len(re.findall("^trial .* of ", text, re.MULTILINE)) == 1 for text in running)
    assert any("trial  val_auc  epoch  time  dense.dropout" in text for text in running)
    assert not re.search("[━╸]", end.replace("─", ""))
    assert "Scores on the test split" in end


def test_a_picture_of_it_can_be_made(searched: Searched) -> None:
    spec = importlib.util.spec_from_file_location("terminal", ROOT / "docs/pictures/terminal.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scene = module.play(searched.folder, 0.5)
    epochs = sum(one["kind"] == "epoch_ended" for one in journal.read(searched.folder))
    assert scene.times[-1].startswith(f"{math.ceil(epochs / 2)} of ")
    assert [row for row in scene.rows if float(row[1]) > 0]
    picture = module.svg(scene)
    assert picture.startswith("<svg")
    assert "@font-face" not in picture


def test_searches_are_listed(searched: Searched, told: Callable[..., str]) -> None:
    text = told()
    assert text.splitlines()[1] == "1 search, the latest first"
    assert searched.run_id[:8] in text
    assert "spends" not in text
    assert "To choose by the test split spends it" in told("sort=-test_auc")
    assert "To choose by the test split spends it" in told("filter=test_auc>0.1")
    (row,) = json.loads(told("format=json", "columns=run_id,tuner,dense.units,score"))
    score = searched.trial(searched.winner)["score"]
    assert row == {"run_id": searched.run_id, "tuner": "hyperband", "dense.units": 8,
                   "score": pytest.approx(score)}  # fmt: skip


def test_trials_are_listed_by_any_name_of_their_search(
    searched: Searched, told: Callable[..., str], tmp_path: Path
) -> None:
    text = told("last")
    assert f"The winner of {searched.run_id[:8]} is trial {searched.winner}." in text
    search_id = next(journal.read(searched.folder))["search_id"]
    for name in (searched.run_id, searched.run_id[:6], search_id, "models:/pneumonia-phantom/1"):
        assert told(name) == text
    told("last", f"output={tmp_path / 'trials.csv'}", "sort=trial", "columns=trial,score")
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [int(row["trial"]) for row in rows] == list(range(1, len(rows) + 1))
    assert [float(row["score"]) for row in rows] == [
        searched.trial(int(row["trial"]))["score"] for row in rows
    ]


def exported(searched: Searched, trial: str, name: str) -> Any:
    """Export a trial to a file of the project; return what it holds."""
    path = searched.project / name
    before = Path.cwd()
    os.chdir(searched.project)
    try:
        assert compare.main([f"export={trial}", f"output={name}"]) == 0
    finally:
        os.chdir(before)
    text = path.read_text()
    assert text.startswith("# @package _global_\n# Trial ")
    assert f"#   pneumonia experiment={name}\n" in text
    assert "choice(" not in text
    return yaml.safe_load(text)


def test_the_winner_is_exported_as_the_search_itself_does(searched: Searched) -> None:
    own = yaml.safe_load((searched.folder / "best.yaml").read_text())
    assert exported(searched, "last", "best.yaml") == own
    assert exported(searched, f"last/{searched.winner}", "best.yaml") == own


def test_a_tag_that_a_user_has_edited_is_named(
    searched: Searched, told: Callable[..., str]
) -> None:
    store = Store(searched.project)
    (run,) = store.runs("search")
    for text in ("", "[1]"):
        store.client.set_tag(run.info.run_id, "choices", text)
        message = told("export=last", status=2)
        assert f"the tag `choices` of run {run.info.run_id}. Received: {text!r}." in message
    store.client.set_tag(run.info.run_id, "choices", run.data.tags["choices"])
    assert told("export=last")


@pytest.mark.slow
def test_a_trial_is_exported_by_its_run_and_printed(
    searched: Searched, told: Callable[..., str]
) -> None:
    runs = json.loads(told("last", "format=json", "columns=run_id,trial,dense.dropout,epochs"))
    for row in runs:
        made = yaml.safe_load(told(f"export={row['run_id'][:10]}"))
        assert made["dense"]["dropout"] == row["dense.dropout"]
        assert made["tuner"] == {"max_epochs": row["epochs"]}


class Exported:
    """A store with a trial of six epochs, as `Runs` shows it."""

    def __init__(self, status: str) -> None:
        metrics = {"score": 0.9, "best_epoch": 2.0}
        tags = {"choices": json.dumps({"tuner": "random"})}
        self._run = Run("ab12", "trial 1", status, 0, 1.0, {"epochs": "6"}, metrics, tags, {})

    def trial(self, name: str, *, key: str) -> Run:
        return self._run

    def of_trial(self, trial: Run) -> Run:
        return trial

    def text(self, run: Run, name: str) -> str:
        if name == "best.yaml":  # of what was trained of the winner
            return "tuner: {max_epochs: 3}\ntraining: {executions_per_trial: 1}\n"
        groups = dict.fromkeys(("dataset", "augment", "model", "dense", "optimizer"))
        groups["training"] = {"executions_per_trial": 2}
        objective = {"name": "val_auc", "direction": "max"}
        return yaml.safe_dump({"objective": objective, "features": {}, "when": {}, **groups})


@pytest.mark.parametrize(("status", "epochs"), [("FINISHED", 6), ("KILLED", 3)])
def test_what_a_budget_has_stopped_is_exported_as_it_was_trained(status: str, epochs: int) -> None:
    text = compare.preset(Exported(status), "ab12", None)  # type: ignore[arg-type]
    assert "val_auc 0.9000 at epoch 2." in text
    made = yaml.safe_load(text)
    assert made["tuner"]["max_epochs"] == epochs
    assert made["training"]["executions_per_trial"] == (1 if status == "KILLED" else 2)


@pytest.mark.slow
def test_exported_trials_come_to_the_same_score_and_are_compared(
    searched: Searched, told: Callable[..., str]
) -> None:
    """The winner, and another one that was promoted."""
    events = list(journal.read(searched.folder))
    promoted = [one["number"] for one in events if "promoted_from" in one.get("tags", {})]
    other = next(one for one in promoted if one != searched.winner)
    exported(searched, "last", "winner.yaml")
    exported(searched, f"last/{other}", "other.yaml")
    with terminal() as screen:
        run(searched.project, ("-m", "experiment=winner.yaml,other.yaml"), screen)
    for number, folder in zip(
        (searched.winner, other), folders(searched.project)[-2:], strict=True
    ):
        end = list(journal.read(folder))[-1]
        assert end["metrics"]["val_auc"] == searched.trial(number)["score"]
    rows = json.loads(told("format=json", "columns=run_id"))
    third, second = (row["run_id"] for row in rows[:2])
    same, another = (
        json.loads(told(f"test={searched.run_id},{run_id[:8]}", "format=json"))
        for run_id in (second, third)
    )
    assert (same["first"], same["second"]) == (searched.run_id[:8], second[:8])
    for score in ("auc", "accuracy"):
        assert (same[score]["difference"], same[score]["p"]) == (0, 1)
    assert another["auc"]["difference"] != 0
    assert another["auc"]["interval"][0] < another["auc"]["difference"]


def test_a_classifier_is_compared_on_the_test_split(
    searched: Searched,
    told: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = searched.run_id
    text = told(f"test={run_id},{run_id[:8]}/{searched.winner}")
    assert "on 60 test images" in text
    assert "The accuracy does not differ beyond chance (p = 1.000 >= 0.05)." in text
    body = json.loads(told(f"test={run_id},last", "format=json"))
    end = list(journal.read(searched.folder))[-1]["metrics"]
    assert body["auc"]["first"] == pytest.approx(end["test_auc"])
    assert body["thresholds"] == [end["threshold"]] * 2
    assert body["accuracy"]["first"] == pytest.approx(end["test_at_threshold_accuracy"])
    other = 1 if searched.winner != 1 else 2
    message = told(f"test=last,{run_id[:8]}/{other}", status=2)
    assert "Only winners are tested" in message
    export, train = re.findall("`(pneumonia[^`]*)`", message)
    monkeypatch.chdir(tmp_path)
    assert "it.yaml" in export
    told(*shlex.split(export)[2:], f"tracking.uri=sqlite:///{searched.project}/mlruns/mlflow.db")
    assert len(compose.check(compose.prepare(shlex.split(train)[1:]))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "`arguments`: expected `last`, the id of a search's run"),
        (["export=last/99"], "`export`: expected the number of a trial of"),
        (["last", "filter=scor>1"], "`filter`: expected the name of a column. Received: 'scor'."),
        (["last", "sort=foo"], "`sort`: expected the name of a column"),
        (["tracking.experiment=pneumoni"], "The nearest is `pneumonia`."),
        (["output=no/where.csv"], "`output`: expected a file in an existing folder"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, told: Callable[..., str]) -> None:
    assert message in told(*arguments, status=2)


def test_without_a_store_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare.main([]) == 2
    assert "`tracking.uri`: expected an MLflow store that exists." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tset=a,b"], "`tset`: expected one of the keys"),
        (["tset=a,b"], "The nearest is `test`."),
        (["--wrong"], "`arguments`: expected a name or a `key=value` pair"),
        (["sort="], "`sort`: expected a value"),
        (["test=a"], "`test`: expected two searches"),
        (["limit=-1"], "`limit`: expected a whole number"),
        (["format=xml"], "`format`: expected one of table, csv, json"),
        (["threshold=2", "test=a,b"], "`threshold`: expected a number from 0 to 1"),
        (["threshold=0.5"], "`threshold`: expected nothing of it without test"),
        (["export=a", "test=a,b"], "`test`: expected nothing of it together with export"),
        (["export=a", "last"], "`export`: expected no search beside it"),
        (["export=a", "output=a.json"], "`output`: expected a file that ends in .yaml or .yml"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(arguments)
    assert message in str(caught.value)


def test_arguments() -> None:
    searches, given = parse(["last", "3f2a", "filter=dense.units=512,score>0.9", "output=a.json"])
    assert searches == ["last", "3f2a"]
    assert given == {"filter": "dense.units=512,score>0.9", "output": "a.json"}
    assert common.output_of(given) == (Path("a.json"), "json")
    assert compare._pair({"test": " a, b"}) == ["a", "b"]


def test_nothing_heavy_is_imported_before_the_arguments_are_right() -> None:
    code = (
        "import sys; from pneumonia.cli import compare; compare.main(['tset=a']); "
        "sys.exit(any(name in sys.modules for name in ('mlflow', 'numpy', 'omegaconf', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    assert done.returncode == 0
