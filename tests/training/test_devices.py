"""What TensorFlow computes with is set once in a process, before it computes anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pneumonia import startup
from pneumonia.errors import UserError
from pneumonia.process import processors


def test_what_computes_already_keeps_its_threads() -> None:
    startup.import_keras()
    startup.use_threads(processors())
    with pytest.raises(UserError) as caught:
        startup.use_threads(processors() + 1)
    assert f"expected {processors()}, with which TensorFlow computes" in str(caught.value)


CODE = """
from pneumonia import startup
from pneumonia.errors import UserError
startup.use_threads(5)
startup.use_threads(3, trials=2)
# Devices of the CPU in the place of GPUs.
import tensorflow as tf
gpus, grown, listed = ["GPU 0", "GPU 1"], [], tf.config.list_physical_devices
tf.config.list_physical_devices = lambda kind=None: gpus if kind == "GPU" else listed(kind)
tf.config.experimental.set_memory_growth = lambda gpu, on: grown.append((gpu, on))
startup.start()
tf.config.list_physical_devices = listed
print(grown == [(gpu, True) for gpu in gpus])
tf.linalg.matmul(tf.ones((9, 9)), tf.ones((9, 9)))
threads = tf.config.threading
print(threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads())
startup.use_threads(3)
try:
    startup.use_threads(1)
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_threads_and_memory_of_gpus_are_set_before_tensorflow_computes() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[:2] == ["True", "3 6"]
    assert lines[2].startswith("`training.threads`: expected 3, with which")
    assert "Received: 1." in lines[2]
