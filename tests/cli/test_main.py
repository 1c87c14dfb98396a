"""The command line: exit statuses, messages, and nothing left behind by a mistake."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from families import slow
from hydra.core.override_parser.overrides_parser import OverridesParser
from made import finished
from omegaconf import DictConfig, OmegaConf

from pneumonia import shell
from pneumonia.cli import common, compare, export, hydra_args, predict, report, sweep, ui, usage
from pneumonia.cli import main as cli
from pneumonia.config import compose, presets, search_space
from pneumonia.config.validate import flatten
from pneumonia.errors import DataError, UserError
from pneumonia.search.resume import SearchSpec
from pneumonia.storage import jobs, offset, provenance
from pneumonia.storage.journal import Journal
from pneumonia.storage.offset import Cursor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(spawn: Any) -> Any:
    """Return the command as a function of its arguments and a folder, in a process of its own."""
    return functools.partial(spawn, "pneumonia")


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the command as a function of its arguments, in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    # What the command leaves in a process that is its own.
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["pneumonia", *arguments])
        return cli.main()

    return call


class Search:
    """Stands for the search, which the command line only starts."""

    def __init__(self) -> None:
        self.jobs: list[tuple[DictConfig, Path]] = []
        self.choices: list[dict[str, str]] = []
        self.error: BaseException | None = None
        self.errors: dict[int, BaseException] = {}  # by the seed

    def run(self, job: SearchSpec, journal: Journal, **told: Any) -> None:
        assert told.keys() == {"callbacks", "fetch"}
        assert (journal.path.parent, journal.count) == (job.folder, 0)
        self.jobs.append((job.cfg, job.folder))
        self.choices.append(dict(job.choices))
        if error := self.errors.get(job.cfg.seed, self.error):
            raise error
        if self.errors:
            event = {"search_id": f"s{job.cfg.seed}", "tags": {}, "params": {}, "datasets": []}
            journal.append("search_started", **event)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    import pneumonia.search

    fake = Search()
    monkeypatch.setitem(sys.modules, "pneumonia.search.loop", fake)
    monkeypatch.setattr(pneumonia.search, "loop", fake, raising=False)
    # Both take seconds, and have tests of their own.
    done: Future[None] = Future()
    done.set_result(None)
    monkeypatch.setattr("pneumonia.tracking.tracker.prepare", lambda: None)
    monkeypatch.setattr("pneumonia.tracking.tracker.check", lambda settings: done)
    monkeypatch.setattr("pneumonia.startup.start", lambda: None)
    load_images(monkeypatch, lambda config: None)
    return fake


def load_images(monkeypatch: pytest.MonkeyPatch, load: Callable[[Any], None]) -> None:
    """Let the command alone load images so: a module imported meanwhile would keep the function."""
    monkeypatch.setattr("pneumonia.cli.search.cache", SimpleNamespace(load_data=load))


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["dense.unit=3"], ["`dense.unit`: expected a key", "`dense.units`"]),
        (["dense.units=many", "seed=-1"], ["`dense.units`: expected", "`seed`: expected"]),
        (["model=cn"], ["`model`: expected one of", "nearest is model=cnn"]),
        (["dense.units=choice(1,2)"], ["`dense.units`: expected a single value"]),
        (["-m", "seed=1,-1"], ["`seed`: expected", "Received: -1"]),
        (["experiment=nothing.yaml"], ["`experiment`: expected", "nothing.yaml"]),
        (["--config-dir", "nothing"], ["`--config-dir`: expected an existing folder"]),
        (["--config-name", "other"], ["`--config-name`: expected no other main config"]),
        (["--nothing"], ["`--nothing`: expected an option, see --help. Received: '--nothing'"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_ends_in_a_message_and_leaves_nothing(
    arguments: list[str],
    fragments: list[str],
    tmp_path: Path,
    main: Any,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(*arguments) == 2
    said, told = capfd.readouterr()
    assert said == ""
    assert "Traceback" not in told
    assert all(fragment in told for fragment in fragments)
    assert list(tmp_path.iterdir()) == []


CHEAP = [
    *([*name, option] for name in ([], ["predict"], ["compare"], ["report"], ["export"], ["ui"])
      for option in ("--help", "--version")),
    *(["predict", "x=1"], ["compare", "x=1"], ["report", "x=1"], ["export", "x=1"], ["ui", "x=1"]),
]  # fmt: skip
# What takes a tenth of a second to import, or more.
HEAVY = ("hydra", "keras", "mlflow", "numpy", "omegaconf", "PIL", "rich", "tensorflow", "yaml")
COMMANDS = [name for name in usage.COMMANDS if find_spec(f"pneumonia.cli.{name}")]


def test_help_names_every_option(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--help") == 0
    told = capsys.readouterr().out
    conf = compose.find_conf()
    assert all(path.stem in told for path in conf.glob("*/*.yaml") if "help" not in str(path))
    assert "efficientnet_lite0*" in told
    assert all(f"  pneumonia {name} " in told for name in usage.COMMANDS)
    assert max(map(len, told.splitlines())) <= 100


def test_help_versions_and_mistaken_commands_import_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "from pneumonia.cli.main import main\n"
        f"for line in json.loads({json.dumps(json.dumps(CHEAP))}):\n"
        "    print(line, main(line), file=sys.stderr)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.endswith("\n[]\n"), ran.stderr
    statuses = [line[-1] for line in ran.stderr.splitlines() if line.startswith("[")]
    assert statuses == ["0" if "--" in line[-1] else "2" for line in CHEAP]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_same_habits(
    name: str, main: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module(f"pneumonia.cli.{name}")
    for options in (["--help"], ["x=y", "-h"]):
        assert main(name, *options) == 0
        told = capsys.readouterr().out
        assert f"  pneumonia {name}" in told
        assert "Exit status: " in told
        assert all(f"{key}=" in told for key in module.KEYS)
        assert max(map(len, told.splitlines())) <= 100
    assert main(name, "--version") == 0
    assert capsys.readouterr().out.startswith("pneumonia ")
    key = module.KEYS[0]
    mistakes = {
        f"{key}x=1": f"`{key}x`: expected one of the keys",
        f"{key}=": f"`{key}`: expected a value. Received: '{key}='.",
        f"--{key}=1": f"Keys are written without dashes: {key}=1.",
        "--nothing": "`arguments`: expected ",
    }
    for argument, message in mistakes.items():
        assert main(name, argument) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert message in said.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["predcit", "x.png"], "predict"),
        (["Predict", "x.png"], "predict"),
        (["pred", "x.png"], "predict"),
        (["compere", "test=a,b"], "compare"),
        (["reports"], "report"),
        (["exprot"], "export"),
        (["promot", "last"], "promote"),
        (["gui"], "ui"),
    ],
)
def test_a_misspelt_command_is_told_the_nearest(
    arguments: list[str], nearest: str, main: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(*arguments) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"`{arguments[0]}`: expected a command (predict, ")
    assert said.err.endswith(f" The nearest is `{nearest}`.\n")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("pneumonia pre", "predict"),
        ("pneumonia re", "report"),
        ("pneumonia predict th", "threshold="),
        ("pneumonia predict a.png ", ""),
        ("pneumonia ui p", "port="),
        ("pneumonia predict=", None),
        ("pneumonia seed=1 pre", None),
    ],
)
def test_commands_and_their_keys_are_completed(
    line: str, told: str | None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    is_whole = usage.complete(["-sc", "query=bash"])
    assert is_whole == (told is not None and line.count(" ") > 1)
    assert capsys.readouterr().out.split() == ([told] if told else [])


@pytest.mark.parametrize("port", ["70000", "0", "-1", "a"])
def test_a_port_that_is_none(port: str, main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("ui", f"port={port}") == 2
    message = f"`port`: expected a number from 1 to 65535. Received: '{port}'.\n"
    assert capsys.readouterr().err == message


def test_it_is_one_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"pneumonia": "pneumonia.cli.main:main"}


def test_config_is_shown_without_heavy_imports(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['pneumonia', '--cfg', 'job']; "
        "from pneumonia.cli.main import main; "
        "status = main(); "
        "heavy = [m for m in ('tensorflow', 'keras', 'mlflow', 'sklearn') if m in sys.modules]; "
        "print('heavy', status, heavy)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "units: choice(128, 256, 512, 1024)" in ran.stdout
    assert ran.stdout.endswith("heavy 0 []\n")
    assert list(tmp_path.iterdir()) == []


def test_version(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--version") == 0
    assert capsys.readouterr().out.startswith("pneumonia ")


def test_options_may_stand_between_overrides(main: Any, search: Search) -> None:
    assert main("dense.units=8", "-m", "seed=1,2") == 0
    assert [(cfg.seed, cfg.dense.units) for cfg, _ in search.jobs] == [(1, 8), (2, 8)]


@pytest.mark.slow
def test_info(tmp_path: Path, run: Any) -> None:
    ran = run("--info", "defaults", "model=cnn", folder=tmp_path)
    assert ran.returncode == 0
    assert "model/cnn" in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_one_job(main: Any, search: Search, tmp_path: Path) -> None:
    assert main("dense.units=64", "seed=5") == 0
    [(cfg, folder)] = search.jobs
    assert (cfg.dense.units, cfg.seed, cfg.tuner.seed) == (64, 5, 5)
    assert "hydra" not in cfg
    assert folder.parent.parent == tmp_path / "outputs"
    assert str(os.getpid()) in folder.name
    assert (folder / ".hydra" / "config.yaml").is_file()
    assert {path.name for path in folder.iterdir()} == {".hydra", "config.yaml", "journal.jsonl"}
    assert Path.cwd() == tmp_path


def test_multirun(main: Any, search: Search) -> None:
    assert main("-m", "tuner=hyperband,random", "dense.units=choice(64,128)") == 0
    assert [(cfg.tuner._target_.split(".")[-1], cfg.dense.units) for cfg, _ in search.jobs] == [
        ("HyperbandOracle", 64),
        ("HyperbandOracle", 128),
        ("RandomSearchOracle", 64),
        ("RandomSearchOracle", 128),
    ]
    assert len({folder for _, folder in search.jobs}) == 4


def test_a_multirun_ends_with_a_page_that_compares(
    main: Any,
    search: Search,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(search, "run", lambda job, journal, **told: finished(job.folder))
    assert main("-m", "seed=1,2") == 0
    (path,) = (tmp_path / "outputs").rglob("report.html")
    assert {child.name for child in path.parent.iterdir()} >= {"0", "1", "multirun.yaml"}
    assert f"The searches compared: {path.relative_to(tmp_path)}" in capsys.readouterr().out


def test_a_quoted_range_is_one_search(main: Any, search: Search) -> None:
    assert main("-m", 'dense.units="choice(64,128)"', "seed=1,2") == 0
    assert [(cfg.seed, cfg.dense.units) for cfg, _ in search.jobs] == [
        (1, "choice(64,128)"),
        (2, "choice(64,128)"),
    ]


def test_no_job_of_a_multirun_starts_when_one_is_wrong(
    main: Any, search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("-m", "dense.units=64,many", "seed=1,-1") == 2
    assert search.jobs == []
    assert capsys.readouterr().err.count("`: expected") == 2
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_may_be_a_file(main: Any, search: Search, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name, units in (("best", 48), ("other", 96)):
        (tmp_path / "out" / f"{name}.yaml").write_text(
            "# @package _global_\n"
            "defaults: [{override /model: cnn}, {override /tuner: random}]\n"
            f"dense:\n  units: {units}\nseed: 9\n"
        )
    assert main("experiment=out/best.yaml", "dense.dropout=0.2") == 0
    assert main("-m", f"experiment={tmp_path}/out/best.yaml,out/other.yaml") == 0
    assert [cfg.dense.units for cfg, _ in search.jobs] == [48, 48, 96]
    cfg, _ = search.jobs[0]
    assert (cfg.seed, cfg.dense.dropout) == (9, 0.2)
    assert cfg.model._target_.endswith(".cnn")
    assert cfg.tuner._target_.endswith(".RandomSearchOracle")


def test_an_option_beside_a_trial_s_preset_takes_the_place_of_its_section(
    main: Any, search: Search
) -> None:
    given = ["augment=chest", "dense.units=48", "dense.dropout=0.3", "optimizer=any"]
    given += ["optimizer.name=sgd", "training.batch_size=8", "dataset.drop_duplicates=true"]
    config = search_space.plain(compose.compose(compose.prepare(given)))
    choices = {"augment": "chest", "optimizer": "any", "tuner": "random"}
    Path("best.yaml").write_text(presets.text(config, choices, epochs=1, comment="made"))
    options = ["augment=none", "optimizer=adamw", "model=cnn", "training=default"]
    options += ["dataset=phantom"]
    assert main("experiment=best.yaml", *options) == 0
    assert main("experiment=best.yaml", "augment.crop=0.1") == 0
    (one, _), (other, _) = search.jobs
    alone = search_space.plain(compose.compose(options))
    assert one.dataset.drop_duplicates
    alone["training"]["threads"] = one.training.threads
    for group in ("augment", "optimizer", "model", "training"):
        assert search_space.plain(one)[group] == alone[group]
    assert one.dense.units == other.dense.units == 48
    assert other.augment._target_.endswith("chest")
    assert other.augment.crop == 0.1


def test_a_folder_has_one_search(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("hydra.run.dir=one", "seed=2") == 0
    before = {path: path.read_bytes() for path in Path("one").rglob("*") if path.is_file()}
    assert Path("one/journal.jsonl") in before
    for more in ([], ["resume=./one", "resume.fork=true"], ["--dry-run"]):
        assert main("hydra.run.dir=one", *more) == 2
        told = capsys.readouterr().err
        assert "`hydra.run.dir`: expected a folder without a search. Received: 'one'." in told
        assert shell.resume(Path("one")) in told
    assert {path: path.read_bytes() for path in Path("one").rglob("*") if path.is_file()} == before
    assert len(search.jobs) == 1


@pytest.mark.parametrize("listed", ["one.yaml,demo", "demo,one.yaml", "choice(one.yaml, demo)"])
def test_files_and_presets_are_experiments_in_any_order(
    listed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text("# @package _global_\nseed: 9\n")
    found = compose.check(compose.prepare([f"experiment={listed}"]), multirun=True)
    assert sorted(cfg.seed for cfg in found) == [1, 9]
    with pytest.raises(UserError, match=r"For one search each: .*'experiment=[a-z.]+,[a-z.]+'"):
        compose.check(compose.prepare([f"experiment={listed}"]))


def test_a_broken_experiment_file(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("a: [1\nb: 2\n")
    assert main("experiment=bad.yaml") == 2
    assert "`experiment`: expected a YAML file that can be read" in capsys.readouterr().err


def test_options_of_a_folder(main: Any, search: Search, tmp_path: Path) -> None:
    (tmp_path / "mine" / "dense").mkdir(parents=True)
    text = "_target_: pneumonia.models.heads.dense\nunits: 8\ndropout: 0.5\n"
    (tmp_path / "mine" / "dense" / "tiny.yaml").write_text(text)
    assert main("--config-dir", "mine", "dense=tiny") == 0
    assert search.jobs[0][0].dense.units == 8


@pytest.mark.parametrize("folder", [slow("mine"), "my options"])
def test_the_folder_of_options_is_remembered(main: Any, search: Search, folder: str) -> None:
    Path(folder, "dense").mkdir(parents=True)
    text = "_target_: pneumonia.models.heads.dense\nunits: 8\ndropout: 0.5\n"
    Path(folder, "dense", "tiny.yaml").write_text(text)
    assert main("--config-dir", folder, "dense=tiny") == 0
    assert main("dense.units=8") == 0
    first, second = search.choices
    assert presets.options(first) == f"--config-dir {shlex.quote(folder)} "
    assert presets.options(second) == ""


def test_paths_need_no_quotes_of_their_own(main: Any, search: Search) -> None:
    for name in ("röntgen bilder (neu)", "it's", "a&b;c"):
        Path(name).mkdir()
        assert main("dataset=image_folder", f"dataset.path={name}") == 0
        assert search.jobs[-1][0].dataset.path == name
    pattern = r"dataset.patient_pattern=^(p\d+)_'x'"
    assert main("dataset=image_folder", "dataset.path=it's", pattern) == 0
    assert search.jobs[-1][0].dataset.patient_pattern == r"^(p\d+)_'x'"


def test_passwords_stay_out_of_what_hydra_writes(main: Any, search: Search, tmp_path: Path) -> None:
    uri = "tracking.uri=postgresql://anna:s3cret@host/mlflow"
    assert main(uri) == 0
    assert main("-m", uri, "seed=1,2") == 0
    assert [cfg.tracking.uri.count("s3cret") for cfg, _ in search.jobs] == [1, 1, 1]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} > {".hydra", "0", "1"}
    assert not [path for path in files if b"s3cret" in path.read_bytes()]


def test_a_folder_that_cannot_be_made(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs").touch()
    assert main() == 2
    assert "`hydra.run.dir`: expected a folder that can be made" in capsys.readouterr().err


def test_conditions_on_the_command_line(main: Any, search: Search) -> None:
    assert main("when={dense.dropout: {dense.units: [128]}}") == 0
    assert search.jobs[0][0].when == {"dense.dropout": {"dense.units": [128]}}


def test_a_users_mistake_in_a_job(
    main: Any, search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search.error = DataError("no such dataset")
    assert main() == 2
    assert capsys.readouterr().err == "no such dataset\n"
    assert list((tmp_path / "outputs").iterdir()) == []


def test_what_fails_in_a_multirun_is_told_at_once_and_at_the_end(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search.errors = {2: DataError("no such\ndataset")}
    assert main("-m", "seed=1,2,3", "dense.units=64") == 2
    assert len(search.jobs) == 3
    name = "job 1 (seed=2 dense.units=64)"
    told = f"{name} failed: no such\ndataset\n1 of 3 failed:\n  {name}: no such\n"
    [page] = Path("outputs").glob("*/*/report.html")
    again = f"To run them again: pneumonia resume={page.parent}\n"
    assert capsys.readouterr().err == told + again
    text = page.read_text()
    assert "Failed: 1" in text
    assert name in text
    assert [path.name for path in sorted(page.parent.iterdir()) if path.is_dir()] == ["0", "2"]
    assert main("seed=1") == 0


def test_where_all_fail_each_is_told(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search.errors = {seed: DataError(f"no dataset {seed}") for seed in (1, 2)}
    assert main("-m", "seed=1,2") == 2
    assert capsys.readouterr().err.splitlines()[:-1] == [
        "job 0 (seed=1) failed: no dataset 1",
        "job 1 (seed=2) failed: no dataset 2",
        "2 of 2 failed:",
        "  job 0 (seed=1): no dataset 1",
        "  job 1 (seed=2): no dataset 2",
    ]
    assert not list(Path("outputs").glob("*/*/report.html"))


@pytest.mark.parametrize("fault", [ZeroDivisionError("a fault"), slow(SystemExit("a fault"))])
def test_a_fault_in_a_multirun_keeps_its_traceback_and_the_others_go_on(
    fault: BaseException, main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search.errors = {1: fault, 2: DataError("no such dataset")}
    assert main("-m", "seed=1,2,3") == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):")
    assert f"job 0 (seed=1) failed: {type(fault).__name__}: a fault\n" in told
    assert "  job 1 (seed=2): no such dataset\n" in told
    assert len(search.jobs) == 3
    # Another page of the same folder tells it, too.
    [page] = Path("outputs").glob("*/*/report.html")
    page.unlink()
    assert report.main([str(page.parent)]) == 0
    assert f"{type(fault).__name__}: a fault" in page.read_text()


def test_an_interrupt_ends_a_multirun(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search.errors = {2: KeyboardInterrupt()}
    assert main("-m", "seed=1,2,3") == 130
    assert len(search.jobs) == 2
    told = capsys.readouterr().err
    assert told.startswith("Interrupted. 1 of 3 jobs have come to their end. To go on: pneumonia r")


def test_a_sweep_goes_on_where_it_was(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search.errors = {2: KeyboardInterrupt()}
    assert main("-m", "seed=1,2,3", "dense.units=64") == 130
    command = capsys.readouterr().err.partition("To go on: ")[2]
    search.errors = {}
    _, given = shlex.split(command)
    # What is asked for again may stand beside it, and what changes no result.
    assert main("-m", given, "seed=1,2,3", "executor.workers=2") == 2
    told = capsys.readouterr().err
    assert told.startswith("job 0 (")  # of which this search kept nothing that could be compared
    assert "of which this has changed" in told
    again = search.jobs[2:]
    assert [(cfg.seed, folder.name) for cfg, folder in again] == [(2, "1"), (3, "2")]
    assert {folder.parent for _, folder in search.jobs} == {again[0][1].parent}
    assert all(cfg.executor.workers == 2 for cfg, _ in again)
    assert main("-m", "resume=last") == 2


def test_a_fork_that_has_begun_goes_on_as_itself(tmp_path: Path) -> None:
    cfg = compose.compose(["resume.search=a1", "resume.fork=true"])
    assert sweep.going_on(cfg, tmp_path).resume == {"search": "a1", "fork": True}
    (tmp_path / "journal.jsonl").touch()
    assert sweep.going_on(cfg, tmp_path).resume == {"search": str(tmp_path), "fork": False}


@pytest.mark.slow
@pytest.mark.parametrize("given", [["resume=a1"], []], ids=["an id", "the last one"])
def test_a_sweep_of_forks_goes_on_as_the_same_forks(
    main: Any, search: Search, monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    ran: list[tuple[int, str]] = []

    def run(spec: SearchSpec, own: Journal, **told: Any) -> None:
        search_id = f"a{spec.cfg.seed}"
        ran.append((spec.cfg.seed, spec.origin.search_id if spec.origin else ""))
        if ran == [(1, ""), (2, "a1"), (3, "a1")]:
            raise KeyboardInterrupt
        params = {"objective.name": "val_auc", **flatten(spec.cfg)}
        start = {"tags": provenance.deciding(), "choices": spec.choices, "datasets": []}
        own.append("search_started", search_id=search_id, params=params, **start)
        own.append("search_ended", status="completed", metrics={}, winner=None)
        Cursor("somewhere", next=2, run_id="0").save(spec.folder / offset.NAME)

    monkeypatch.setattr(search, "run", run)
    assert main("dataset=phantom", "dataset.train=40", "model=cnn", "seed=1") == 0
    assert main("-m", *given, "resume.fork=true", "model.blocks=2", "seed=2,3,4") == 130
    assert main("-m", "resume=last") == 0
    assert ran[3:] == [(3, "a1"), (4, "a1")]
    assert main("-m", "resume=last") == 0
    assert len(ran) == 5


def test_threads_are_said_once_before_images_are_read(
    main: Any, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("pneumonia.startup.use_threads", lambda *a, **k: told.append((a, k)))
    load_images(monkeypatch, lambda config: told.append("images"))
    assert main("executor.workers=2", "training.threads=3") == 0
    assert main("resume=last", "executor.workers=4") == 0
    assert told == [((3,), {"trials": 2}), "images", ((3,), {"trials": 4}), "images"]


@pytest.mark.slow
def test_a_sweep_is_over_where_none_has_failed(main: Any, search: Search) -> None:
    assert main("-m", "seed=1,2", "hydra.sweep.dir=outputs/first") == 0
    search.error = DataError("no such dataset")
    assert main("-m", "seed=3,4", "hydra.sweep.dir=outputs/second") == 2
    search.error = None
    assert main("-m", "seed=5,6", "hydra.sweep.dir=outputs/third") == 0
    assert main("-m", "resume=last") == 0
    assert [folder.parent.name for _, folder in search.jobs[-2:]] == ["second", "second"]
    assert main("-m", "resume=last") == 0
    assert [folder.parent.name for _, folder in search.jobs[-2:]] == ["third", "third"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["seed=1,2,4"], "was asked for, seed=1,2,3. Received: 'seed=1,2,4'. Beside it may stand"),
        (["dense.units=3"], "was asked for, nothing. Received: 'dense.units=3'"),
        slow(["resume.fork=true"], "was asked for, nothing. Received: 'resume.fork=true'"),
        slow(["--config-dir", "."], "was asked for, nothing. Received: '--config-dir'"),
        slow(["executor.in_order=false"], "was asked for, nothing. Received: 'executor.in_orde"),
    ],
)
def test_another_sweep_is_none_to_go_on_with(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    assert main("-m", "seed=1,2,3", "hydra.sweep.dir=mine") == 0
    assert main("resume=mine", *given) == 2
    error = capsys.readouterr().err
    assert error.startswith("`resume`: expected what the sweep in mine was asked for")
    assert told in error
    assert len(search.jobs) == 3


@pytest.mark.slow
def test_a_sweep_whose_preset_has_changed(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text("dense: {units: 64}\ntracking: {experiment: one}\n")
    assert main("-m", "experiment=mine.yaml", "seed=1,2", "hydra.sweep.dir=mine") == 0
    Path("mine.yaml").write_text("dense: {units: 128}\ntracking: {experiment: two}\n")
    assert main("resume=mine") == 2
    told = "of which this has changed:\n  dense.units: 64 → 128\n"
    assert capsys.readouterr().err.endswith(told)
    assert len(search.jobs) == 2


@pytest.mark.slow
def test_a_sweep_keeps_the_names_of_its_folders(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    named = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    assert main("-m", "seed=1,2", named, "hydra.sweep.dir=mine") == 0
    assert main("resume=mine", "executor.workers=2") == 2
    told = "  hydra.sweep.subdir: seed=1 → executor.workers=2,seed=1\n"
    assert told in capsys.readouterr().err
    assert main("resume=mine") == 0
    assert [folder.name for _, folder in search.jobs] == 2 * ["seed=1", "seed=2"]


def test_a_folder_has_one_sweep_and_one_process_that_runs_it(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("-m", "resume=last") == 2
    assert "`resume`: expected a sweep under outputs, with -m" in capsys.readouterr().err
    assert main("-m", "seed=1,2", "hydra.sweep.dir=./mine") == 0
    assert main("-m", "seed=1,2", "hydra.sweep.dir=mine") == 2
    assert "To go on with that one: pneumonia resume=./mine" in capsys.readouterr().err
    with jobs.claim(Path("mine")):
        assert main("resume=mine") == 2
    assert "The sweep in mine still runs, in another process." in capsys.readouterr().err
    Path("mine/sweep.json").write_text('{"jobs": 3}')
    assert main("resume=mine") == 2
    assert "mine/sweep.json: damaged." in capsys.readouterr().err
    assert len(search.jobs) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["hydra.launcher.n_jobs=8"], ["hydra.launcher.n_jobs=3"]),
        (["hydra.launcher.n_jobs=2"], []),
        (["hydra.launcher.n_jobs=-1"], ["hydra.launcher.n_jobs=3"]),
    ],
)
def test_no_process_is_launched_without_a_job(
    given: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    configs = compose.check(["hydra/launcher=joblib", *given, "seed=1,2,3"], multirun=True)
    found = sweep.overrides(Path("a,b"), configs)
    assert found == ['hydra.sweep.dir="a,b"', *expected]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_sweep_may_have(
    main: Any, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(f"resume={name}") == 2
    assert capsys.readouterr().err.startswith("`resume")


@pytest.mark.slow
def test_a_launcher_that_is_not_installed(tmp_path: Path) -> None:
    code = "import sys; sys.modules['hydra_plugins.hydra_joblib_launcher'] = None\n"
    code += "from pneumonia.cli import main; sys.exit(main.main())"
    ran = subprocess.run(
        [sys.executable, "-c", code, "-m", "seed=1,2", "hydra/launcher=processes"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.endswith("It comes with pip install 'pneumonia[joblib]'.\n")
    assert ran.stderr.startswith("`hydra/launcher`: expected one of basic, ")
    assert not list(tmp_path.iterdir())


SWEEPER = """
from dataclasses import dataclass, field
from pathlib import Path
from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.core.plugins import Plugins

