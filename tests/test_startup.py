"""TensorFlow starts without a word, and fails with all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from families import quick

from pneumonia import startup

ROOT = Path(__file__).parents[1]


def run(code: str, *paths: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with nothing set that would make TensorFlow quiet."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "KERAS_"))}
    where = os.pathsep.join(str(path) for path in (*paths, ROOT))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": where, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


SETTINGS = """
from pneumonia import startup
{call}
import os, keras
print(keras.backend.backend(), keras.config.floatx(), keras.config.epsilon(),
      keras.config.image_data_format(), keras.config.dtype_policy().name)
print(keras.src.backend.config.keras_home() == os.environ.get("KERAS_HOME"))
print([name for name in os.environ if name.startswith(("KERAS_", "TF_ENABLE", "TF_USE", "XLA"))])
"""
EXPECTED = "tensorflow float32 1e-07 channels_last float32\n"
# What Keras itself fails at.
FAULTY = {"floatx": "bfloat16", "epsilon": 1}
FAULTS = {"KERAS_BACKEND": "torch", "KERAS_MAX_EPOCHS": "few", "TF_USE_LEGACY_KERAS": "1"}


def test_starts_quietly_deterministically_and_without_what_is_not_needed(tmp_path: Path) -> None:
    code = """
from pneumonia import startup
startup.start()
startup.start()
import sys, keras, tensorflow as tf
from tensorflow.python.framework import config
print("kept for output", file=sys.stderr, flush=True)
print(config.is_op_determinism_enabled(), keras.backend.backend())
keras.utils.set_random_seed(1)
tf.function(lambda: tf.random.uniform(()))()
# What Keras would import needlessly is left to who needs it.
heavy = ("pandas", "matplotlib.pyplot", "sklearn")
print([name for name in heavy if name in sys.modules])
import matplotlib.pyplot, pandas
print(pandas.DataFrame({"x": [1]}).x.sum(), len(matplotlib.pyplot.get_fignums()))
"""
    # A home of Keras that cannot be used does no harm, nor do settings that it fails at.
    (tmp_path / "keras.json").write_text(json.dumps(FAULTY))
    home = f"import os; os.chdir({str(tmp_path)!r})\n"
    ran = run(home + code + SETTINGS.format(call=""), KERAS_HOME="", **FAULTS)
    assert ran.stdout.startswith("True tensorflow\n[]\n1 0\n" + EXPECTED)
    assert ran.stdout.endswith("\n['KERAS_BACKEND']\n")
    assert ran.stderr == "kept for output\n"
    assert ran.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["keras.json"]


def test_an_import_that_fails_shows_what_was_kept_back(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'a library on this machine is too old\\n')\n"
        "raise ImportError('no TensorFlow here')\n"
    )
    ran = run("from pneumonia import startup; startup.start()", tmp_path)
    assert ran.returncode == 1
    assert "a library on this machine is too old" in ran.stderr
    assert ran.stderr.count("ImportError: no TensorFlow here") == 1


def test_standard_error_may_be_closed(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('it has come to the import')")
    code = """
import sys
from pneumonia import startup
sys.stderr = None
try:
    startup.start()
except ImportError as error:
    print(error)
