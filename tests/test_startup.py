"""TensorFlow starts without a word, and fails with all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_starts_quietly_and_deterministically() -> None:
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
"""
    ran = run(code)
    assert (ran.stdout, ran.stderr) == ("True tensorflow\n", "kept for output\n")
    assert ran.returncode == 0


def test_what_keras_would_import_needlessly_is_left_to_who_needs_it() -> None:
    code = """
from pneumonia import startup
startup.start()
import sys
heavy = ("pandas", "matplotlib.pyplot", "sklearn")
print([name for name in heavy if name in sys.modules])
import matplotlib.pyplot, pandas
print(pandas.DataFrame({"x": [1]}).x.sum(), len(matplotlib.pyplot.get_fignums()))
"""
    ran = run(code)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("[]\n1 0\n", "", 0)


def test_an_import_that_fails_shows_what_was_kept_back(tmp_path: Path) -> None:
    (tmp_path / "keras_tuner.py").write_text(
        "import os\nos.write(2, b'a library on this machine is too old\\n')\n"
        "raise ImportError('no TensorFlow here')\n"
    )
    ran = run("from pneumonia import startup; startup.start()", tmp_path)
    assert ran.returncode == 1
    assert "a library on this machine is too old" in ran.stderr
    assert ran.stderr.count("ImportError: no TensorFlow here") == 1


def test_standard_error_may_be_closed(tmp_path: Path) -> None:
    (tmp_path / "keras_tuner.py").write_text("raise ImportError('it has come to the import')")
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
