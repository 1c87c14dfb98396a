"""What MLflow's UI shows of searches: descriptions in Markdown, the columns of the runs table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from pneumonia.storage.trial_record import varying

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE = "mlflow.note.content"
# Without it the UI takes an experiment for one of generative AI, and opens on empty charts.
KIND = {"mlflow.experimentKind": "custom_model_development"}
EXPERIMENT_NOTE = (
    "Each search is a run; the `+` before it opens its trials. To compare some, tick them and "
    "choose `Compare`. **Not for clinical use.**"
)
MODEL_NOTE = (
    "Classifiers of chest X-rays: raw uint8 images of any size in, the probability of the positive "
    "class out. Each version is the final classifier of a search; the alias `champion` is on the "
    "best on the same val split, or on the one that was promoted. **Not for clinical use.**"
)
VERSION_LENGTH = 5000  # of a version's description, in MLflow's database
_SHARED, _KEY = "mlflow.sharedViewState", "pneumonia"
_PICTURES = ("plots/roc.png", "plots/learning_curves.png")


def note(description: str, run_id: str, artifacts: Sequence[str]) -> str:
    """Return the description of a search, with its pictures.

    They are links relative to the page: any MLflow server has the files of a run there, and the
    UI shows no picture that is in the text itself.
    """
    shown = [name for name in _PICTURES if name in artifacts]
    links = [
        f"![{name}](get-artifact?{urlencode({'path': name, 'run_uuid': run_id}, safe='/')})"
        for name in shown
    ]
    return "\n\n".join([description, " ".join(links)]).strip() + "\n" if links else description


def version_note(name: str, experiment_id: str, run_id: str, about: str) -> str:
    """Return the description of a model's version: where it is from, and what its search found."""
    link = f"[{name}](#/experiments/{experiment_id}/runs/{run_id})"
    first = f"The final classifier of the search {link}."
    whole = f"{first}\n\n{about}".strip()
    return whole if len(whole) <= VERSION_LENGTH else first


def arrange(client: MlflowClient, experiment_id: str) -> str:
    """Prepare the runs table for the searched hyperparameters; return its place in the UI.

    The columns are a shared view, as the UI's own button `Share` makes one.
    """
    from mlflow.exceptions import MlflowException

    known = client.get_experiment(experiment_id).tags
    columns = [f"metrics.`{name}`" for name in ("score", "test_auc")]
    columns += [f"params.`{name}`" for name in _searched(client, experiment_id)]
    state = json.dumps({"selectedColumns": columns})
    wanted = {NOTE: EXPERIMENT_NOTE, **KIND, **known, f"{_SHARED}.{_KEY}": state}
    try:
        for key, value in wanted.items():
            if known.get(key) != value:
                client.set_experiment_tag(experiment_id, key, value)
    except MlflowException:  # a store that one may only read is shown as it is
        return f"#/experiments/{experiment_id}/runs"
    query = urlencode({"viewStateShareKey": _KEY, "workflowType": "machine_learning"})
    return f"#/experiments/{experiment_id}/runs?{query}"


def _searched(client: MlflowClient, experiment_id: str) -> list[str]:
    """Return the params that differ between the trials of the latest search."""
    latest = client.search_runs([experiment_id], "tags.kind = 'search'", max_results=1)
    if not latest:
        return []
    words = f"tags.`mlflow.parentRunId` = '{latest[0].info.run_id}'"
    trials = client.search_runs([experiment_id], words, max_results=1000)
    return sorted(set(varying(run.data.params for run in trials)) - {"epochs"})
