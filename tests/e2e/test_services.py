"""Searches against real servers: MLflow's on PostgreSQL, artifacts through it; they fall, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from services import PASSWORD, Postgres, Server, await_condition, has_postgres, postgres_and_mlflow
from test_search import GRID, NETWORK, ROOT, Ran, searches

from pneumonia.storage import offset
from pneumonia.storage.search_folder import SearchFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_postgres(), reason="needs PostgreSQL's programs (postgresql)"),
]
Services = tuple[Postgres, Server]
TRIALS = 6
SEARCH = (*GRID[:-1], "tuner.max_trials=6", *NETWORK, 'dense.units="choice(2, 3, 4, 5, 6, 7)"')

# Waits at the start of some trials until a file says that it may go on.
HELD = """
import os, sys, time
from pathlib import Path
from pneumonia.cli import main as cli
from pneumonia.storage import journal
append = journal.Journal.append
def append_and_wait(self, kind, /, **fields):
    event = append(self, kind, **fields)
    if kind == "trial_started" and str(fields["number"]) in os.environ["HOLD"].split(","):
        Path(f"reached-{fields['number']}").touch()
        while not Path(f"go-{fields['number']}").exists():
            time.sleep(0.05)
    return event
journal.Journal.append = append_and_wait
sys.exit(cli.main())
"""


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with postgres_and_mlflow() as both:
        yield both


def begin(
    project: Path, *arguments: str, hold: str = "", **variables: str
) -> subprocess.Popen[bytes]:
    """Begin a command in a project; what it says comes into `said.txt` there."""
    project.mkdir(exist_ok=True)
    temporary = project.with_name(f"{project.name}-tmp")
    temporary.mkdir(exist_ok=True)
    own = {"PYTHONPATH": str(ROOT), "HOLD": hold, "TMPDIR": str(temporary)}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "MLFLOW", "PG"))}
    with (project / "said.txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, *(["-c", HELD] if hold else ["-m", "pneumonia"]), *arguments],
            cwd=project,
            env={**inherited, **own, **variables},
            stdout=said,
            stderr=said,
        )


def said(project: Path) -> str:
    return (project / "said.txt").read_text()


def run(project: Path, *arguments: str, status: int = 0, **variables: str) -> str:
    """Run a command in a project; return what it says."""
    before = len(said(project)) if (project / "said.txt").exists() else 0
    process = begin(project, *arguments, **variables)
    assert process.wait(300) == status, said(project)
    return said(project)[before:]


def the_search(project: Path) -> Ran:
    return Ran(project, searches(project)[-1], 0)


def sent(project: Path) -> int:
    """Return how many events of the search are noted as sent."""
    path = searches(project)[-1] / offset.NAME
    return int(json.loads(path.read_text())["next"]) if path.exists() else 0


def assert_sent_once(services: Services, ran: Ran, trials: int = TRIALS) -> None:
    """Check in the tables that everything of a search is there, and once."""
    postgres, server = services
    search_id = ran.events[0]["search_id"]
    own = f"select run_uuid from tags where key = 'pneumonia.search_id' and value = '{search_id}'"
    kinds = postgres.rows(
        "select t.value, r.status from runs r join tags t on t.run_uuid = r.run_uuid "
        f"where t.key = 'kind' and r.run_uuid in ({own})"
    )
    assert Counter(kinds) == {("search", "FINISHED"): 1, ("trial", "FINISHED"): trials}
    points = postgres.rows(
        f"select key, count(*) from metrics where run_uuid in ({own}) group by run_uuid, key, step"
    )
    assert {count for _, count in points} == {1}
    losses = sum(1 for key, _ in points if key == "loss")
    assert losses == len(ran.of("epoch_ended")) > trials
    models = [
        str(model_id)
        for (model_id,) in postgres.rows(
            "select model_id from logged_models where lifecycle_stage = 'active' "
            f"and source_run_id in ({own})"
        )
    ]
    assert len(models) == trials
    for model_id in models:
        names = [path.name for path in server.files.glob(f"*/models/{model_id}/artifacts/*/*")]
        assert sorted(names) == ["keras_module.txt", "model.keras", "pneumonia_serving.py"]
    assert postgres.rows(f"select count(*) from model_versions where run_id in ({own})") == [(1,)]
    assert ran.end["status"] == "completed"
    assert len(ran.of("trial_ended")) == trials
    assert SearchFolder(ran.folder).is_over()


def test_every_command_works_with_them(services: Services, tmp_path: Path) -> None:
    project, here = tmp_path / "project", f"tracking.uri={services[1].uri}"
    told = run(project, *SEARCH, "tracking=server", here)
    assert "takes the alias champion" in told
    ran = the_search(project)
    assert_sent_once(services, ran)
    Image.new("L", (40, 40), 90).save(project / "chest.png")
    champion = "model=models:/pneumonia-phantom@champion"
    prediction = run(project, "predict", "chest.png", champion, "format=csv", here)
    beside = f"model={ran.folder / ran.end['classifier']}"
    assert prediction.splitlines()[-1] in run(project, "predict", "chest.png", beside, "format=csv")
    assert "1 search" in run(project, "compare", here)
    assert f"{TRIALS} trials" in run(project, "compare", "last", here)
    assert "tuner: grid" in run(project, "compare", "export=last/1", here)
    assert "its probabilities differ by at most" in run(project, "export", champion, here)
    assert "has the alias champion already" in run(project, "promote", "last", here)
    # Where it sent to is noted.
    assert "is complete" in run(project, "resume=last")
    assert_sent_once(services, ran)
    # Nothing that came through the server stays on this machine.
    assert list((tmp_path / "project-tmp").rglob("*.keras")) == []
    assert list((project / "mlruns").rglob("*")) == []


@pytest.mark.parametrize("victim", ["postgres", "server"])
def test_what_falls_and_comes_back_in_a_search_gets_everything(
    services: Services, tmp_path: Path, victim: str
) -> None:
    fallen = dict(zip(("postgres", "server"), services, strict=True))[victim]
    project, here = tmp_path / "project", f"tracking.uri={services[1].uri}"
    search = begin(project, *SEARCH, "tracking=server", here, hold="3,6")
    await_condition((project / "reached-3").exists, 180)
    await_condition(lambda: sent(project) > 4, 60)  # the first trials
    fallen.kill()
    try:
        (project / "go-3").touch()
        await_condition((project / "reached-6").exists, 60)  # the search goes on without it
        await_condition(lambda: "the search goes on without it" in said(project), 60)
    finally:
        fallen.start()
    (project / "go-6").touch()
    assert search.wait(180) == 0, said(project)
    assert said(project).count("MLflow") == 1, said(project)  # one warning
    assert_sent_once(services, the_search(project))


@pytest.mark.parametrize("victim", ["postgres", "server"])
def test_what_falls_for_good_gets_everything_at_the_next_resume(
    services: Services, tmp_path: Path, victim: str
) -> None:
    fallen = dict(zip(("postgres", "server"), services, strict=True))[victim]
    project, here = tmp_path / "project", f"tracking.uri={services[1].uri}"
    search = begin(project, *SEARCH, "tracking=server", here, hold="3")
    await_condition((project / "reached-3").exists, 180)
    await_condition(lambda: sent(project) > 4, 60)
    fallen.kill()
    try:
        (project / "go-3").touch()
        assert search.wait(180) == 0, said(project)
        ran = the_search(project)
        assert len(ran.of("trial_ended")) == TRIALS
        assert ran.end["status"] == "completed"
        again = f"pneumonia resume={ran.events[0]['search_id']}"
        assert f"`{again}` sends them" in said(project)
        # No store, no search: told in seconds, nothing begun.
        assert "can be reached" in run(project, *SEARCH, "tracking=server", here, status=2)
        assert len(searches(project)) == 1
    finally:
        fallen.start()
    assert "the alias champion" in run(project, again.removeprefix("pneumonia "))
    assert_sent_once(services, ran)


def test_two_searches_at_once(services: Services, tmp_path: Path) -> None:
    here = f"tracking.uri={services[1].uri}"
    name = "tracking.registered_model=of-both"
    projects = [tmp_path / "one", tmp_path / "other"]
    both = [
        begin(project, *SEARCH, "tracking=server", here, name, f"seed={seed}")
        for seed, project in enumerate(projects)
    ]
    assert [search.wait(300) for search in both] == [0, 0], [said(one) for one in projects]
    for project in projects:
        assert_sent_once(services, the_search(project))
    champions = services[0].rows("select version from registered_model_aliases "
                                 "where name = 'of-both' and alias = 'champion'")  # fmt: skip
    assert len(champions) == 1


def test_straight_into_postgresql_and_no_password_is_left(
    services: Services, tmp_path: Path
) -> None:
    postgres, _ = services
    project, where = tmp_path / "project", {"MLFLOW_TRACKING_URI": postgres.uri}
    own = f"tracking.experiment={tmp_path.name}"
    told = run(project, *SEARCH, own, **where)
    assert "the alias champion" in told
    ran = the_search(project)
    assert ran.end["status"] == "completed"
    assert SearchFolder(ran.folder).is_over()
    assert len(list((project / "mlruns/artifacts/models").iterdir())) == TRIALS
    assert f"{TRIALS} trials" in run(
        project, "compare", "last", f"tracking.experiment={tmp_path.name}", **where
    )
    given = f"tracking.uri={postgres.uri}"
    run(project, *SEARCH, own, given)
    wrong = postgres.uri.replace("hush", "hushed")
    assert "can be reached" in run(project, *SEARCH, own, f"tracking.uri={wrong}", status=2)
    postgres.kill()
    try:
        assert "can be reached" in run(project, "compare", given, status=2)
        assert "can be reached" in run(project, "resume=last", given, status=2)
    finally:
        postgres.start()
    for secret in ("hush", PASSWORD.partition("/")[2]):
        assert holding(tmp_path, secret) == []


def holding(place: Path, secret: str) -> list[Path]:
    """Return the files that hold a text."""
    found: list[Any] = [path for path in place.rglob("*") if path.is_file()]
    return [path for path in found if secret.encode() in path.read_bytes()]