"""
    assert run(code, tmp_path).stdout == "it has come to the import\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "settings", "environment"),
    [
        (
            "startup.start()",
            {"floatx": "float16", "image_data_format": "channels_first", "backend": "jax"},
            {"KERAS_BACKEND": "", "TF_ENABLE_ONEDNN_OPTS": "0", "XLA_FLAGS": "--none_such=1"},
        ),
        ("startup.import_keras()", FAULTY, FAULTS),
        ("startup.start()", [], {"KERAS_NNX_ENABLED": "1"}),
        (
            "startup.start()",
            None,
            {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2", "KERAS_BACKEND": "none such"},
        ),
    ],
)
def test_settings_of_keras_and_tensorflow_change_nothing(
    call: str, settings: object, environment: dict[str, str], tmp_path: Path
) -> None:
    text = "{" if settings is None else json.dumps(settings)
    (tmp_path / "keras.json").write_text(text)
    ran = run(SETTINGS.format(call=call), KERAS_HOME=str(tmp_path), **environment)
    names = sorted(ran.stdout.removeprefix(f"{EXPECTED}True\n").strip("[]'\n").split("', '"))
    assert (names, ran.stderr) == (["KERAS_BACKEND", "KERAS_HOME"], "")


@pytest.mark.slow
def test_settings_count_as_little_where_keras_was_imported_before(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(
        '{"floatx": "float16", "image_data_format": "channels_first"}'
    )
    code = SETTINGS.format(call="startup.prepare(); import keras; startup.start()")
    ran = run(code, KERAS_HOME=str(tmp_path), KERAS_BACKEND="jax")
    assert ran.stdout.startswith(f"{EXPECTED}True\n")


@pytest.mark.slow
@pytest.mark.parametrize("home", ["", "none/such", "file"])
def test_a_home_of_keras_that_cannot_be_used_does_no_harm(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").touch()
    code = f"import os; os.chdir({str(tmp_path)!r})\n" + SETTINGS.format(call="startup.start()")
    ran = run(code, KERAS_HOME=home and str(tmp_path / home))
    assert ran.stdout.startswith(EXPECTED)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_places_in_the_flags_of_xla_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_cuda_data_dir=/opt/cuda --xla_cpu_enable_fast_math")
    for name in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, os.environ.get(name, "2"))
    startup.prepare()
    assert os.environ["XLA_FLAGS"] == "--xla_gpu_cuda_data_dir=/opt/cuda"


WARNINGS = """
{call}
import logging, warnings
import numpy
numpy.array([1.0]) / 0
warnings.simplefilter("always")
warnings.warn_explicit("old", DeprecationWarning, "/x/library.py", 3)
with warnings.catch_warnings():
    warnings.warn("it has not converged", RuntimeWarning)
logging.getLogger("PIL.TiffImagePlugin").warning("an odd file")
print("it goes on")
"""
CALLS = {
    "startup": "from pneumonia import startup; startup.prepare()",
    "command": "from pneumonia.cli.main import main; main(['predict'])",
    "search": "from pneumonia.cli.main import main; main(['--cfg=none'])",
}


@pytest.mark.parametrize("module", quick(CALLS, "command", "search"))
def test_warnings_of_libraries_are_for_those_who_write_programs(module: str) -> None:
    code = WARNINGS.format(call=CALLS[module])
    ran = run(code)
    assert (ran.stdout, "Warning" in ran.stderr, "odd" in ran.stderr) == (
        "it goes on\n",
        False,
        False,
    )
    asked = run(code, PYTHONWARNINGS="default")
    assert asked.stderr.count("Warning: ") >= 3
    strict = run(code, PYTHONWARNINGS="error")
    assert "RuntimeWarning: divide by zero" in strict.stderr
    assert strict.returncode == 1


# In the place of what takes two seconds to import.
STAND_IN = """
import sys, types
for name in ("mlflow", "mlflow.store", "mlflow.store.db", "mlflow.store.db.utils"):
    sys.modules[name] = types.ModuleType(name)
"""


@pytest.mark.parametrize("mlflow", quick(("", STAND_IN), STAND_IN), ids=["real", "stand-in"])
def test_the_process_of_the_tracking_warns_of_nothing_either(mlflow: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import atexit, warnings\natexit.register(warnings.warn, 'at the end')\n{mlflow}"
    )
    ran = run("from pneumonia.tracking.sidecar import serve; serve()", tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_filter_that_makes_errors_of_warnings_still_does() -> None:
    startup.prepare()
    with pytest.raises(RuntimeWarning, match="divide by zero"):
        np.array([1.0]) / 0
