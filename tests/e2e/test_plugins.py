"""A plug-in costs one YAML file and one function, its constraints included."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import chosen, slow
from test_search import Ran, command

from pneumonia.storage import journal

__all__ = ["command"]

ROOT = Path(__file__).parents[2]

PLUGINS = """
import keras
import keras_tuner
import numpy as np

from typing import Annotated, Literal, Optional
from pneumonia.config import constraints
from pneumonia.config.constraints import Bounds
from pneumonia.datasets.base import SPLITS, ArraySource, build_data, build_split

Units = Annotated[int, Bounds(1, 64)]


def blobs(*, count: Annotated[int, constraints.Bounds(8, high=999)], kind: Literal["soft", "hard"]):
    labels = np.arange(count) % 2
    images = np.random.default_rng(0).integers(0, 99, (count, 16, 16), np.uint8)
    images += (labels * (60 if kind == "hard" else 30)).astype(np.uint8)[:, None, None]
    splits = [build_split(name, ArraySource(images + n), labels=labels)
              for n, name in enumerate(SPLITS)]
    return build_data("blobs", splits, class_names=("no", "yes"), source="made here")


def head(shape, *, units: Units, share: Annotated[float, Bounds(0, below=1)] = 0.5,
         gate: Literal["relu", "tanh"] = "relu", name: Optional[str] = None):
    features = keras.Input(shape)
    x = keras.layers.Dense(units, activation=gate, name="dense")(features)
    x = keras.layers.Dropout(share)(x)
    return keras.Model(features, keras.layers.Dense(1, "sigmoid", name="probability")(x))


def steps(*, learning_rate: Annotated[float, Bounds(above=0, high=1)],
          kind: Literal["sgd", "adam"] = "sgd", nesterov: bool = False):
    return keras.optimizers.get({"class_name": kind, "config": {"learning_rate": learning_rate}})


def lucky(*, objective, hyperparameters, max_trials, seed, max_consecutive_failed_trials,
          luck: "Annotated[int, Bounds(1, 9)]", order: Literal["any", "fixed"] = "any"):
    return keras_tuner.oracles.RandomSearchOracle(
        objective=objective, hyperparameters=hyperparameters, max_trials=max_trials,
        seed=seed + luck, max_consecutive_failed_trials=max_consecutive_failed_trials)
"""

OPTIONS = {
    "dataset": "_target_: users_own.blobs\ncount: 16\nkind: hard\n",
    "dense": "_target_: users_own.head\nunits: choice(4, 8)\nshare: 0.1\ngate: tanh\n",
    "optimizer": "_target_: users_own.steps\nlearning_rate: 0.01\nkind: adam\n",
    "tuner": "_target_: users_own.lucky\nmax_trials: 1\nmax_epochs: 1\nseed: ${seed}\n"
    "max_consecutive_failures: 1\nluck: 3\norder: any\n",
}

MISTAKES = [
    ("dataset.count=many", "expected an integer from 8 to 999 or a range. Received: 'many'"),
    ("dataset.count=7", "expected an integer from 8 to 999 or a range. Received: 7"),
    ("dataset.kind=hrad", "expected soft, hard or a range. Received: 'hrad'. Did you mean hard?"),
    ("+dataset.cuont=9", "an argument that `users_own.blobs` takes. Received: 9. The nearest is"),
    ("~dataset.kind", "expected a value. Received: None. This argument has no default"),
    ("model.image_size=1.5", "expected an integer from 8 to 512 or a range. Received: 1.5"),
    ("model.filters=0", "expected an integer from 1 to 256 or a range. Received: 0"),
    ("model.pooling=flat", "expected avg, max or a range. Received: 'flat'"),
    ("+model.filter=9", "takes. Received: 9. The nearest is `model.filters`"),
    (
        "model.filters='choice(8, 999)'",
        "whose every value is an integer from 1 to 256. Received: 9",
    ),
    ("model.filters='interval(8, 16)'", "Write int(interval(8, 16))"),
    ("dense.units=true", "expected an integer from 1 to 64 or a range. Received: True"),
    ("dense.units=65", "expected an integer from 1 to 64 or a range. Received: 65"),
    ("dense.share=1", "expected a number from 0 to below 1 or a range. Received: 1"),
    ("dense.gate=sigmoid", "expected relu, tanh or a range. Received: 'sigmoid'"),
    ("+dense.name=3", "expected a text, null or a range. Received: 3"),
    ("+dense.unit=3", "takes. Received: 3. The nearest is `dense.units`"),
    ("+dense.shape=3", "`dense.shape`: expected nothing, as the program decides it"),
    ("dense.share='interval(0.5, 1)'", "whose every value is a number from 0 to below 1"),
    (
        "optimizer.learning_rate=fast",
        "expected a number above 0, up to 1 or a range. Received: 'fast'",
    ),
    ("optimizer.learning_rate=0", "expected a number above 0, up to 1 or a range. Received: 0"),
    ("optimizer.kind=adm", "expected sgd, adam or a range. Received: 'adm'. Did you mean adam?"),
    ("+optimizer.nesterov=3", "expected true, false or a range. Received: 3"),
    ("+optimizer.learningrate=1", "The nearest is `optimizer.learning_rate`"),
    ("tuner.luck=none", "expected an integer from 1 to 9. Received: 'none'"),
    ("tuner.luck=10", "expected an integer from 1 to 9. Received: 10"),
    ("tuner.order=al", "expected any or fixed. Received: 'al'"),
    ("+tuner.luk=1", "takes. Received: 1. The nearest is `tuner.luck`"),
    ("tuner.luck='choice(1, 2)'", "Ranges are for dataset"),
    ("model._target_=users_own.unread", "constraints that are written out, as Bounds(1, 64)"),
]

RUNNER = """
import contextlib, io, json, sys
from pneumonia.cli import main as cli
options, results = sys.argv[1:], []
for mistake in json.load(sys.stdin):
    sys.argv, told = ["pneumonia", *options, mistake], io.StringIO()
    with contextlib.redirect_stderr(told):
        status = cli.main()
    heavy = [name for name in ("tensorflow", "keras", "users_own") if name in sys.modules]
    results.append([status, told.getvalue(), heavy])
