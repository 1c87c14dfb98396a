"""What listens to a search is configured: the program's own, and a user's."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pneumonia.cli import main, search
from pneumonia.cli.callbacks import Console, Report, TensorBoard, Tracking
from pneumonia.config import compose
from pneumonia.search.resume import SearchSpec
from pneumonia.storage import journal
from pneumonia.tracking.tracker import TrackingSettings

ROOT = Path(__file__).parents[2]
SMALL = (
    *("dataset=phantom", "dataset.train=40", "dataset.val=20", "dataset.test=20"),
    *("dataset.image_size=32", "model=cnn", "model.image_size=16", "model.blocks=1"),
    *("model.filters=2", "dense.units=4", "dense.dropout=0.1", "optimizer.learning_rate=0.01"),
    *("training.jit=false", "tuner.max_epochs=2"),
)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [Console, Tracking, Report]),
        (["callbacks=[report,tensorboard,console]"], [Console, Tracking, Report, TensorBoard]),
        (["callbacks=none"], [Tracking]),
        (["callbacks=[]"], [Tracking]),
        (["~callbacks.console"], [Tracking, Report]),
        (["callbacks.report=null"], [Console, Tracking]),
        (["experiment=blog"], [Console, Tracking, Report, TensorBoard]),
    ],
    ids=str,
)
def test_who_listens_in_which_order(overrides: list[str], expected: list[type]) -> None:
    cfg = compose.check(compose.prepare(overrides))[0]
    assert [type(one) for one in search.listeners(cfg, TrackingSettings())] == expected


@pytest.mark.parametrize("reason", ["", "`budget.epochs=3` has ended the search. It goes on: ..."])
def test_a_complete_search_goes_on_with_more_of_what_has_ended_it(
    reason: str, tmp_path: Path
) -> None:
    with closing(journal.Journal(tmp_path)) as log:
        log.append("search_started", search_id="s1", params={})
        log.append("search_ended", status="completed", metrics={}, reason=reason)
    cfg = OmegaConf.create({"tuner": {"max_trials": 6}})
    more, fork = search._more(SearchSpec(cfg, tmp_path, {}, is_over=True)).splitlines()
    if reason:
        assert more == reason
    else:
        assert more.endswith("tuner.max_trials=12")
    assert fork.endswith("resume.fork=true")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the listener of the README."""
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(# my_listeners\.py.*?)```", text, re.DOTALL)
    (conf,) = re.findall(r"```yaml\n(# my_conf/callbacks/notify\.yaml.*?)```", text, re.DOTALL)
    (tmp_path / "my_listeners.py").write_text(code)
    (tmp_path / "my_conf" / "callbacks").mkdir(parents=True)
    file = tmp_path / "my_conf" / "callbacks" / "notify.yaml"
    file.write_text(conf)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "my_listeners", raising=False)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pneumonia", "--config-dir", "my_conf", *arguments])
    return main.main()


def test_a_users_own_costs_a_class_and_a_file(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("callbacks=[default,notify]", "callbacks.notify.above=0.0")
    assert run(monkeypatch, *SMALL, *given) == 0
    said = capsys.readouterr()
    (path,) = project.glob("outputs/*/*/journal.jsonl")
    (ended,) = [e for e in journal.read(path.parent) if e["kind"] == "trial_ended"]
    assert f"trial 1: {ended['score']:.3f} with {{}}" in said.out
    assert "Scores on the test split" in said.out


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        (["callbacks.notify.abov=1"], ["`callbacks.notify.abov`", "`callbacks.notify.above`"]),
        (["callbacks.notify.above=high"], ["`callbacks.notify.above`: expected a number"]),
        (["callbacks.notify._target_=my_listeners.Nobody"], ["`callbacks.notify._target_`"]),
        (["callbacks.notify._target_=collections.OrderedDict", "~callbacks.notify.above"],
         ["`callbacks.notify._target_`: expected a class that inherits from", "SearchCallback"]),
        (["training.tensorboard=true"], ["`training.tensorboard`: expected a key",
                                         "Write callbacks=[default,tensorboard]"]),
        (["+training.tensorboard=true"], ["`training.tensorboard`: expected a key",
                                          "Write callbacks=[default,tensorboard]"]),
        (["callbacks=nothing"], ["`callbacks`: expected one of"]),
    ],
    ids=lambda value: " ".join(value),
)  # fmt: skip
def test_a_mistake_is_told_before_anything_runs(
    overrides: list[str],
    fragments: list[str],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *SMALL, "callbacks=[default,notify]", *overrides) == 2
    said = capsys.readouterr().err
    for fragment in fragments:
        assert fragment in said
    assert said.count("\n") == 1
    assert not list(project.glob("outputs/*/*"))
