"""What all tests share."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As in an activated environment: the commands that are printed then need no folder before them.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

import pytest

if TYPE_CHECKING:
    import keras
    from samples import Project

gc.disable()  # what is imported for the tests is no garbage; see `pytest_collection_finish`

ROOT = Path(__file__).parents[1]
PNEUMONIA_MNIST = Path(__file__).parents[2] / "shared" / "data" / "pneumoniamnist.npz"


# The files that take longest, which begin first: a long one at the end would have one process work
# alone.
LONG = (
    *("e2e/test_search.py", "cli/test_main.py", "tracking/test_tracking_faults.py"),
    *("training/test_trial.py", "e2e/test_mistakes.py", "tracking/test_sqlite_store.py"),
    *("models/test_backbones.py", "tracking/test_tracker.py", "cli/test_compare.py"),
    *("search/test_loop.py", "e2e/test_at_once.py", "training/test_recipe.py", "test_startup.py"),
    *("tracking/test_registry.py", "e2e/test_ending.py", "models/test_gradcam.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, and leave all others in their order."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Look through what the tests make for garbage, and not through what was imported for them."""
    gc.enable()
    gc.freeze()


@pytest.fixture
def pneumonia_mnist() -> Path:
    """Return the official file, or skip the test where it is not at hand."""
    if not PNEUMONIA_MNIST.exists():
        pytest.skip("needs pneumoniamnist.npz in ../shared/data")
    return PNEUMONIA_MNIST


@pytest.fixture(autouse=True)
def _no_store_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no store in the environment: MLflow puts the one that it was told last there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(autouse=True, scope="session")
def _what_is_composed_is_kept() -> None:
    """Hydra composes every config of ours once."""
    import composing

    composing.keep()


@pytest.fixture(autouse=True, scope="session")
def _stores_are_quick() -> None:
    """Commits do not wait for the disk."""
    import stores

    stores.keep()


Spawn = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def spawn() -> Spawn:
    """Return a function that runs a module of ours in a process of its own, in a folder."""

    def run(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        own = ("HYDRA_FULL_ERROR", "MLFLOW_TRACKING_URI", "TF_CPP_MIN_LOG_LEVEL")
        inherited = {name: value for name, value in os.environ.items() if name not in own}
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture(scope="session")
def model() -> keras.Model:
    """Return a classifier of images of 32 pixels a side."""
    from samples import make_model

    return make_model()


@pytest.fixture(scope="session")
def project(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a folder with a store of two searches, the classifier of both being `model`."""
    from samples import make_project

    return make_project(model, tmp_path_factory.mktemp("project"))


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return the project, its folder being the current one."""
    monkeypatch.chdir(project.folder)
    return project


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with its tables: making one takes two seconds."""
    from pneumonia.tracking.mlflow_store import make_ready
    from pneumonia.tracking.settings import TrackingSettings

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        make_ready(TrackingSettings(uri=f"sqlite:///{path}", artifacts=None, experiment="other"))
    return path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow runs already; for the tests of other modules it should stay as it is."""
    from pneumonia import startup

    monkeypatch.setattr(startup, "start", lambda: None)
