"""Where images come from: every source yields a valid dataset or one clear error."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumonia import prepared
from pneumonia.data import ImageData
from pneumonia.datasets import image_folder, npz, pneumonia_mnist
from pneumonia.errors import ConfigError, DataError
from pneumonia.image_files import decode

# ---------------------------------------------------------------- PneumoniaMNIST through TFDS

MNIST_FILE = Path(__file__).parents[2] / "shared" / "data" / "pneumoniamnist.npz"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which PneumoniaMNIST is prepared."""
    if not MNIST_FILE.exists():
        pytest.skip("needs pneumoniamnist.npz in ../shared/data")
    folder = tmp_path_factory.mktemp("tfds")
    # What a process killed in its midst leaves behind.
    (folder / "pneumonia_mnist" / "incomplete.ABC123_1.0.0").mkdir(parents=True)
    (folder / "pneumonia_mnist.lock").touch()
    pneumonia_mnist(data_dir=str(folder), manual_dir=str(MNIST_FILE.parent))
    return folder
