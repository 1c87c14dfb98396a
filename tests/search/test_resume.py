"""A search goes on only as the same one; what has changed is said, or another one is forked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from families import slow
from omegaconf import OmegaConf

from pneumonia.config import compose
from pneumonia.config.search_space import collapse, find, plain
from pneumonia.config.validate import flatten
from pneumonia.datasets.cache import load_data
from pneumonia.errors import ConfigError, ConfigErrors, UserError
from pneumonia.search import changes, resume
from pneumonia.search.resume import SearchSpec
from pneumonia.storage import journal, offset, provenance, search_folder
from pneumonia.storage.journal import NAME, Journal
from pneumonia.storage.offset import Cursor

SEARCH = (
    *("dataset=phantom", "dataset.train=40", "dataset.val=20", "dataset.test=20"),
    *("dataset.image_size=32", "model=cnn", "model.image_size=32", "tuner=random"),
    *("tuner.max_trials=4", 'dense.units="choice(8, 16)"'),
)
CHOICES = ("dataset", "augment", "model", "dense", "optimizer", "tuner", "training")


def job(*overrides: str) -> tuple[SearchSpec, list[str]]:
    """Return what a command is without a search to go on with, and its overrides."""
    prepared = compose.prepare(overrides, chosen=resume.options)
    composed = compose.compose(prepared)
    chosen = composed.hydra.runtime.choices
    choices = {str(k): str(v) for k, v in chosen.items() if v is not None}
    cfg = OmegaConf.create(plain(composed))
    return SearchSpec(cfg, Path("outputs/new"), choices), prepared


@functools.cache
def begun(*overrides: str) -> SearchSpec:
    """Return what a search of its own is; composing takes a third of a second."""
    return plan(*SEARCH, *overrides)


def plan(*overrides: str) -> SearchSpec:
    return resume.plan(*job(*overrides))


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return what begins a search in an empty project, with a trial that has ended."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str, status: str | None = None) -> Path:
        given = begun(*overrides)
        folder = tmp_path / "outputs" / "one"
        data = load_data(collapse(given.cfg, find(given.cfg).start()))
        splits = (data.train, data.val, data.test)
        rows = [{"split": s.name, "size": len(s), "digest": s.digest} for s in splits]
        with closing(resume.claim(SearchSpec(given.cfg, folder, {}), uri=None)) as one:
            one.append(
                "search_started",
                search_id="s1",
                choices={group: given.choices[group] for group in CHOICES},
                tags=provenance.provenance(),
                params=flatten(given.cfg),
                datasets=rows,
            )
            if status:
                one.append("search_ended", status=status)
        Cursor("somewhere", next=2, run_id="0").save(folder / offset.NAME)
        return folder

    return call


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the event of a journal, as if it had been so from the beginning."""
    [event] = journal.read(folder)
    change(event)
    (folder / NAME).write_bytes(journal.seal(event, journal.Place())[0])


def test_a_command_without_resume_is_what_it_is() -> None:
    given, overrides = job(*SEARCH, "training.threads=3")
    assert resume.plan(given, overrides) is given


def test_a_fork_and_more_budget_go_on_with_the_last_search_even_if_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, status in (("a", "interrupted"), ("b", "completed")):
        with closing(Journal(Path("outputs") / name)) as one:
            one.append("search_started", search_id=name)
            one.append("search_ended", status=status)
        Cursor("somewhere", next=2, run_id="0").save(Path("outputs") / name / offset.NAME)
    assert resume.find("last", []).name == "a"
    for more in ("resume.fork=true", "tuner.max_trials=9", "+tuner.hyperband_iterations=2"):
        assert resume.find("last", [more]).name == "b"


