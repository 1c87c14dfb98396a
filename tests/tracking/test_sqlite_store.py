"""SQLite stores of MLflow: killed while they are built, moved, copied, in folders of any name."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from families import quick, slow
from test_tracker import (
    CLASSIFIER,
    assert_whole,
    edit_journal,
    folder,
    journal,
    killed,
    rows,
    settings,
    track,
    write_search,
)

from pneumonia import shell
from pneumonia.cli import main
from pneumonia.config.schema import URI
from pneumonia.errors import ConfigError
from pneumonia.tracking import sqlite_store
from pneumonia.tracking.mlflow_store import Store, make_ready
from pneumonia.tracking.model_lookup import find_model
from pneumonia.tracking.runs import Runs
from pneumonia.tracking.settings import TrackingSettings, prepare_environment
from pneumonia.tracking.sqlite_store import (
    ensure_sqlite,
    local_path,
    location,
    sqlite_path,
    sqlite_uri,
)
from pneumonia.tracking.tracker import fetch_classifier

__all__ = ["folder", "journal", "settings"]

ROOT = Path(__file__).parents[2]
DB = Path("mlruns/mlflow.db")
LOCATIONS = [(table, column) for table, column, _ in sqlite_store._LOCATIONS]
NAMES = [
    *("plain", "a b", " a", "a ", "é日", "🫁", "-a", "a,b", "a@b", "a=b", "~", "a+b", "(a)", "{a}"),
    *("a?b", "?", "a?b=c", "a#b", "a%b", "%", "a%20b", "a%3Fb", "%2F", "a%%b", "a;b", "a&b"),
    *("a'b", 'a"b', "a`b", "a[b]", "a*b", "a:b", " :b", "C:", "a\\b", "a|b", "<a>", "$HOME"),
    *("${a}", "sqlite:", "file:", "http:", "a\nb", "a\tb", "a\rb", "a\x01b", "a\u2028b", ".a"),
]
# Every one of them hurts MLflow, SQLAlchemy or both in another place.
HARD = ["a?b#c%20d;e&f[g]*h i", "i :j'k\"l\\m\nn\to`é🫁${x}a?b=c"]


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds nothing yet, which is the current one."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    prepare_environment()  # as all do that come to a store
    return project


def dying(statements: int, word: str = "") -> Callable[[Path], sqlite_store._Connection]:
    """Return a way to connect of which the process dies with one of the statements."""
    real, left = sqlite_store._connect, statements

    def count(statement: str) -> None:
        nonlocal left
        left -= statement.lower().startswith(word)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(path: Path) -> sqlite_store._Connection:
        store = real(path)
        store.set_trace_callback(count)
        return store

    return connect


@pytest.mark.slow  # as one that was left half built
@pytest.mark.parametrize(
    ("statements", "word"),
    [slow(1, "create"), slow(40, "create"), (1, "commit"), slow(2, "commit")],
)
def test_whatever_statement_a_kill_hits_the_store_is_built_the_next_time(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, statements: int, word: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "_connect", dying(statements, word))
        killed(lambda: ensure_sqlite(TrackingSettings().store_uri))
    assert DB.exists()
    make_ready(TrackingSettings())
    assert_is_built()


def assert_is_built() -> None:
    assert rows("pragma integrity_check", DB) == [("ok",)]
    found = rows("select experiment_id, name, artifact_location from experiments", DB)
    here = Path.cwd() / "mlruns"
    assert found == [(0, "Default", f"{here}/0"), (1, "pneumonia", f"{here}/artifacts")]
    assert {path.name for path in Path("mlruns").iterdir()} == {"mlflow.db", "mlflow.lock"}


@pytest.mark.parametrize("size", [slow(1), 200_000, slow(700_000)])
def test_a_store_that_an_earlier_version_left_half_built_is_built_again(
    fresh: Path, size: int
) -> None:
    """They built it piece by piece, and the next command stumbled upon the pieces."""

    def build() -> None:
        from mlflow.store.db import utils
        from sqlalchemy import event

        engine = utils.create_sqlalchemy_engine_with_retry(TrackingSettings().store_uri)

        def look(*_: object) -> None:
            if DB.exists() and DB.stat().st_size >= size:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(engine, "after_cursor_execute", look)
        utils._initialize_tables(engine)

    killed(build)
    assert DB.stat().st_size >= size
    make_ready(TrackingSettings())
    assert_is_built()


@pytest.mark.slow
def test_a_store_of_runs_that_cannot_be_brought_up_to_date_is_left_as_it_is(
    settings: TrackingSettings, folder: Path
) -> None:
    write_search(folder, (0.7,))
    track(folder, settings)
    backup = Path("mlruns/mlflow.db.backup")
    shutil.copyfile(DB, backup)
    good = backup.read_bytes()
    with closing(sqlite3.connect(DB)) as connection:
        # As a process that was killed left it: the tables are ahead of what is noted.
        connection.execute("update alembic_version set version_num = '6f8d9c3b2a1e'")
        connection.commit()
    was = rows("select * from runs")
    with pytest.raises(ConfigError, match=r"`tracking\.uri`: expected a database that") as caught:
        make_ready(settings)
    assert rows("select * from runs") == was
    assert backup.read_bytes() == good
    assert [path.name for path in Path("mlruns").glob("*.part")] == []
    command = str(caught.value).split("`")[3]
    subprocess.run(command, shell=True, check=True)
    make_ready(settings)
    assert_whole(trials=1, epochs=2)


@pytest.mark.parametrize(("statements", "word"), [slow(2, "update"), (1, "commit")])
def test_an_upgrade_that_is_killed_is_made_the_next_time(
    settings: TrackingSettings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    statements: int,
    word: str,
) -> None:
    from alembic import command
    from mlflow.store.db import utils

    write_search(folder, (0.7,))
    track(folder, settings)
    config = utils._get_alembic_config(settings.store_uri)
    command.downgrade(config, "-4")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "_connect", dying(statements, word))
        killed(lambda: ensure_sqlite(settings.store_uri))
    make_ready(settings)
    assert_whole(trials=1, epochs=2)
    assert rows("select count(*) from runs", DB.with_suffix(".db.backup")) == [(2,)]
    assert rows("pragma integrity_check", DB.with_suffix(".db.backup")) == [("ok",)]


def test_what_is_built_is_what_mlflow_would_build(fresh: Path) -> None:
    from mlflow.store.db import utils

    utils._initialize_tables(utils.create_sqlalchemy_engine_with_retry("sqlite:///theirs.db"))
    ensure_sqlite(TrackingSettings().store_uri)
    assert tables(DB) == tables(Path("theirs.db"))


def tables(path: Path) -> list[tuple[str, str, list[str]]]:
    """Return what a database is made of; the order of a table's constraints differs by chance."""
    words = "select type, name, sql from sqlite_master where name != 'pneumonia_place' order by 2"
    return [
        (kind, name, sorted(re.findall(r"\w+", sql or ""))) for kind, name, sql in rows(words, path)
    ]