class Own(Sweeper):
    def __init__(self, trials=3, more=()):
        self.trials, self.more = trials, more
    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)
    def sweep(self, arguments):
        kept = [one for one in arguments if not one.startswith("dense.dropout=")]
        for number in range(self.trials):
            job = [*kept, f"dense.dropout={(number + 1) / 10}", *self.more]
            [result] = self.launcher.launch([job], initial_job_idx=number)
            print("told", float(result.return_value), flush=True)

@dataclass
class Conf:
    _target_: str = "hydra_plugins.hydra_own_sweeper.own.Own"
    trials: int = 3
    more: list[str] = field(default_factory=list)

ConfigStore.instance().store(group="hydra/sweeper", name="own", node=Conf, provider="own")
"""
# The command line with a search that knows its score at once: the strength of the dropout.
QUICK = """
import sys, types
from concurrent.futures import Future
import pneumonia
import pneumonia.errors, pneumonia.search
from importlib import import_module
from importlib.util import find_spec
import pneumonia.search
from pneumonia import startup
from pneumonia.cli import main as cli
from pneumonia.tracking import tracker as tracking
from pneumonia.datasets import cache as loading
def run(job, journal, **told):
    dropout = job.cfg.dense.dropout
    if dropout == 0.2:
        raise pneumonia.errors.UserError("no trial came to a score")
    start = {"search_id": "s1", "name": "quick", "tags": {}, "datasets": [], "direction": "max"}
    journal.append("search_started", **start, params={"objective.name": "val_auc"})
    journal.append("search_ended", status="completed", metrics={"val_auc": dropout}, winner=None)
