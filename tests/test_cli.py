"""The command line: exit statuses, messages, and nothing left behind by a mistake."""

from __future__ import annotations

import functools
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from made import finished
from omegaconf import DictConfig, OmegaConf

from pneumonia import cli, composing, presets, space
from pneumonia.errors import DataError, UserError
from pneumonia.journal import Journal
from pneumonia.resumption import Job

ROOT = Path(__file__).parents[1]


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

    def run(self, job: Job, journal: Journal, **told: Any) -> None:
        assert told.keys() == {"settings"}
        assert (journal.path.parent, journal.count) == (job.folder, 0)
        self.jobs.append((job.cfg, job.folder))
        self.choices.append(dict(job.choices))
        if self.error:
            raise self.error


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    import pneumonia

    fake = Search()
    monkeypatch.setitem(sys.modules, "pneumonia.search", fake)
    monkeypatch.setattr(pneumonia, "search", fake, raising=False)
    # Both take seconds, and have tests of their own.
    done: Future[None] = Future()
    done.set_result(None)
    monkeypatch.setattr("pneumonia.tracking.prepare", lambda: None)
    monkeypatch.setattr("pneumonia.tracking.check", lambda settings: done)
    monkeypatch.setattr("pneumonia.startup.start", lambda: None)
    monkeypatch.setattr("pneumonia.loading.load_data", lambda config: None)
    return fake


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
    arguments: list[str], fragments: list[str], tmp_path: Path, run: Any
) -> None:
    ran = run(*arguments, folder=tmp_path)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    assert all(fragment in ran.stderr for fragment in fragments)
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick_and_names_every_option(tmp_path: Path, run: Any) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        ran = run("--help", folder=tmp_path)
        seconds.append(time.perf_counter() - start)
    assert ran.returncode == 0
    assert statistics.median(seconds) < 1
    conf = composing.find_conf()
    assert all(path.stem in ran.stdout for path in conf.glob("*/*.yaml") if "help" not in str(path))
    assert "efficientnet_lite0*" in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 100


def test_config_is_shown_without_heavy_imports(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['pneumonia', '--cfg', 'job']; from pneumonia.cli import main; "
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


def test_a_broken_experiment_file(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("a: [1\nb: 2\n")
    assert main("experiment=bad.yaml") == 2
    assert "`experiment`: expected a YAML file that can be read" in capsys.readouterr().err


def test_options_of_a_folder(main: Any, search: Search, tmp_path: Path) -> None:
    (tmp_path / "mine" / "dense").mkdir(parents=True)
    text = "_target_: pneumonia.heads.dense\nunits: 8\ndropout: 0.5\n"
    (tmp_path / "mine" / "dense" / "tiny.yaml").write_text(text)
    assert main("--config-dir", "mine", "dense=tiny") == 0
    assert search.jobs[0][0].dense.units == 8


@pytest.mark.parametrize("folder", ["mine", "my options"])
def test_the_folder_of_options_is_remembered(main: Any, search: Search, folder: str) -> None:
    Path(folder, "dense").mkdir(parents=True)
    text = "_target_: pneumonia.heads.dense\nunits: 8\ndropout: 0.5\n"
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


def test_users_mistakes_in_a_multirun_are_all_told(
    main: Any, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search.error = DataError("no such dataset")
    assert main("-m", "seed=1,2") == 2
    assert len(search.jobs) == 2
    assert capsys.readouterr().err == "no such dataset\nno such dataset\n"


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
        [override] = composing.prepare([f"{key}={name}"])
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
    assert space.collapse(cfg, space.find(cfg).start())["dataset"]["path"] == name
    assert folder == Path.cwd() / name


@pytest.mark.parametrize("name", ["3", "true", "choose(1)", "[a]"])
def test_a_path_that_looks_like_something_else_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    overrides = composing.prepare(["dataset=image_folder", f"dataset.path={name}"])
    assert composing.check(overrides)[0].dataset.path == name


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
    overrides = composing.prepare(["dataset=image_folder", f"dataset.path={value}"])
    assert [cfg.dataset.path for cfg in composing.check(overrides, multirun=True)] == paths


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
        (False, ['hydra.sweeper.params={dense.units:"64,128"}']),
        (False, ["+hydra.sweeper.params={dense.units: '64,128'}"]),
        (False, ["++hydra.sweeper.params={dense: {units: 'choice(64, 128)'}}"]),
        (False, ["hydra.sweeper.params.dense.units=64,128"]),
        (False, ["+hydra.sweeper.params.dense.units='64,128'"]),
        (False, ["hydra.sweeper.params={dense.units:'64,128'}", "hydra.sweeper.max_batch_size=1"]),
        (False, ["hydra.sweeper.params={dense.units: 3}", "dense.units=64,128"]),
        (True, ["experiment=sweep.yaml"]),
        (False, ["experiment=sweep"]),
        (True, ["hydra.sweeper.params={experiment: 'one.yaml,two.yaml'}"]),
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
        found = composing.check(composing.prepare(params), folder=".", multirun=True)
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


@pytest.mark.parametrize("name", ["e", "above", "experiment/e.yaml"])
@pytest.mark.parametrize(("text", "fragment"), OPTION_FILES)
def test_mistakes_in_a_preset(
    text: str, fragment: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiment").mkdir()
    Path("experiment/above.yaml").write_text("# @package _global_\ndefaults: [e]\n")
    Path("experiment/e.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(UserError) as caught:
        composing.check(composing.prepare([f"experiment={name}"]), folder=".")
    told = str(caught.value)
    assert fragment in told
    assert "\n" not in told
    assert "file_" not in told


@pytest.mark.parametrize("header", ["", "# @package experiment\n", "# @package _group_\n"])
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
        ("model: {_target_: pneumonia.backbones.cnn}", "`model._target_`"),
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
        (["+hydra.callbacks.x={_target_: pneumonia.multirun.Compare, a: 3}"], "takes no arguments"),
    ],
    ids=str,
)
def test_what_hydra_cannot_use_of_its_own(
    main: Any, search: Search, arguments: list[str], fragment: str, capfd: Any
) -> None:
    assert main(*arguments) == 2
    told = capfd.readouterr().err
    assert fragment in told
    assert "Traceback" not in told
    assert search.jobs == []


def test_a_callback_of_a_user(main: Any, search: Search) -> None:
    Path("own_callback_of_test.py").write_text(
        "from pathlib import Path\n"
        "from hydra.experimental.callback import Callback\n"
        "class Mine(Callback):\n"
        "    def on_run_end(self, config, **kwargs):\n"
        "        Path('called').touch()\n"
    )
    assert main("+hydra.callbacks.mine._target_=own_callback_of_test.Mine") == 0
    assert Path("called").exists()
