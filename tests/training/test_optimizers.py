"""Optimizers by name."""

from __future__ import annotations

import keras
import pytest

from pneumonia.errors import ConfigError
from pneumonia.training import loop, optimizers


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", keras.optimizers.Adam),
        ("rmsprop", keras.optimizers.RMSprop),
        ("sgd", keras.optimizers.SGD),
        ("AdamW", keras.optimizers.AdamW),
        ("muon", keras.optimizers.Muon),
    ],
)
def test_builds_by_name(name: str, kind: type[keras.optimizers.Optimizer]) -> None:
    optimizer = optimizers.by_name(name=name, learning_rate=0.01)
    assert type(optimizer) is kind
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert optimizer.name == name.lower()


def test_passes_momentum_on() -> None:
    assert optimizers.by_name(name="sgd", learning_rate=0.1, momentum=0.9).momentum == 0.9
    assert optimizers.by_name(name="sgd", learning_rate=0.1).momentum == 0.0


@pytest.mark.parametrize(
    ("name", "momentum", "message"),
    [
        ("adm", None, "The nearest is `adam`"),
        ("optimizer", None, "`optimizer.name`"),
        ("lossscaleoptimizer", None, "`optimizer.name`"),
        ("adam", 0.9, "`optimizer.momentum`: expected null, as adam has none"),
    ],
)
def test_names_a_mistake(name: str, momentum: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        optimizers.by_name(name=name, learning_rate=0.1, momentum=momentum)


def test_averages_of_weights_that_would_come_to_nothing_are_refused() -> None:
    section = {"_target_": "keras.optimizers.SGD", "learning_rate": 0.1, "use_ema": True}
    config = {"optimizer": section, "training": {}}
    started = loop.started(keras.Sequential(), config, 0)
    with (
        pytest.raises(ConfigError, match=r"`optimizer.ema_overwrite_frequency`: expected"),
        started,
    ):
        pass