pneumonia.search.loop = sys.modules["pneumonia.search.loop"] = types.SimpleNamespace(run=run)
def show(spec):
    print("nothing was run or written")
cli_plan = sys.modules["pneumonia.cli.plan"] = types.SimpleNamespace(show=show)
pneumonia.cli.plan = cli_plan
done = Future()
done.set_result(None)
tracking.prepare, tracking.check = lambda: None, lambda settings: done
startup.start, loading.load_data = lambda: None, lambda config: None
sys.exit(cli.main())
"""


@pytest.fixture
def quick(tmp_path: Path) -> Any:
    """Return the command in a process of its own, with another sweeper to choose."""
    plugin = tmp_path / "plugins" / "hydra_plugins" / "hydra_own_sweeper"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    (plugin / "own.py").write_text(SWEEPER)
    (tmp_path / "here").mkdir()
    code = f"import sys; sys.argv[0] = 'pneumonia'\n{QUICK}"

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path / "here",
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path / 'plugins'}"},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


OWN = ("-m", "hydra/sweeper=own", "dense.dropout=interval(0.1,0.4)", "dense.units=64", "seed=3,4")


@pytest.mark.slow
def test_a_sweeper_is_told_the_objective_of_each_search(quick: Any) -> None:
    ran = quick(*OWN[:-1])
    assert ran.returncode == 2, ran.stderr
    told = [line for line in ran.stdout.splitlines() if line.startswith("told")]
    assert told == ["told 0.1", "told nan", "told 0.3"]
    failed = "job 1 (dense.units=64 dense.dropout=0.2)"
    assert ran.stderr.startswith(f"{failed} failed: no trial came to a score\n1 of 3 failed:\n")


@pytest.mark.parametrize("plan", ["--dry-run", slow("plan=true")])
def test_a_plan_runs_nothing_whatever_the_sweeper(quick: Any, tmp_path: Path, plan: str) -> None:
    ran = quick(*OWN, "dataset=phantom", "model=cnn", "tuner=random", plan)
    assert ran.returncode == 0, ran.stderr
    assert "told" not in ran.stdout
    assert "nothing was run or written" in ran.stdout
    assert "each search that the sweeper asks for is like this one" in ran.stdout
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.slow
def test_a_plan_that_a_sweeper_asks_for_by_itself_runs_nothing(quick: Any) -> None:
    ran = quick(*OWN[:-1], "hydra.sweeper.trials=1", 'hydra.sweeper.more=["plan=true"]')
    assert ran.returncode == 2
    assert "failed: `plan`: expected false, for a job that a sweeper asks for" in ran.stderr
    assert "told nan" in ran.stdout


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("dense.unit=choice(8,16)", "`dense.unit`: expected a key of the config. Received: "),
        slow("dense.dropout=interval(1.5,2)", "`dense.dropout`: expected"),
    ],
)
def test_what_a_sweeper_starts_from_is_checked(
    quick: Any, tmp_path: Path, mistake: str, told: str
) -> None:
    ran = quick("-m", "hydra/sweeper=own", mistake)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(told)
    assert list((tmp_path / "here").iterdir()) == []


def test_a_fault_keeps_its_traceback(main: Any, search: Search) -> None:
    search.error = ZeroDivisionError("a fault")
    with pytest.raises(ZeroDivisionError, match="a fault"):
        main()


def test_an_interrupt(main: Any, search: Search, capsys: pytest.CaptureFixture[str]) -> None:
    search.error = KeyboardInterrupt()
    assert main() == 130
    assert capsys.readouterr().err == "Interrupted. To go on: pneumonia resume=last\n"
    search.error = KeyboardInterrupt("Said already.")
    assert main() == 130
    assert capsys.readouterr().err == "Said already.\n"


def test_completion_script(main: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert main("-sc", "install=bash") == 0
    assert "pneumonia" in capfd.readouterr().out


def test_the_current_folder_can_be_imported(main: Any, search: Search, tmp_path: Path) -> None:
    (tmp_path / "own_of_test.py").write_text("def head(input_shape, *, units: int): ...\n")
    arguments = ["dense._target_=own_of_test.head", "~dense.dropout", "~dense.activation"]
    assert main(*arguments, "dense.units=3") == 0
    assert search.jobs[0][0].dense.units == 3


def test_a_current_folder_that_was_removed_is_one_message(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    smaller = (predict.main, compare.main, report.main, export.main, ui.main)
    commands = [
        functools.partial(main, *given) for given in ([], ["resume=last"], ["-m", "seed=1,2"])
    ]
    commands += [functools.partial(one, []) for one in (compare.main, export.main, ui.main)]
    for command in commands:
        assert command() == 2
        assert capsys.readouterr().err == "The current folder was removed: go to another one.\n"
    for one in smaller[:3:2]:
        assert one(["x"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


STREAMS = """
for options in --help "--info defaults"; do
  {python} -m pneumonia $options | true
