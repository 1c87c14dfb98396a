"""What an option needs and is not there is told before anything is imported for it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from pneumonia.config import compose
from pneumonia.errors import ConfigErrors


def test_ray_that_is_not_installed_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name)
    )
    with pytest.raises(ConfigErrors) as raised:
        compose.check(["executor=ray", "dataset=phantom"])
    assert str(raised.value) == (
        "`executor`: expected local, as Ray is not installed. Received: 'ray'. "
        "pip install 'pneumonia[ray]' brings it."
    )
    assert compose.check(["executor=local", "dataset=phantom"])


def test_ray_is_found_without_being_imported() -> None:
    code = (
        "import sys; from pneumonia.config import compose; "
        "compose.check(['executor=ray', 'dataset=phantom', 'executor.store=memory://x']); "
        "print(sorted({'ray', 'tensorflow'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
