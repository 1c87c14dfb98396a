"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

PNEUMONIA_MNIST = Path(__file__).parents[2] / "shared" / "data" / "pneumoniamnist.npz"


@pytest.fixture
def pneumonia_mnist() -> Path:
    """Return the official file, or skip the test where it is not at hand."""
    if not PNEUMONIA_MNIST.exists():
        pytest.skip("needs pneumoniamnist.npz in ../shared/data")
    return PNEUMONIA_MNIST