done
{python} -m pneumonia --cfg job >&- || echo "status $?" >&2
{python} -m pneumonia --cfg job | head -1
"""


@pytest.mark.slow
def test_streams_that_nobody_reads_are_no_fault(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["bash", "-c", STREAMS.format(python=shlex.quote(sys.executable))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""
    assert ran.stdout == "seed: 1\n"


@pytest.mark.parametrize("name", [slow("mine"), "it's mine/a,b", slow("a=b/(c)"), slow("ä/1e3")])
def test_a_search_elsewhere_goes_on_by_its_folder(
    name: str, main: Any, search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / name
    search.error = KeyboardInterrupt()
    quoted = str(where).replace("'", r"\'")
    assert main(f"hydra.run.dir='{quoted}'", "dense.units=24") == 130
    told = capsys.readouterr().err.rpartition(": ")[2]
    command = shlex.split(told)
    assert command == ["pneumonia", f"resume={name if '/' in name else './' + name}"]
    search.error = None
    assert main(*command[1:]) == 0, capsys.readouterr().err
    assert search.jobs[-1][0].dense.units == 24
    assert search.jobs[-1][1].resolve() == where


PLACES = {"<date>/<time>": "day/time", "IMAGE...": "x.png", "path/to/folder": ".", "my_conf": "."}


def documented() -> list[str]:
    """Return every command that README, help texts and presets tell, as it is told there."""
    helps = [usage.text(), *(one._HELP for one in (compare, predict, report, export))]
    presets = [path.read_text() for path in (ROOT / "conf").rglob("*.yaml")]
    lines = "\n".join([(ROOT / "README.md").read_text(), *helps, *presets]).splitlines()
    found = [re.sub(r"^(# *|\$)? *", "", line) for line in lines]
    told = {re.split(r"  | #| [|>] ", line)[0].strip() for line in found}
    forms = [line for line in told if "[" in line or "FOLDER..." in line]
    told -= {*forms, "pneumonia dense.unit=3"}  # which shows a mistake
    return sorted(line for line in told if re.match(r"pneumonia [^=]*[=/.-]", line))


@pytest.mark.parametrize("line", documented())
def test_every_command_that_is_documented_is_sound(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, given in PLACES.items():
        line = line.replace(place, given)
    for name in ("outputs/day/time/best.yaml", "seven.yaml"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("# @package _global_\nseed: 2\n")
    Path("dataset").mkdir()
    Path("model").mkdir()
    Path("model/mine.yaml").write_text("defaults: [cnn]\n")
    Path("dataset/mine.yaml").write_text("_target_: pneumonia.datasets.chest_phantom.phantom\n")
    for name in ("pneumoniamnist.npz", "pneumoniamnist_224.npz"):
        np.savez(name, train_images=np.zeros(1))
    Path("x.png").touch()
    _, *arguments = shlex.split(line)
    if arguments[0] in usage.COMMANDS:
        common.split(arguments[1:], import_module(f"pneumonia.cli.{arguments[0]}").KEYS)
        if arguments[0] == "compare":
            compare.parse(arguments[1:])
        return
    args = hydra_args.parse(["plan=true" if one == "--dry-run" else one for one in arguments])
    if not args.shell_completion:
        prepared = compose.prepare(args.overrides)
        compose.check(prepared, folder=args.config_dir, multirun=args.multirun)


# What a file system allows and Hydra's grammar, OmegaConf or a shell gives a meaning.
CHARACTERS = [
    *"!\"#$%&'()*+,-.:;<=>?@[]^_`{|}~",
    " ",
    "\\",
    "ä",
    "日",
    "\t",
    ", ",
    "$(",
    "==",
]


@pytest.mark.parametrize(
    "place", ["a{}b", "{}a", "a{}", "d{}x/y"], ids=["in", "at", "end", "above"]
)
@pytest.mark.parametrize("key", ["dataset.path", "+tracking.artifacts", "model.weights"])
def test_a_path_that_exists_is_taken_as_it_is(
    key: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (place.format(character) for character in CHARACTERS):
        Path(name).mkdir(parents=True)
        [override] = compose.prepare([f"{key}={name}"])
        value = OverridesParser.create().parse_override(override).value()
        assert OmegaConf.create({"path": value}).path == name


def test_a_path_with_an_interpolation_in_it_is_refused(main: Any, capsys: Any) -> None:
    Path("a${seed}").mkdir()
    assert main("dataset=image_folder", "dataset.path=a${seed}") == 2
    assert "`dataset.path`: expected a path without ${" in capsys.readouterr().err


def test_a_path_with_all_characters_is_searched_in(main: Any, search: Search) -> None:
    name = f"a{''.join(CHARACTERS)}b"
    Path(name).mkdir()
    assert main("dataset=image_folder", f"dataset.path={name}", f"hydra.run.dir={name}") == 0
    cfg, folder = search.jobs[0]
    assert search_space.collapse(cfg, search_space.find(cfg).start())["dataset"]["path"] == name
    assert folder == Path.cwd() / name


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_a_folder_of_hydra_may_be_in_the_home(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/her, own")
    [cfg] = compose.check(compose.prepare([f"{key}=~/runs/${{seed}}"]))
    assert OmegaConf.select(cfg, key) == "/home/her, own/runs/1"


@pytest.mark.parametrize("name", ["3", "true", "choose(1)", "[a]"])
def test_a_path_that_looks_like_something_else_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    overrides = compose.prepare(["dataset=image_folder", f"dataset.path={name}"])
    assert compose.check(overrides)[0].dataset.path == name


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("a,b", ["a", "b"]),
        ("c,d", ["c,d"]),
        ('"c,d",a', ["c,d", "a"]),
        ("choice(a, b)", ["a", "b"]),
    ],
)
def test_a_sweep_over_paths_stays_one(
    value: str, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c,d"):
        Path(name).mkdir()
    overrides = compose.prepare(["dataset=image_folder", f"dataset.path={value}"])
    assert [cfg.dataset.path for cfg in compose.check(overrides, multirun=True)] == paths


def in_shell(typed: str) -> list[str]:
    """Return the arguments that a shell makes of what is typed."""
    command = f"printf '%s\\0' {typed}"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return ran.stdout.split("\0")[:-1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("features.folder", "d/x,y"),
        ("features.folder", "it's, a"),
        ("tracking.experiment", 'say "x", y'),
        ("tracking.experiment", "a,b\\"),
        ("hydra.run.dir", "(a),b"),
        ("hydra.run.dir", "a,b"),
    ],
)
def test_the_hint_for_a_comma_works_in_a_shell(
    main: Any, search: Search, key: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"{key}={value}") in (0, 2)
    if told := capsys.readouterr().err:  # else it was taken as it is
        hint = re.search(r"(?:With commas in it:|Write) (.*?)(?:; one search|\.$)", told.strip())
        assert hint is not None, told
        assert main(*in_shell(hint[1])) == 0
    cfg, folder = search.jobs[-1]
    received = folder if key == "hydra.run.dir" else OmegaConf.select(cfg, key)
    assert str(received).removeprefix(f"{Path.cwd()}/") == value


def test_the_hint_at_a_path_in_the_place_of_a_dataset_works_in_a_shell(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my images (new)").mkdir()
    assert main("dataset=my images (new)") == 2
    assert main("dataset=./my images, new/x.npz") == 2
    Path("it's/x").mkdir(parents=True)
    assert main("dataset=it's/x") == 2
    hints = re.findall(r"A path is given by (.*)\.$", capsys.readouterr().err, re.MULTILINE)
    assert main(*in_shell(hints[-1])) == 0
    assert search.jobs[-1][0].dataset.path == "it's/x"


@pytest.mark.parametrize(
    ("is_run", "params"),
    [
        (True, ["hydra.sweeper.params={dense.units:'64,128'}"]),
        slow(False, ['hydra.sweeper.params={dense.units:"64,128"}']),
        slow(False, ["+hydra.sweeper.params={dense.units: '64,128'}"]),
        (False, ["++hydra.sweeper.params={dense: {units: 'choice(64, 128)'}}"]),
        slow(False, ["hydra.sweeper.params.dense.units=64,128"]),
        slow(False, ["+hydra.sweeper.params.dense.units='64,128'"]),
        slow(
            False, ["hydra.sweeper.params={dense.units:'64,128'}", "hydra.sweeper.max_batch_size=1"]
        ),
        (False, ["hydra.sweeper.params={dense.units: 3}", "dense.units=64,128"]),
        (True, ["experiment=sweep.yaml"]),
        slow(False, ["experiment=sweep"]),
        slow(True, ["hydra.sweeper.params={experiment: 'one.yaml,two.yaml'}"]),
    ],
    ids=lambda value: str(value),
)
def test_params_of_the_sweeper(main: Any, search: Search, is_run: bool, params: list[str]) -> None:
    Path("experiment").mkdir()
    text = "# @package _global_\nhydra: {sweeper: {params: {dense.units: '64,128'}}}\n"
    Path("sweep.yaml").write_text(text)
    Path("experiment/sweep.yaml").write_text(text)
    Path("one.yaml").write_text("dense: {units: 64}\n")
    Path("two.yaml").write_text("dense: {units: 128}\n")
    if is_run:
        assert main("-m", *params) == 0
        found = [cfg for cfg, _ in search.jobs]
    else:
        found = compose.check(compose.prepare(params), folder=".", multirun=True)
    assert [cfg.dense.units for cfg in found] == [64, 128]


@pytest.mark.parametrize("how", [["hydra.mode=MULTIRUN", "seed=1,2"], ["experiment=both.yaml"]])
def test_a_multirun_without_its_option(main: Any, search: Search, how: list[str]) -> None:
    Path("both.yaml").write_text("hydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2'}}}\n")
    assert main(*how) == 0
    assert [cfg.seed for cfg, _ in search.jobs] == [1, 2]


def test_folders_of_a_multirun(main: Any, search: Search, tmp_path: Path) -> None:
    dirname = "hydra.sweep.subdir=s-${hydra.job.override_dirname}"
    assert main("-m", "hydra.sweep.dir=mine", dirname, "seed=1,2") == 0
    assert main("-m", "hydra.sweep.dir=other", "hydra.sweep.subdir=n${seed}", "seed=1,2") == 0
    names = [str(folder.relative_to(tmp_path)) for _, folder in search.jobs]
    assert names == ["mine/s-seed=1", "mine/s-seed=2", "other/n1", "other/n2"]


def test_relative_paths_count_from_where_the_command_is_typed(
    main: Any, search: Search, tmp_path: Path
) -> None:
    Path("data").mkdir()
    Path("preset.yaml").write_text("dataset: {path: data}\n")
    assert main("dataset=image_folder", "experiment=preset.yaml", "hydra.run.dir=results/x") == 0
    cfg, folder = search.jobs[0]
    assert (cfg.dataset.path, folder) == ("data", tmp_path / "results" / "x")
    assert Path.cwd() == tmp_path


# Files of a user that are chosen as options, and what the message has to say of them.
OPTION_FILES = [
    ("defaults: [{model: cnn}]", "Write `- override /model: cnn`"),
    ("defaults: [{/model: cnn}]", "Write `- override /model: cnn`"),
    ("defaults: [{override model: cnn}]", "Write `- override /model: cnn`"),
    ("defaults: [{overide /model: cnn}]", "Write `- override /model: cnn`"),
    ("defaults: [{optional model: cnn}]", "Write `- override /model: cnn`"),
    ("defaults: [{override /modle: cnn}]", "Write `- override /model: cnn`"),
    ("defaults: [{override: {model: cnn}}]", "Write `- override /model: cnn`"),
    ("defaults: {model: cnn}", "Write `- override /model: cnn`"),
    ("defaults: ['override /model:cnn']", "Write `- override /model: cnn`"),
    ("defaults: ['model=cnn']", "Write `- override /model: cnn`"),
    ("defaults: [cnn]", "Write `- override /model: cnn`"),
    ("defaults: [/model/cnn]", "Write `- override /model: cnn`"),
    ("defaults: [{experiment: quick}]", "Write `- quick`"),
    ("defaults: [quik]", "Write `- quick`"),
    ("defaults: [{override /model: cn}]", "Received: 'cn'. The nearest is cnn"),
    ("defaults: [{override /model: null}]", "expected for model one of cnn, "),
    ("defaults: [{override /model: [cnn, x]}]", "Received: 'x'"),
    ("defaults: [{override /model@head: cnn}]", "expected a config group"),
    ("defaults: [{override /hydra/launcher: ray}]", "for hydra/launcher one of basic"),
    ("defaults: [{override /model: cnn}, {override /model: cnn}]", "expected every entry once"),
    ("defaults: [_self_, _self_]", "expected every entry once"),
    ("defaults: [[1]]", "expected one `group: option` in every entry"),
    ("defaults: 3", "expected a list, in the defaults of"),
    ("experiment: {dense: {units: 3}}", "The keys of a preset stand at the top of its file"),
    ("model: cnn", "`model`: expected a mapping of keys. Received: 'cnn'"),
    ("dense: {unts: 3}", "`dense.unts`"),
]


WAYS = ("e", "above", "experiment/e.yaml")  # to the same file


@pytest.mark.parametrize(
    ("text", "fragment", "name"),
    [
        case if number % 3 == way else slow(*case)
        for number, (text, fragment) in enumerate(OPTION_FILES)
        for way, case in enumerate((text, fragment, name) for name in WAYS)
    ],
)
def test_mistakes_in_a_preset(
    text: str, fragment: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiment").mkdir()
    Path("experiment/above.yaml").write_text("# @package _global_\ndefaults: [e]\n")
    Path("experiment/e.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(UserError) as caught:
        compose.check(compose.prepare([f"experiment={name}"]), folder=".")
    told = str(caught.value)
    assert fragment in told
    assert "\n" not in told
    assert "file_" not in told


@pytest.mark.parametrize(
    "header", ["", slow("# @package experiment\n"), slow("# @package _group_\n")]
)
def test_the_header_of_a_preset(
    main: Any, search: Search, header: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("experiment").mkdir()
    text = f"{header}defaults: [{{override /model: cnn}}]\ndense: {{units: 3}}\n"
    Path("experiment/e.yaml").write_text(text)
    assert main("--config-dir", ".", "experiment=e") == 2
    assert "expected the line `# @package _global_` above all others" in capsys.readouterr().err
    assert main("experiment=experiment/e.yaml") == 0
    assert search.jobs[0][0].dense.units == 3


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("defaults: [cn]", "Received: 'cn'. Write `- cnn`"),
        (
            "defaults: [{inception_v3: x}]",
            "expected a config group, in the defaults of model/m.yaml",
        ),
        ("# @package _global_\n_target_: a.b", "without the line `# @package _global_`"),
        ("- 1", "`model`: expected a mapping of keys. Received: [1]"),
        ("a: [", "m.yaml"),
        ("", "`model._target_`"),
        ("model: {_target_: pneumonia.models.backbones.cnn}", "`model._target_`"),
    ],
)
def test_mistakes_in_an_option_of_another_group(
    main: Any, text: str, fragment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model").mkdir()
    Path("model/m.yaml").write_text(text)
    assert main("--config-dir", ".", "model=m") == 2
    told = capsys.readouterr().err
    assert fragment in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["hydra.job.env_copy=[NO_SUCH_THING]"], "NO_SUCH_THING"),
        (["hydra.verbose=3"], "`hydra`: expected what Hydra can use. Received: "),
        (["-m", "+hydra.launcher.n_jobs=2", "seed=1,2"], "`hydra.launcher`: expected what Hydra"),
        (["-m", "hydra.launcher._target_=os.system", "seed=1,2"], "Invalid plugin 'os.system'"),
        (
            ["+hydra.callbacks.x={_target_: hydra.experimental.callback.Callback, a: 3}"],
            "takes no arguments",
        ),
    ],
    ids=str,
)
def test_what_hydra_cannot_use_of_its_own(
    main: Any, search: Search, arguments: list[str], fragment: str, capfd: Any
) -> None:
    assert main(*arguments) == 2
    assert not list(Path().glob("outputs/*/*/sweep.json"))
    told = capfd.readouterr().err
    assert fragment in told
    assert "Traceback" not in told
    assert search.jobs == []


def test_a_callback_of_a_user(main: Any, search: Search) -> None:
    Path("a_callback_of_a_user.py").write_text(
        "from pathlib import Path\n"
        "from hydra.experimental.callback import Callback\n"
        "class Mine(Callback):\n"
        "    def on_run_end(self, config, **kwargs):\n"
        "        Path('called').touch()\n"
    )
    assert main("+hydra.callbacks.mine._target_=a_callback_of_a_user.Mine") == 0
    assert Path("called").exists()
