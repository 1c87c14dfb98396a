"""What is asked of Ray before it begins, and what is left of it afterwards; without starting it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pneumonia.errors import ConfigError, UserError
from pneumonia.search import ray_session


def node(cpu: float, gpu: float = 0, *, is_alive: bool = True) -> dict[str, Any]:
    """Describe a node as Ray does."""
    return {"Alive": is_alive, "Resources": {"CPU": cpu} | ({"GPU": gpu} if gpu else {})}


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "room"),
    [
        (1, 0, [node(2), node(4)], 6),
        (3, 0, [node(2), node(4), node(7)], 3),
        (0.5, 0, [node(1)], 2),
        (1, 1, [node(8, 2), node(8)], 2),
        (1, 0.5, [node(8, 2)], 4),
        (1, 0.6, [node(8, 2)], 2),  # a share is one of a single GPU
        (0.1, 0, [node(1)], 10),
        (0.2, 0.2, [node(1, 1)], 5),
        (4, 1, [node(8, 4)], 2),
        (1, 0, [node(8, is_alive=False)], 0),
    ],
)
def test_each_worker_has_its_processors_and_gpus_on_one_node(
    cpus: float, gpus: float, nodes: list[dict[str, Any]], room: int
) -> None:
    ray_session._check_room(nodes, workers=room, cpus=cpus, gpus=gpus)
    with pytest.raises(ConfigError, match=f"expected at most {room}. Received: {room + 1}"):
        ray_session._check_room(nodes, workers=room + 1, cpus=cpus, gpus=gpus)


def test_a_cluster_that_does_not_answer_is_told_at_once() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        began = time.monotonic()
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "head:port", "x:99999999"):
            with pytest.raises(ConfigError, match=r"`executor\.address`: expected the"):
                ray_session.check(address)
        server.listen()
        ray_session.check(f"127.0.0.1:{port}")
    for address in (None, "auto"):
        ray_session.check(address)
    assert time.monotonic() - began < ray_session._REACH_SECONDS


@pytest.mark.parametrize("is_kept", [False, True])
def test_ray_that_was_imported_too_early_is_refused(
    is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "RAY_AUTH_MODE": "disabled"})
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    if is_kept:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    text = r"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 RAY_AUTH_MODE=token in its environment"
    for _ in range(2):  # nothing is set that would let the next search through
        with contextlib.nullcontext() if is_kept else pytest.raises(UserError, match=text):
            ray_session.configure(None)
    ray_session.configure("head:6379")


def test_sockets_fit_below_a_long_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("x" * 60)
    far.mkdir()
    for folder in (Path("/tmp"), far):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with ray_session._folder() as made, socket.socket(socket.AF_UNIX) as server:
            assert Path(made).name.startswith(f"{ray_session.PREFIX}{os.getpid()}-")
            # As Ray 2.60 names it, with the highest number that a process has.
            session = Path(made) / "session_2026-01-01_00-00-00_000000_4194304" / "sockets"
            session.mkdir(parents=True)
            server.bind(str(session / "plasma_store"))
        assert not Path(made).exists()


def test_folders_of_processes_that_are_gone_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {pid: tmp_path / f"{ray_session.PREFIX}{pid}-x" for pid in (ended.pid, os.getpid())}
    for path in names.values():
        (path / "session").mkdir(parents=True)
    ray_session.remove_abandoned()
    assert list(tmp_path.iterdir()) == [names[os.getpid()]]
