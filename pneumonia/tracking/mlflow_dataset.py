"""A split of a dataset as MLflow describes the input of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

DIGEST_LENGTH = 32  # MLflow takes 36 characters at most
CONTEXTS = {"train": "training", "val": "validation", "test": "testing"}
SCHEMA = {
    "mlflow_tensorspec": {
        "features": json.dumps(
            [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, -1, -1, -1]}}]
        ),
        "targets": json.dumps(
            [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]
        ),
    }
}


def dataset_input(row: Mapping[str, Any]) -> DatasetInput:
    """Return a split, a row of `search_started`, as MLflow's entity."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    kind, source = _describe_source(str(row.get("source", "")))
    counts = {"images": row.get("size"), "positives": row.get("positives")}
    dataset = Dataset(
        str(row["name"]),
        str(row["digest"])[:DIGEST_LENGTH],
        kind,
        source,
        json.dumps(SCHEMA),
        json.dumps({name: count for name, count in counts.items() if count is not None}),
    )
    split = str(row["split"])
    return DatasetInput(dataset, [InputTag("mlflow.data.context", CONTEXTS.get(split, split))])


def _describe_source(source: str) -> tuple[str, str]:
    """Return MLflow's type of a data source and its description in JSON."""
    if source.startswith(("http://", "https://")):
        return "http", json.dumps({"url": source})
    if source and Path(source).exists():
        return "local", json.dumps({"uri": str(Path(source).resolve())})
    return "code", json.dumps({"tags": {"mlflow.source.name": source}})
