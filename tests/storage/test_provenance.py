"""What ran, without what nobody else should know."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pneumonia.storage import provenance
from pneumonia.storage.provenance import LIBRARIES

ROOT = Path(__file__).parents[2]


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *author, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository, with the module where the program would be."""
    git(tmp_path, "init", "--quiet")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    (tmp_path / "README.md").write_text("A project.\n")
    git(tmp_path, "add", "README.md")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    return tmp_path


def test_says_versions_machine_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/pneumonia", "seed=2", 'a="choice(1, 2)"'])
    found = provenance.provenance()
    assert found["python"] == platform.python_version()
    assert found["command"] == """pneumonia seed=2 'a="choice(1, 2)"'"""
    assert platform.machine() in found["machine"]
    for library in set(LIBRARIES) - {"pneumonia"}:
        assert found[f"version.{library}"] == metadata.version(library)
    assert all(isinstance(value, str) for value in found.values())


def test_keeps_passwords_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "tracking.uri=postgresql://anna:s3cret@db.example.org:5432/mlflow"
    monkeypatch.setattr(sys, "argv", ["pneumonia", uri, "dataset.path=a@b"])
    assert provenance.provenance()["command"] == (
        "pneumonia tracking.uri=postgresql://db.example.org:5432/mlflow dataset.path=a@b"
    )


def test_the_commit_of_a_checkout(checkout: Path) -> None:
    git(checkout, "add", "package")
    git(checkout, "commit", "--quiet", "--message", "Add")
    commit = git(checkout, "rev-parse", "HEAD")
    assert provenance.provenance()["git_commit"] == commit
    (checkout / "package" / "__init__.py").write_text("changed")
    assert provenance.provenance()["git_commit"] == f"{commit}+changes"


def test_an_environment_within_another_project_has_no_commit(checkout: Path) -> None:
    assert git(checkout, "rev-parse", "HEAD")
    assert "git_commit" not in provenance.provenance()


def test_no_git_is_no_error(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert "git_commit" not in provenance.provenance()


def test_threads_make_no_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    # As searches noted them once; joblib sets this one for the jobs that it begins.
    tags = provenance.machine() | {"threads": "2 OMP_NUM_THREADS=1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert provenance.other_machine(tags) == ""
    told = provenance.other_machine(tags | {"cpu": "a slow one"})
    assert told.startswith("this machine is another one (cpu: a slow one → ")


@pytest.mark.parametrize(
    ("path", "decides"),
    [
        ("training/loop.py", True),
        ("search/loop.py", True),
        ("config/new.py", True),
        ("seeding.py", True),
        ("reporting/page.py", False),
        ("console/progress.py", False),
        ("tracking/sink.py", False),
        ("storage/provenance.py", False),
        ("shell.py", False),
        ("training/notes.txt", False),
    ],
)
def test_the_code_that_decides_results_is_known_by_its_digest(
    path: str, decides: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(provenance.PACKAGE, tmp_path / "package")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "package")
    before = provenance.code()
    changed = tmp_path / "package" / path
    changed.write_text((changed.read_text() if changed.exists() else "") + "# changed\n")
    assert (provenance.code() != before) is decides
    changed.rename(changed.with_name(f"another{changed.suffix}"))
    assert (provenance.code() != before) is decides