def test_a_search_keeps_its_threads_on_other_machines(
    begin: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumonia.process.processors", lambda: 5)
    begun.cache_clear()
    begin()
    begun.cache_clear()
    monkeypatch.setattr("pneumonia.process.processors", lambda: 64)
    assert plan("resume=last").cfg.training.threads == 5
    assert plan("resume=last", "training.threads=5").cfg.training.threads == 5
    told: list[Any] = []
    monkeypatch.setattr(
        changes, "load_data", lambda config: told.append("data") or load_data(config)
    )
    resume.plan(*job("resume=last"), use_threads=lambda cfg: told.append(cfg.training.threads))
    assert told == [5, "data"]
    for given, number in (("4", 4), ("null", 64)):
        with pytest.raises(UserError) as caught:
            plan("resume=last", f"training.threads={given}")
        assert f"training.threads: 5 → {number}\n" in str(caught.value)
        assert "depend on the number of threads: training.threads=5." in str(caught.value)
    kept, other = plan("resume.fork=true"), plan("resume.fork=true", "training.threads=4")
    assert (kept.cfg.training.threads, other.cfg.training.threads) == (5, 4)
    assert kept.origin is not None
    assert other.origin is not None
    assert (kept.origin.reasons, other.origin.reasons) == ((), ("training.threads: 5 → 4",))


def test_the_same_search_goes_on(begin: Callable[..., Path]) -> None:
    folder = begin()
    for name in ("last", "s1", "0"):
        found = plan(f"resume={name}")
        assert found.folder == folder or found.folder.resolve() == folder
        assert found.cfg.dense.units == "choice(8, 16)"
        assert found.choices["model"] == "cnn"
        assert (found.origin, found.more, found.is_over) == (None, {}, False)


FREE = ["tracking.experiment=other", "executor.workers=1", "features.max_gb=3", "model=cnn",
        "tuner.max_consecutive_failures=9", "callbacks=none"]  # fmt: skip


def test_what_changes_no_result_may_change(begin: Callable[..., Path]) -> None:
    begin()
    found = plan("resume=last", *FREE)
    assert found.cfg.tracking.experiment == "other"
    assert found.cfg.features.max_gb == 3
    assert found.cfg.dense.units == "choice(8, 16)"


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (['dense.units="choice(8, 32)"'], ["dense.units: choice(8, 16) → choice(8, 32)"]),
        (["dense.units=8", "model.blocks=1"], ["dense.units: choice(8, 16) → 8", "model.blocks: "]),
        (["seed=2"], ["seed: 1 → 2", "tuner.seed: 1 → 2"]),
        (["objective=val_loss"], []),
        (["objective.name=val_loss", "objective.direction=min"],
         ["objective.name: val_auc → val_loss", "objective.direction: max → min"]),
        (["tuner=grid"], ["RandomSearchOracle → keras_tuner.oracles.GridSearchOracle"]),
        (["tuner.max_trials=3"], ["tuner.max_trials: 4 → 3"]),
        (["tuner.max_epochs=3"], ["tuner.max_epochs: 20 → 3"]),
        (["dataset.train=60"], ["dataset.train: 40 → 60"]),
        (["dataset.seed=7"], ["dataset.seed: "]),
        (["training.early_stopping=null"], ["training.early_stopping.patience: 5 → (none)"]),
        (["~training.metrics.accuracy"], ["training.metrics.accuracy._target_: "]),
        (["when={dense.dropout: {dense.units: [8]}}"], ["when.dense.dropout.dense.units: (none)"]),
        (["dense.units=many"], []),
        (["+dense.nothing=3"], []),
    ],
    ids=lambda value: " ".join(value),
)  # fmt: skip
def test_a_change_is_told_and_refused(
    overrides: list[str], lines: list[str], begin: Callable[..., Path]
) -> None:
    folder = begin()
    before = (folder / NAME).read_bytes(), (folder / search_folder.CONFIG).read_bytes()
    with pytest.raises(UserError) as caught:
        plan("resume=last", *overrides)
    message = str(caught.value)
    assert all(f"\n  {line}" in message or f"{line}\n" in message for line in lines), message
    if lines:
        assert message.startswith("`resume`: expected a search that is still the same. Received:")
        assert "resume.fork=true" in message
    assert before == ((folder / NAME).read_bytes(), (folder / search_folder.CONFIG).read_bytes())


def changed_code(event: dict[str, Any]) -> None:
    event["tags"]["code"] = "0123456789ab"


def changed_plugin(event: dict[str, Any]) -> None:
    event["tags"]["code.my_plugins"] = "ab" * 6


def changed_library(event: dict[str, Any]) -> None:
    event["tags"]["version.keras"] = "3.0.0"


def changed_data(event: dict[str, Any]) -> None:
    event["datasets"][1] = {"split": "val", "size": 21, "digest": "ab" * 32}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (changed_code, "code: 0123456789ab → "),
        (changed_plugin, "code.my_plugins: abababababab → (none)"),
        (changed_library, "version.keras: 3.0.0 → 3."),
        (changed_data, "images of val: 21 with digest abababababab → 20 with digest "),
    ],
)
def test_other_code_libraries_and_data_are_told_and_refused(
    change: Callable[[dict[str, Any]], None], line: str, begin: Callable[..., Path]
) -> None:
    folder = begin()
    edit(folder, change)
    with pytest.raises(UserError) as caught:
        plan("resume=s1")
    assert f"\n  {line}" in str(caught.value)
    assert str(caught.value).count("→") == 1
    # A fork takes nothing over, and says the same.
    origin = plan("resume=s1", "resume.fork=true").origin
    assert origin is not None
    [reason] = origin.reasons
    assert reason.startswith(line)


def test_a_config_edited_by_hand_is_noticed(begin: Callable[..., Path]) -> None:
    path = begin() / search_folder.CONFIG
    path.write_text(path.read_text().replace("choice(8, 16)", "choice(8, 9)"))
    with pytest.raises(UserError, match=r"dense.units: choice\(8, 16\) → choice\(8, 9\)"):
        plan("resume=last")


