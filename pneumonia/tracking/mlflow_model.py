"""A saved `.keras` file laid out as an MLflow model, without loading it.

`mlflow.keras.log_model` wants a Keras model object and saves it once more. A trial has its file
already, so this writes what `mlflow.keras.save_model` (MLflow 3.17) would write around it, and
`serving`, which checks what the model is asked: it opens with `mlflow.keras.load_model` and
`mlflow.pyfunc.load_model` anywhere, without this package.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pneumonia import files
from pneumonia.models.classifier_file import KEY, read_facts

CODE = "code"
DATA = "data"
CLASSIFIER = "model.keras"
EXAMPLE = "input_example.json"
SERVING_EXAMPLE = "serving_input_example.json"
EXAMPLE_SIDE = 8

_SERVING = Path(__file__).with_name("serving.py")
_LOADER = "pneumonia_serving"


def write_model(folder: Path, classifier: Path, *, model_id: str, run_id: str) -> None:
    """Write an MLflow model that wraps a classifier; an existing one is written over.

    Args:
        folder: Where the model goes, made if need be.
        classifier: The `.keras` file, hard-linked where the file system can, else copied.
        model_id: The id of MLflow's logged model.
        run_id: The run that trained it.

    Raises:
        OSError: The file is missing or the folder cannot be written.
    """
    data = folder / DATA
    data.mkdir(parents=True, exist_ok=True)
    link(classifier, data / CLASSIFIER)
    (data / "keras_module.txt").write_text("keras")
    (folder / CODE).mkdir(exist_ok=True)
    for name, text in _side_files().items():
        (folder / name).write_text(text)
    facts = read_facts(classifier)
    _write_description(folder, facts, model_id=model_id, run_id=run_id)


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where links cannot reach."""
    with files.atomic(target) as part:
        try:
            os.link(source, part)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, part)


def requirements() -> list[str]:
    """Return what the model needs to run, pinned to the versions at hand."""
    return [f"{name}=={metadata.version(name)}" for name in ("mlflow", "keras", "tensorflow")]


def _write_description(folder: Path, facts: dict[str, Any], *, model_id: str, run_id: str) -> None:
    from mlflow.models import Model

    model = Model(artifact_path=str(folder), run_id=run_id, model_uuid=model_id, model_id=model_id)
    model.metadata = {KEY: facts} if facts else None
    model.signature = _signature()
    model.saved_input_example_info = {
        "artifact_path": EXAMPLE,
        "serving_input_path": SERVING_EXAMPLE,
        "type": "ndarray",
    }
    model.add_flavor(
        "keras",
        data=DATA,
        keras_version=metadata.version("keras"),
        keras_backend="tensorflow",
        save_exported_model=False,
    )
    model.add_flavor(
        "python_function",
        loader_module=_LOADER,
        code=CODE,
        python_version=platform.python_version(),
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    )
    model.model_size_bytes = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    model.save(str(folder / "MLmodel"))


@cache
def _signature() -> object:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # MLflow casts a request to the inputs of a signature without a word; `serving` checks it.
    return ModelSignature(outputs=Schema([TensorSpec(np.dtype("float32"), (-1, 1))]))


@cache
def _side_files() -> dict[str, str]:
    """Return the text of the files that are the same in every model, by name.

    The input example is a made-up grey ramp: a patient's image has no place in a registry.
    """
    python = platform.python_version()
    needs = requirements()
    side = range(EXAMPLE_SIDE)
    ramp = [[[[16 * (row + column)] for column in side] for row in side]]
    pip = "".join(f"  - {need}\n" for need in needs)
    return {
        f"{CODE}/{_LOADER}.py": _SERVING.read_text(),
        "requirements.txt": "\n".join(needs),
        "conda.yaml": "channels:\n- conda-forge\ndependencies:\n"
        f"- python={python}\n- pip\n- pip:\n{pip}name: mlflow-env\n",
        "python_env.yaml": f"python: {python}\nbuild_dependencies:\n- pip\n- setuptools\n- wheel\n"
        "dependencies:\n- -r requirements.txt\n",
        EXAMPLE: json.dumps(ramp),
        SERVING_EXAMPLE: json.dumps({"inputs": ramp}),
    }