print(json.dumps(results))
"""


def documented() -> dict[str, str]:
    """Return the files that the README types out, by their names."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:yaml|python)\n# (my_\S+)[^\n]*\n(.*?)```", text, re.DOTALL)
    return {name: text for name, text in blocks if "listener" not in name + text}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user with options and the modules that they name."""
    folder = tmp_path_factory.mktemp("user")
    files = documented() | {
        "users_own.py": f"{PLUGINS}\ndef unread(*, filters: Annotated[int, Bounds(2 * 8)]): ...\n"
    }
    files |= {f"my_conf/{group}/mine.yaml": text for group, text in OPTIONS.items()}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def started(place: Path, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    chosen = [f"{group}=mine" for group in (*OPTIONS, "model")]
    return subprocess.run(
        [sys.executable, *command, "--config-dir", "my_conf", *chosen],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.fixture(scope="module")
def told(place: Path, request: pytest.FixtureRequest) -> dict[int, Any]:
    """What became of the mistakes, all made in one process that has imported nothing."""
    numbers = chosen(request, "number")
    given = json.dumps([MISTAKES[number][0] for number in numbers])
    ran = started(place, "-c", RUNNER, given=given)
    assert ran.returncode == 0, ran.stderr
    return dict(zip(numbers, json.loads(ran.stdout), strict=True))


@pytest.mark.parametrize(
    "number",
    [slow(number) if number % 2 else number for number in range(len(MISTAKES))],
    ids=[mistake for mistake, _ in MISTAKES],
)
def test_a_mistake_is_told_before_anything_is_imported(told: dict[int, Any], number: int) -> None:
    mistake, fragment = MISTAKES[number]
    status, message, heavy = told[number]
    assert (status, heavy) == (2, [])
    assert fragment in message
    assert message.startswith(f"`{mistake.lstrip('+~').partition('=')[0]}`: expected ")
    assert message.count("\n") == 1


@pytest.mark.parametrize("is_alone", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_search_with_nothing_but_plug_ins(
    is_alone: bool, place: Path, command: Callable[..., Ran]
) -> None:
    assert sorted(documented()) == ["my_conf/model/mine.yaml", "my_plugins.py"]
    if is_alone:
        ran = started(place, "-m", "pneumonia")
        assert ran.returncode == 0, ran.stderr
    else:
        chosen = [f"{group}=mine" for group in (*OPTIONS, "model")]
        done = command(place, "--config-dir", "my_conf", *chosen, "callbacks=none")
        assert done.status == 0, done.stderr
    folder = max(path.parent for path in place.glob("outputs/*/*/journal.jsonl"))
    [ended] = [event for event in journal.read(folder) if event["kind"] == "trial_ended"]
    assert ended["status"] == "COMPLETED"
