"""`pneumonia promote`: a search's classifier becomes the champion of its dataset."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from samples import Project

from pneumonia.cli import promote

Spawn = Callable[..., "object"]
FIRST, SECOND = "models:/pneumonia-chest/1", "models:/pneumonia-chest/2"


@pytest.fixture
def told(here: Project, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Return a function that runs the command and returns what it prints."""

    def tell(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        assert promote.main(arguments) == status
        out, err = capsys.readouterr()
        assert bool(err) == bool(status), err
        (line,) = (err if status else out).splitlines()
        return str(line)

    yield tell
    promote.main(["b"])  # the champion of the other tests


def test_the_alias_goes_from_one_search_to_another(told: Callable[..., str], here: Project) -> None:
    (here.folder / "last").mkdir()  # it is ./last that means the folder
    assert told("last") == f"{SECOND} has the alias champion already."
    (here.folder / "last").rmdir()
    assert told("a") == f"{FIRST} has the alias champion, taken from {SECOND}."
    assert told("outputs/b") == f"{SECOND} has the alias champion, taken from {FIRST}."
    assert told(here.run_ids[0]) == f"{FIRST} has the alias champion, taken from {SECOND}."
    new = ["b", "tracking.alias=next", f"tracking.uri={here.settings.store_uri}"]
    assert told(*new) == f"{SECOND} has the alias next, which no version had."
    from mlflow import MlflowClient

    MlflowClient(here.settings.store_uri).delete_registered_model_alias("pneumonia-chest", "next")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["Which search?", "--help"]),
        (["a", "b"], ["Which search?"]),
        (["a", "alias=x"], ["`alias`: expected one of the keys", "nearest is `tracking.alias`"]),
        (["a", "tracking.alias=v1"], ["`tracking.alias`: expected at most 255 letters"]),
        (["nobody"], ["`search`: expected a search whose", "'nobody'", "The last one is b."]),
        (["it's"], ["`search`: expected a search whose"]),
        (["mlruns"], ["mlruns: expected the folder of a search"]),
        (["a", "tracking.uri=sqlite:///no.db"], ["There is no store at"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_message(
    arguments: list[str], fragments: list[str], told: Callable[..., str]
) -> None:
    line = told(*arguments, status=2)
    assert all(fragment in line for fragment in fragments), line


def test_help_needs_nothing_heavy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import subprocess

    code = (
        "import sys; from pneumonia.cli.promote import main; status = main(['--help']); "
        "print([name for name in ('mlflow', 'numpy', 'tensorflow') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.endswith("[]\n")
    assert all(f"{key}=" in ran.stdout for key in promote.KEYS)
    assert max(map(len, ran.stdout.splitlines())) <= 100