def test_more_budget_is_a_legal_change(begin: Callable[..., Path]) -> None:
    folder = begin(status="completed")
    assert plan("resume=last").is_over
    assert plan("resume=s1").is_over
    found = plan("resume=last", "tuner.max_trials=6")
    assert (found.more, found.is_over) == ({"tuner.max_trials": 6}, False)
    with closing(resume.claim(found, uri=None)) as one:
        assert one.count == 3
    # From now on it has that budget, whoever goes on with it.
    again = plan("resume=last")
    assert (again.cfg.tuner.max_trials, again.more, again.is_over) == (6, {}, False)
    assert again.folder.resolve() == folder
    with pytest.raises(UserError, match=r"tuner.max_trials: 6 → 4"):
        plan("resume=last", "tuner.max_trials=4")


def test_a_search_from_before_there_was_a_key_goes_on(begin: Callable[..., Path]) -> None:
    folder = begin()
    edit(folder, lambda event: event["params"].pop("dataset.drop_duplicates"))
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("  drop_duplicates: false\n", ""))
    assert "drop_duplicates" not in plan("resume=last", "executor.workers=3").cfg.dataset
    fork = plan("resume=last", "resume.fork=true", "dense.dropout=0.2")
    assert fork.cfg.dataset.drop_duplicates is False


def test_a_completed_search_is_not_read_again(
    begin: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(status="completed")

    def fail(config: object) -> None:
        raise AssertionError("the data was loaded")

    monkeypatch.setattr(changes, "load_data", fail)
    assert plan("resume=s1").is_over
    with pytest.raises(UserError, match=r"dense\.units"):
        plan("resume=s1", "dense.units=8")


def test_a_fork_is_a_new_search_with_other_settings(begin: Callable[..., Path]) -> None:
    folder = begin(status="completed")
    for spelling in (["resume=last"], ["resume=outputs/one"], []):
        found = plan(*spelling, "resume.fork=true", "dense.units=8", "tuner=grid", "model.blocks=2")
        assert found.folder == Path("outputs/new")
        assert (found.cfg.dense.units, found.cfg.model.blocks) == (8, 2)
        assert (found.choices["tuner"], found.choices["model"]) == ("grid", "cnn")
        assert found.cfg.resume == {"search": None, "fork": False}
        assert found.origin is not None
        assert (found.origin.folder, found.origin.search_id) == (folder, "s1")
        assert found.origin.reasons == ()
    assert found.origin.decides_alike
    assert "dense.units" in found.origin.searched
    other = plan("resume.fork=true", "threshold.rule=youden").origin
    assert other is not None
    assert (other.reasons, other.decides_alike) == ((), False)
    # What is wrong with the two together is told.
    with pytest.raises(ConfigErrors, match="at least 2"):
        plan("resume.fork=true", "model.blocks=9")


def test_a_fork_has_no_other_trials_where_only_what_follows_them_changes(
    begin: Callable[..., Path],
) -> None:
    def trials(*overrides: str) -> int | None:
        origin = plan("resume=s1", "resume.fork=true", *overrides).origin
        assert origin is not None
        return origin.trials

    folder = begin(status="completed")
    for same in ((), ("winner.test=false", "tracking.log_models=none", "threshold.rule=youden")):
        assert trials(*same) == 0
    for other in ("dense.units=8", "tuner.max_trials=9", "budget.trials=4", "objective.folds=2"):
        assert trials(other) is None
    with closing(Journal(folder)) as one:
        one.append("search_ended", status="interrupted")
    assert trials() is None


def test_what_no_trial_is_valid_under(begin: Callable[..., Path]) -> None:
    begin()
    origin = plan("resume.fork=true", "seed=3", "dataset.seed=8").origin
    assert origin is not None
    assert origin.reasons[0] == "seed: 1 → 3"
    assert [line.partition(":")[0] for line in origin.reasons[1:]] == [
        "images of train", "images of val"
    ]  # fmt: skip


def test_a_search_killed_before_it_began_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = begun()
    folder = Path("outputs/one")
    resume.claim(SearchSpec(given.cfg, folder, {}), uri=None).close()
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {model: cnn}}}\n")
    found = plan("resume=last")
    assert (found.folder, found.choices, found.origin) == (folder, {"model": "cnn"}, None)
    assert found.cfg.dense.units == "choice(8, 16)"