def test_several_build_one_store(fresh: Path) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: ensure_sqlite(TrackingSettings().store_uri), range(4)))
    make_ready(TrackingSettings())
    assert_is_built()


def test_another_programs_database_is_left_alone(fresh: Path) -> None:
    with closing(sqlite3.connect("other.db")) as connection:
        connection.execute("create table bookmarks (name text)")
    was = Path("other.db").read_bytes()
    with pytest.raises(ConfigError, match="this version of MLflow can use"):
        make_ready(TrackingSettings(uri="sqlite:///other.db"))
    assert Path("other.db").read_bytes() == was


@pytest.mark.slow
@pytest.mark.parametrize("limit", [slow(0), 100 * 1024])
def test_a_full_disk_is_one_message_and_a_store_when_there_is_room(fresh: Path, limit: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"`tracking\.uri`.*with room in it"):
            make_ready(TrackingSettings())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    make_ready(TrackingSettings())
    assert_is_built()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_found_by_all_that_read_it(name: str) -> None:
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import append_to_uri_path
    from sqlalchemy.engine import make_url

    path = Path("/some") / name / "mlflow.db"
    uri = sqlite_uri(path)
    assert sqlite_path(uri) == sqlite_path(f"sqlite:///{path}") == path
    assert URI.accepts(uri)
    assert make_url(uri).database == str(path)
    # MLflow makes the folder that it reads in this form, without unquoting it.
    assert not uri.startswith("sqlite:///") or uri == f"sqlite:///{path}"
    place = location(path.parent)
    assert local_path(place) == path.parent
    inside = append_to_uri_path(place, "run", "artifacts")
    assert local_path(inside) == Path(local_file_uri_to_path(inside))
    assert local_path(inside) == path.parent / "run" / "artifacts"


@pytest.mark.parametrize("name", quick(HARD, HARD[1]))
def test_all_lands_in_the_folder_whatever_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / name / "project"
    project.mkdir(parents=True)
    monkeypatch.chdir(project)
    write_search(project / "outputs" / "search", (0.7, 0.9))
    make_ready(TrackingSettings())
    track(project / "outputs" / "search", TrackingSettings())
    assert_whole(trials=2, epochs=2)
    (search,) = Runs(TrackingSettings()).searches()
    assert Runs(TrackingSettings()).text(search, "config.yaml") == "seed: 1\n"
    found = fetch_classifier("models:/pneumonia-phantom@champion", TrackingSettings())
    assert found.read_bytes() == CLASSIFIER + b"0002"
    assert found.is_relative_to(project / "mlruns")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in project.iterdir()} == {"mlruns", "outputs"}


