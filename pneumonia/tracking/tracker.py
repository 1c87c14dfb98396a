"""The tracking of searches: another process mirrors their journals to MLflow.

The search never waits for MLflow and does not know it: its journal is all the two share. In a
process of its own, the sink takes no time from the training, and it outlives a search that is
killed for as long as it needs to close its runs.
"""

from __future__ import annotations

import atexit
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from pneumonia import shell, terminal
from pneumonia.errors import ConfigError, UserError
from pneumonia.storage import journal, offset
from pneumonia.storage.offset import Cursor
from pneumonia.tracking.mlflow_model import CLASSIFIER, DATA
from pneumonia.tracking.settings import TrackingSettings, prepare_environment, probe
from pneumonia.tracking.sidecar import CLOSING_SECONDS, current

ATTEMPTS = 2

_log = logging.getLogger(__name__)


def prepare() -> None:
    """Let the other process import MLflow, which takes seconds. Returns at once."""
    current()


def check(settings: TrackingSettings) -> Checked:
    """Make sure, before a search, that its results can be tracked; returns at once.

    Builds the store and the experiment if they are missing, and marks as killed the runs that a
    process of this host left running when it died.

    Raises:
        ConfigError: No store answers there; within about five seconds.
    """
    probe(settings.store_uri)
    return Checked(settings)


class Checked:
    """The answer to `check`: of the other process, or where that has died, of another one."""

    def __init__(self, settings: TrackingSettings) -> None:
        self._settings = settings
        self._answer = current().check(settings)

    def result(self) -> None:
        """Wait for the answer.

        Raises:
            ConfigError: The store cannot be used.
            UserError: The processes that should have told have died.
        """
        try:
            try:
                self._answer.result()
            except ChildProcessError:
                current().check(self._settings).result()
        except ChildProcessError as error:
            raise UserError(str(error)) from error


class Tracker:
    """Owns the following of one search's journal by the other process.

    Used as a context: what it ends with is sent before it is left, or kept for the next time.
    """

    def __init__(self, folder: Path, settings: TrackingSettings) -> None:
        self._folder, self._settings = folder, settings

    def __enter__(self) -> Tracker:
        current().follow(self._folder, self._settings)
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self, timeout: float = CLOSING_SECONDS) -> bool:
        """Wait until all is sent, but no longer than some seconds.

        A search that the journal does not end is marked as killed. A warning says what is left
        unsent and what will send it. What a process that died has left, another one sends. Of a
        search that is complete it tells on standard output whether it made the champion.
        Returns whether all is sent.
        """
        for attempt in range(ATTEMPTS):
            sidecar = current()
            sidecar.follow(self._folder, self._settings)
            try:
                left = sidecar.close(self._folder, timeout)
                if told := self.decision():
                    terminal.write(f"\n{told}\n", sys.stdout)
                return left == 0
            except ChildProcessError as error:
                if attempt == ATTEMPTS - 1:
                    first = next(journal.read(self._folder), {})
                    name = str(first.get("search_id", "last"))
                    again = shell.resume(self._folder, name)
                    _log.warning("%s `%s` sends what is left.", error, again)
        return False

    def decision(self) -> str:
        """Tell whether the search made the champion, and if not, how it becomes one."""
        cursor = Cursor.read(self._folder / offset.NAME)
        if not cursor.decision or cursor.takes:
            return cursor.decision
        # A command for this folder: the other process may have begun in another one.
        how = shell.command("pneumonia", "promote", cursor.search_id, *self._settings.elsewhere())
        return f"{cursor.decision} To promote it: `{how}`"


def fetch_classifier(model_uri: str, settings: TrackingSettings) -> Path:
    """Return the local path of the `.keras` file of a model in MLflow.

    Files of a local store are not copied; what another one sends is kept as long as this process.

    Raises:
        ConfigError: There is no such model.
    """
    uri = settings.store_uri
    probe(uri)
    prepare_environment()
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    mlflow.set_tracking_uri(uri)
    try:
        files = get_artifact_repository(model_uri)
        place = None  # otherwise MLflow would leave them in the system's temporary folder
        if not isinstance(getattr(files, "repo", files), LocalArtifactRepository):
            place = tempfile.mkdtemp(prefix="pneumonia-")
            atexit.register(shutil.rmtree, place, ignore_errors=True)
        folder = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=place))
    except (MlflowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError("model", "the URI of a model in MLflow", model_uri, reason) from error
    return folder / DATA / CLASSIFIER
