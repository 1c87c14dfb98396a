"""The experiment of a store: found, made where it is missing, and where its artifacts are."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pneumonia.config.suggestions import nearest
from pneumonia.errors import ConfigError
from pneumonia.shell import command
from pneumonia.tracking.settings import TrackingSettings, redact
from pneumonia.tracking.sqlite_store import local_path, move_artifacts, sqlite_path
from pneumonia.tracking.ui_view import KIND

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


def ensure_experiment(client: MlflowClient, settings: TrackingSettings) -> str:
    """Return the id of the experiment, made if need be.

    Raises:
        ConfigError: It was deleted.
    """
    from mlflow.exceptions import MlflowException

    name, location, uri = settings.experiment, settings.artifact_location, settings.store_uri
    found = client.get_experiment_by_name(name)
    if found is not None and location is not None and _has_moved(uri, found, location):
        found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, location, dict(KIND)))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise error
    return _checked(found, uri)


def find_experiment(client: MlflowClient, settings: TrackingSettings) -> str:
    """Return the id of the experiment.

    Raises:
        ConfigError: There is none, or it was deleted.
    """
    name = settings.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        names = [str(one.name) for one in client.search_experiments()]
        hint = nearest(name, names) or f"There is {', '.join(sorted(names))}"
        raise ConfigError("tracking.experiment", "an experiment of the store", name, hint)
    return _checked(found, settings.store_uri)


def _checked(experiment: Experiment, uri: str) -> str:
    """Refuse an experiment that was deleted, with the command that restores it."""
    if experiment.lifecycle_stage == "deleted":
        restore = command("mlflow", "experiments", "restore", "-x", str(experiment.experiment_id))
        hint = f"Run `MLFLOW_TRACKING_URI={shlex.quote(redact(uri))} {restore}`, or name another"
        expected = "an experiment that was not deleted in MLflow"
        raise ConfigError("tracking.experiment", expected, str(experiment.name), f"{hint} one")
    return str(experiment.experiment_id)


def _has_moved(uri: str, experiment: Experiment, location: str) -> bool:
    """Move the places of artifacts with a project that left its store where it was."""
    old, new = local_path(str(experiment.artifact_location)), local_path(location)
    if sqlite_path(uri) is None or old is None or new is None or old.exists():
        return False
    if old == new or (not new.exists() and old.parent.exists()):
        return False  # there are none yet
    move_artifacts(uri, old, new)
    return True