@pytest.mark.slow
def test_every_command_works_in_a_folder_of_any_name(tmp_path: Path) -> None:
    """Those that a search prints, too, as they are printed."""
    from PIL import Image

    project = tmp_path / HARD[1].replace("$", "")  # Hydra has a use for it
    project.mkdir()
    Image.new("L", (40, 40), 99).save(project / "an image.png")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    file = bin_ / "pneumonia"
    code = "import sys; from pneumonia.cli.main import main; sys.exit(main())"
    file.write_text(f"#!{sys.executable}\n{code}\n")
    file.chmod(0o755)
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"

    def run(command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
        done = subprocess.run(
            command, shell=True, cwd=project, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    small = "dataset.train=60 dataset.val=40 dataset.test=40 dataset.image_size=32"
    small += " model.image_size=32 model.layer=block2b_add tuner=random tuner.max_trials=1"
    said = run(f"pneumonia dataset=phantom {small} tuner.max_epochs=2 dense.units=8")
    printed = [line.split("  ")[1] for line in said.splitlines() if line.startswith("  pneumonia")]
    assert printed[1].startswith("pneumonia predict ")
    assert printed[2].startswith("pneumonia experiment=")
    for command in printed[1:]:
        run(command.replace("IMAGE...", "'an image.png' heatmaps=true"))
    run("pneumonia resume=last")
    export = "export model=models:/pneumonia-phantom@champion"
    for command in ("compare", "compare last", export, "report outputs/2*/*"):
        run(f"pneumonia {command}")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([project.name, "bin"])
    assert {entry.name for entry in project.iterdir()} == {
        *("mlruns", "outputs", "an image.png", "an image.png.heatmap.png", "comparison.html"),
        *("classifier.tflite", "classifier.json"),
    }


def test_a_query_is_no_part_of_a_path() -> None:
    with pytest.raises(ConfigError, match=r"`tracking\.uri`.*without a query"):
        sqlite_path("sqlite:///mlruns/mlflow.db?timeout=30")


@pytest.mark.parametrize("name", ["a${b}c", os.fsdecode(b"a\xffb")])
def test_a_folder_in_which_no_search_can_run_is_refused_first(
    name: str, fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).mkdir()
    monkeypatch.chdir(name)
    monkeypatch.setattr(sys, "argv", ["pneumonia", "experiment=demo"])
    assert main.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("`current folder`: expected a path ")
    assert list(Path.cwd().iterdir()) == []


def test_a_store_in_a_folder_that_is_no_text_is_refused(fresh: Path) -> None:
    uri = f"sqlite:///{fresh}/{os.fsdecode(bytes([255]))}/mlflow.db"
    with pytest.raises(ConfigError, match=r"`tracking\.uri`.*UTF-8"):
        ensure_sqlite(uri)


def test_hints_are_quoted_for_a_shell(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(fresh / "it's mine" / "python"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    prefix, ui = shell.commands()
    words = subprocess.run(
        ["sh", "-c", f"echo {prefix}x; echo {ui}"], capture_output=True, text=True
    )
    assert words.stdout == "it's mine/x\nit's mine/pneumonia ui\n"


@pytest.fixture
def old(settings: TrackingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project `old` with a search, which is the current folder."""
    project = tmp_path / "old"
    project.mkdir()
    Path("mlruns").rename(project / "mlruns")
    monkeypatch.chdir(project)
    write_search(project / "outputs" / "search")
    make_ready(TrackingSettings())
    track(project / "outputs" / "search", TrackingSettings())
    return project


def places(path: Path = DB) -> set[Path]:
    """Return all the places of artifacts that a store has noted."""
    found: set[Path] = set()
    for table, column in LOCATIONS:
        words = f"select {column} from {table} where {column} is not null"
        found |= {place for row in rows(words, path) if (place := local_path(row[0]))}
    return found


def forget_place(path: Path = DB) -> None:
    """Leave a store as the versions did that did not note where it is."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("drop table pneumonia_place")


@pytest.mark.parametrize(
    ("move", "is_noted"),
    [
        slow(shutil.move, True),
        slow(shutil.move, False),
        slow(shutil.copytree, True),
        (shutil.copytree, False),
    ],
)
def test_artifacts_belong_to_where_the_project_is_now(
    old: Path, monkeypatch: pytest.MonkeyPatch, move: Callable[..., Any], is_noted: bool
) -> None:
    if not is_noted:
        forget_place()
    new = old.with_name("new ?%20'project")
    monkeypatch.chdir(old.parent)
    move(old, new)
    before = places(old / DB) if old.exists() else set()
    files = sorted(old.rglob("*"))
    monkeypatch.chdir(new)
    assert find_model("models:/pneumonia-phantom@champion", TrackingSettings()).file.is_relative_to(
        new
    )
    assert_whole(trials=3, epochs=2)
    track(new / "outputs" / "search", TrackingSettings())  # nothing is sent again
    assert_whole(trials=3, epochs=2)
    write_search(new / "outputs" / "other")
    edit_journal(new / "outputs" / "other", '"s1"', '"s2"')
    track(new / "outputs" / "other", TrackingSettings())
    assert not any(path.is_relative_to(old) for path in places())
    assert len(list((new / "mlruns").rglob("model.keras"))) == 6
    # The place where it was is as it was.
    assert sorted(old.rglob("*")) == files
    assert not files or places(old / DB) == before


def test_a_store_that_was_moved_alone_takes_its_artifacts_along(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old / "mlruns").rename(old.with_name("elsewhere"))
    settings = TrackingSettings(uri=f"sqlite:///{old.with_name('elsewhere')}/mlflow.db")
    found = find_model("models:/pneumonia-phantom@champion", settings).file
    assert found.is_relative_to(old.with_name("elsewhere"))
    assert not (old / "mlruns").exists()


def test_a_project_that_left_its_store_where_it_was_takes_its_artifacts_along(
    settings: TrackingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    for name in ("old", "new"):
        if name == "old":
            (tmp_path / name).mkdir()
        else:
            (tmp_path / "old").rename(tmp_path / "new")
        monkeypatch.chdir(tmp_path / name)
        write_search(Path.cwd() / "outputs" / name)
        journal = Path.cwd() / "outputs" / name / "journal.jsonl"
        journal.write_text(journal.read_text().replace('"s1"', f'"{name}"'))
        track(Path.cwd() / "outputs" / name, TrackingSettings(uri=uri))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns", "new"]
    words = "select artifact_uri from runs"
    assert all(row[0].startswith(f"{tmp_path}/new/") for row in rows(words, tmp_path / DB))


def test_artifacts_beside_a_store_are_found_where_they_are(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in the project but not in the store's folder go with the project or stay."""
    (old / "files").mkdir()
    with closing(sqlite3.connect(DB)) as connection:
        connection.execute("update experiments set artifact_location = ?", [f"{old}/files"])
        connection.execute("update runs set artifact_uri = 's3://bucket/' || run_uuid")
        connection.commit()
    shutil.copytree(old, old.with_name("whole"))
    shutil.copytree(old / "mlruns", old.with_name("part") / "mlruns")
    for name, expected in (("whole", old.with_name("whole")), ("part", old)):
        monkeypatch.chdir(old.with_name(name))
        Store(TrackingSettings())
        found = {row[0] for row in rows("select artifact_location from experiments")}
        assert found == {f"{expected}/files"}
        assert {row[0][:12] for row in rows("select artifact_uri from runs")} == {"s3://bucket/"}


def test_the_same_folder_by_another_name_is_not_moved(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = places()
    old.with_name("link").symlink_to(old)
    monkeypatch.chdir(old.with_name("link"))
    Store(TrackingSettings())
    with closing(sqlite3.connect(DB)) as connection:  # as a folder that is mounted twice
        connection.execute("update pneumonia_place set folder = ?", [f"{old}/../link/mlruns"])
        connection.commit()
    Store(TrackingSettings())
    assert places() == was


def test_a_store_that_has_its_artifacts_elsewhere_on_purpose_keeps_them_there(
    settings: TrackingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a store of an earlier version that several projects share: nothing was moved."""
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with closing(sqlite3.connect(tmp_path / DB)) as connection:
        words = "update experiments set artifact_location = ? where experiment_id = 0"
        connection.execute(words, [str(tmp_path / "one" / "mlruns" / "0")])
        connection.execute("drop table pneumonia_place")
        connection.commit()
    shared = TrackingSettings(uri=f"sqlite:///{tmp_path / DB}")
    write_search(Path.cwd() / "outputs" / "search")
    forget = rows("select artifact_location from experiments", tmp_path / DB)
    track(Path.cwd() / "outputs" / "search", shared)
    assert set(forget) <= set(rows("select artifact_location from experiments", tmp_path / DB))
    assert fetch_classifier("models:/pneumonia-phantom@champion", shared).is_relative_to(
        tmp_path / "one"
    )