def test_a_fork_changes_to_an_option_with_conditions_and_from_it(
    begin: Callable[..., Path],
) -> None:
    own = "when={dense.dropout: {dense.units: [8]}, optimizer.rho: {dense.units: [16]}}"
    begin(own)
    kept = {"dense.dropout": {"dense.units": [8]}}
    sgd = {"optimizer.momentum": {"optimizer.name": ["sgd"]}}
    assert plan("resume.fork=true", "optimizer=any").cfg.when == {**kept, **sgd}
    assert plan("resume.fork=true", "optimizer=adam").cfg.when == kept
    assert plan("resume.fork=true", "optimizer=any", "when=null").cfg.when is None
    other = "when={dense.dropout: {dense.units: [16]}}"
    given = {"dense.dropout": {"dense.units": [16]}}
    assert plan("resume.fork=true", "optimizer=adam", other).cfg.when == given


def test_a_fork_killed_before_it_began_still_takes_over(begin: Callable[..., Path]) -> None:
    folder = begin(status="completed")
    fork = plan("resume.fork=true", "dense.units=8")
    resume.claim(fork, uri=None).close()
    (fork.folder / ".hydra").mkdir()
    (fork.folder / ".hydra" / "hydra.yaml").write_text(
        "hydra: {runtime: {choices: {model: cnn}}}\n"
    )
    found = plan("resume=last")
    assert found.folder == fork.folder
    assert found.cfg.dense.units == 8
    assert found.origin == fork.origin
    assert found.origin is not None
    assert found.origin.folder == folder


def test_a_search_that_still_runs_is_left_alone(begin: Callable[..., Path]) -> None:
    folder = begin()
    with closing(Journal(folder)), pytest.raises(UserError, match="still runs"):
        resume.claim(plan("resume=last"), uri=None)


def test_nothing_to_go_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for overrides in (["resume=last"], ["resume=abc"], ["resume.fork=true"]):
        with pytest.raises(ConfigError, match="`resume`: expected `last`, or the id of a search"):
            plan(*overrides)


def broken(change: Callable[[str], str | bytes | None]) -> Callable[[Path], None]:
    """Return what does something to a file: gives it another text, or makes it a folder."""

    def call(path: Path) -> None:
        made = change(path.read_text()) if path.exists() else change("")
        path.unlink(missing_ok=True)
        if made is None:
            path.mkdir()
        else:
            path.write_bytes(made if isinstance(made, bytes) else made.encode())

    return call


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (broken(lambda text: ""), "It has no `"),
        (broken(lambda text: "a: [1"), "damaged. while parsing"),
        (broken(lambda text: "- 1\n"), "It is not the configuration of a search."),
        (broken(lambda text: "just text"), "It has no `"),
        (broken(lambda text: "5"), "damaged."),
        (broken(lambda text: b"\xff\xfe\0\1"), "damaged. "),
        (broken(lambda text: b"\0" * 99), "damaged. "),
        (broken(lambda text: text[: len(text) // 2].rpartition("\n")[0]), "damaged. It has no `"),
        (broken(lambda text: text.replace("tracking:", "trakcing:")), "It has no `tracking."),
        (broken(lambda text: text.replace("log_models: all", "log_models: some")),
         "`tracking.log_models`: expected all, best or none. Received: 'some'. It is in"),
        (broken(lambda text: None), "Is a directory"),
        (Path.unlink, "No such file"),
    ],
)  # fmt: skip
def test_a_damaged_configuration_is_named(
    change: Callable[[Path], None], told: str, begin: Callable[..., Path]
) -> None:
    path = begin() / search_folder.CONFIG
    change(path)
    for name in ("last", "s1"):
        with pytest.raises(UserError) as caught:
            plan(f"resume={name}")
        message = str(caught.value)
        assert told in message
        assert "outputs/one/config.yaml" in message
        assert "\n" not in message


@pytest.mark.parametrize(
    "text", ["", slow("[]"), slow("{}"), slow("null"), '{"folder": 1}', slow("\0")]
)
def test_a_damaged_note_on_a_fork_is_named(text: str, begin: Callable[..., Path]) -> None:
    begin(status="completed")
    fork = plan("resume.fork=true", "dense.units=8")
    resume.claim(fork, uri=None).close()
    (fork.folder / ".hydra").mkdir()
    (fork.folder / ".hydra" / "hydra.yaml").write_text(
        "hydra: {runtime: {choices: {model: cnn}}}\n"
    )
    (fork.folder / search_folder.FORKED).write_text(text)
    with pytest.raises(
        UserError, match=r"forked_from\.json: damaged\. The search in .*had not begun"
    ):
        plan("resume=last")


def test_a_journal_that_has_lost_its_end_is_told(
    begin: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begin()
    Cursor("somewhere", next=5, run_id="0").save(folder / offset.NAME)
    resume.claim(plan("resume=last"), uri=None).close()
    told = "warning: {}/journal.jsonl has lost its end (4 lines), which comes again.\n"
    assert capsys.readouterr().err in (told.format(folder), told.format("outputs/one"))
    (folder / NAME).write_text("")
    with pytest.raises(UserError, match=r"journal\.jsonl: damaged: it is empty, and was not\."):
        plan("resume=last")
