"""Files from outside run no code and lead nowhere; what is written holds no secrets."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import h5py
import keras
import numpy as np
import pytest
from families import slow
from test_tracker import Server, server  # noqa: F401

from pneumonia.cli import ui
from pneumonia.config import presets
from pneumonia.config.validate import flatten
from pneumonia.errors import ConfigError, DataError, UserError, hide_passwords, without_passwords
from pneumonia.models import classifier, torch_weights
from pneumonia.search import recorder
from pneumonia.training.trial import Outcome

ROOT = Path(__file__).parents[2]
TRACE = "executed"


def called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


@functools.cache
def sources() -> list[tuple[str, ast.Module]]:
    return [(path.name, ast.parse(path.read_text())) for path in (ROOT / "pneumonia").rglob("*.py")]


def test_the_program_loads_no_pickle_and_evaluates_no_text() -> None:
    for name, tree in sources():
        for node in ast.walk(tree):
            names = {one.name for one in node.names} if isinstance(node, ast.Import) else set()
            # The first reads by a list of what it lets in; the second what the driver of a search
            # has packed for its own workers, through Ray, which pickles whatever it sends.
            is_known = name in ("torch_weights.py", "shipping.py")
            assert is_known or not names & {"pickle", "marshal", "shelve", "dill", "joblib"}
            assert called(node) not in ("eval", "exec", "yaml.load", "pickle.load", "pickle.loads")


def test_arrays_and_models_are_loaded_in_safe_mode_only() -> None:
    counts = {"allow_pickle=False": 0, "safe_mode=True": 0}
    for name, tree in sources():
        for node in ast.walk(tree):
            last = called(node).rpartition(".")[2]
            wanted = {"read_array": "allow_pickle=False", "load_model": "safe_mode=True"}.get(last)
            wanted = "allow_pickle=False" if called(node) == "np.load" else wanted
            if called(node) == "decode.load_model":
                continue  # our own, which is looked at where it is
            if wanted:
                assert wanted in ast.unparse(node), name
                counts[wanted] += 1
    assert all(counts.values())


def files() -> list[str]:
    """Return what is in the current folder."""
    return [path.name for path in Path().iterdir()]


def gadget(module: str, name: str, how: str) -> bytes:
    """Return a pickle that names something, by one of the ways that the format has."""
    argument = f"X{chr(len(TRACE))}\0\0\0{TRACE}".encode()
    if how == "global":
        return f"c{module}\n{name}\n(".encode() + argument + b"tR."
    if how == "stack":
        names = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
        return b"\x80\x04" + names + b"\x93(" + argument + b"tR."
    return b"(" + argument + f"i{module}\n{name}\n.".encode()


@pytest.mark.parametrize("how", ["global", "stack", "inst"])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("builtins", "__import__"),
        ("builtins", "open"),
        ("importlib", "import_module"),
        ("runpy", "run_path"),
        ("pty", "spawn"),
        ("pickle", "loads"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.__class__"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("keras.src.saving.keras_saveable", "KerasSaveable._unpickle_model"),
    ],
)
@pytest.mark.parametrize("place", [0, 3])
def test_the_embedded_weights_are_read_without_running_what_they_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    name: str,
    how: str,
    place: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = [torch_weights.MAGIC_NUMBER, 1001, {"little_endian": True}, {}, []]
    written = [pickle.dumps(part, 2) for part in parts]
    written[place] = gadget(module, name, how)
    Path("weights.pth").write_bytes(b"".join(written))
    with pytest.raises(DataError, match="no part of a state dict"):
        torch_weights.read(Path("weights.pth"))
    assert files() == ["weights.pth"]


def rewrite(path: Path, **changed: bytes) -> None:
    """Put other members into a zip archive, or more of them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | changed).items():
            archive.writestr(name, content)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model file with one dense layer, alone in the current folder."""
    monkeypatch.chdir(tmp_path)
    layers = [keras.Input((2,)), keras.layers.Dense(1, activation="relu", name="only")]
    keras.Sequential(layers).save("model.keras")
    return Path("model.keras")


@pytest.mark.parametrize(
    ("module", "name", "argument"),
    [
        ("os", "system", f"touch {TRACE}"),
        ("builtins", "eval", f"open('{TRACE}', 'w')"),
        ("subprocess", "run", f"touch {TRACE}"),
        ("keras.utils", "get_file", TRACE),
        ("keras.config", "enable_unsafe_deserialization", ""),
        ("keras.saving", "load_model", "other.keras"),
    ],
)
def test_a_classifier_names_nothing_but_layers(
    model: Path, module: str, name: str, argument: str
) -> None:
    with zipfile.ZipFile(model) as archive:
        config = json.loads(archive.read("config.json"))
    fields = {"module": module, "class_name": name, "registered_name": None, "config": argument}
    layer = next(one for one in config["config"]["layers"] if one["config"].get("name") == "only")
    for evil in (
        fields,
        fields | {"class_name": "function", "config": name, "registered_name": "function"},
    ):
        layer["config"]["activation"] = evil
        rewrite(model, **{"config.json": json.dumps(config).encode()})
        with pytest.raises((ValueError, TypeError)):
            classifier.load(model)
    assert files() == ["model.keras"]


def test_members_of_a_classifier_stay_in_it(model: Path) -> None:
    outside = {f"{'../' * depth}{TRACE}": b"text" for depth in (1, 2, 5)}
    rewrite(model, **outside, **{f"{model.resolve().parent}/{TRACE}": b"", "assets/x": b""})
    before = sorted(model.resolve().parent.parent.rglob(TRACE))
    with pytest.warns(UserWarning, match="Skipping invalid path"):
        classifier.load(model)
    assert sorted(model.resolve().parent.parent.rglob(TRACE)) == before == []


@pytest.mark.parametrize("kind", ["link", "external"])
def test_weights_of_a_classifier_come_from_itself(model: Path, kind: str) -> None:
    with zipfile.ZipFile(model) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File("other.h5", "w") as other:
        other["a"] = np.zeros((2, 1), "f4")
    with h5py.File(weights, "r+") as file:
        found: list[str] = []
        file.visit(found.append)
        path = next(name for name in found if name.endswith("vars/0"))
        del file[path]
        if kind == "link":
            file[path] = h5py.ExternalLink(str(Path("other.h5").resolve()), "/a")
        else:
            outside = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
            file.create_dataset(path, shape=(2, 1), dtype="f4", external=outside)
    rewrite(model, **{"model.weights.h5": weights.getvalue()})
    with pytest.raises(ValueError, match=r"[Nn]ot allowed|could not be loaded"):
        classifier.load(model)


def test_the_ui_is_for_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def become(path: str, command: list[str], environment: dict[str, str]) -> NoReturn:
        taken.extend(command)
        raise SystemExit

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").touch()
    monkeypatch.setenv("MLFLOW_HOST", "0.0.0.0")
    monkeypatch.setattr("pneumonia.tracking.settings.open_store", lambda settings: None)
    store = type("Known", (), {"arrange_view": lambda self: "#/"})
    monkeypatch.setattr("pneumonia.tracking.mlflow_store.Store", lambda settings: store())
    monkeypatch.setattr(os, "execve", become)
    with pytest.raises(SystemExit):
        ui.main(["port=5999"])
    assert taken[taken.index("--host") + 1] == "127.0.0.1"
    assert taken.count("--host") == 1


def holding(place: Path, secret: str) -> list[Path]:
    """Return the files that hold a text, databases and archives included."""
    files = [path for path in place.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_search_with_a_server_keeps_passwords_and_the_environment_to_itself(
    server: Server,  # noqa: F811
    tmp_path: Path,
) -> None:
    secrets = {
        name: f"hush-{name.lower()}"
        for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN_OTHER", "API_KEY", "PASSWORD")
    }
    address = server.uri.replace("://", "://anna:hush-password-of-anna@")
    small = [f"dataset.{split}=40" for split in ("train", "val", "test")]
    project = tmp_path / "project"
    project.mkdir()
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pneumonia", f"tracking.uri={address}", "dataset=phantom"),
            *(*small, "dataset.image_size=32", "model=cnn", "model.blocks=1", "model.filters=2"),
            *("dense.units=4", "dense.dropout=0", "optimizer.learning_rate=0.01"),
            *("tuner.max_epochs=1", "callbacks=[default,tensorboard]"),
        ],
        cwd=project,
        env={**os.environ, **secrets, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert "hush" not in ran.stdout + ran.stderr
    assert holding(project, "127.0.0.1")
    assert holding(tmp_path, "hush") == []


def test_the_data_of_a_stranger_is_not_written_elsewhere(tmp_path: Path) -> None:
    from pneumonia.datasets.sources import npz

    place = tmp_path / "data"
    place.mkdir()
    arrays: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
        arrays |= {f"{split}_images": images, f"{split}_labels": np.array([0, 1, 0, 1])}
    np.savez(place / "some.npz", **arrays)
    rewrite(place / "some.npz", **{"../outside.npy": b"x", "/tmp/outside.npy": b"x"})
    npz(path=str(place / "some.npz"))
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "some.npz"]
    (place / "some.npz").unlink()
    with pytest.raises(UserError, match="no such file"):
        npz(path=str(place / "some.npz"))


TRAPS = (
    *("google", "numpy", "mlflow", "keras", "tensorflow", "hydra", "omegaconf", "yaml", "json"),
    *(
        "absl",
        "logging",
        "sitecustomize",
        "usercustomize",
        "hydra_plugins/x",
        "torch",
        "joblib",
        "uvicorn",
    ),
)


def set_traps(folder: Path) -> Path:
    """Put modules into a folder that tell when they are imported."""
    for name in TRAPS:
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(folder / TRACE)!r}, 'a').write({name!r} + ' ')\n")
    return folder / TRACE


def without_safe_path() -> dict[str, str]:
    own = ("PYTHONSAFEPATH", "MLFLOW_TRACKING_URI")
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    return {**inherited, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("command", "status"),
    [
        slow(["-m", "pneumonia", "--cfg", "job"], 0),
        (["-m", "pneumonia", "-m", "hydra/sweeper=nothing"], 2),
        (["-P", "-c", "from pneumonia.cli.main import main; raise SystemExit(main())"], 2),
        (["-m", "pneumonia", "predict", "nothing.png"], 2),
        slow(["-m", "pneumonia", "compare"], 2),
        slow(["-m", "pneumonia", "report"], 2),
        slow(["-m", "pneumonia", "export"], 2),
        slow(["-m", "pneumonia", "ui"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_current_folder_is_not_imported(
    command: list[str], status: int, tmp_path: Path
) -> None:
    trace = set_traps(tmp_path)
    arguments = [*command, "seed=x"] if "-P" in command else command
    environment = without_safe_path()
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (ran.returncode, "Traceback" in ran.stderr) == (status, False), ran.stderr
    assert not trace.exists(), trace.read_text()


def search_of_own(
    folder: Path, modules: Mapping[str, str], *words: str
) -> subprocess.CompletedProcess[str]:
    """Search with the option `mine` of a dataset, from the folder that its modules are in."""
    for name, text in modules.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pneumonia", "-cd", "conf", "dataset=mine", *words),
            *("model=cnn", "model.blocks=1", "model.filters=2", "dense.units=4", "dense.dropout=0"),
            "tuner.max_epochs=1",
        ],
        cwd=folder,
        env=without_safe_path(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.mark.slow
def test_a_search_imports_what_is_named_in_the_current_folder_and_no_more(tmp_path: Path) -> None:
    trace = set_traps(tmp_path)
    ran = search_of_own(
        tmp_path,
        {
            "mine/__init__.py": "",
            "mine/sub/__init__.py": "",
            "mine/sub/data.py": "import beside\n"
            "from google.protobuf import descriptor\n"
            "from pneumonia.datasets.chest_phantom import phantom\n"
            "def load(*, seed):\n"
            "    from joblib import Parallel, delayed\n"
            "    from multiprocessing import get_context\n"
            "    print(Parallel(n_jobs=2)(delayed(beside.double)(i) for i in range(3)))\n"
            "    with get_context('spawn').Pool(1) as pool:\n"
            "        print(pool.map(beside.double, [4]))\n"
            "    sizes = dict(train=40, val=40, test=40, image_size=32)\n"
            "    return phantom(**sizes, positive_fraction=0.5, difficulty=0.5, seed=seed)\n",
            "beside.py": "def double(x): return 2 * x\n",
            "conf/dataset/mine.yaml": "_target_: mine.sub.data.load\nseed: 0\n",
        },
        "-m",
        "seed=1,2",
        "optimizer.learning_rate=0.01",
    )
    assert "[0, 2, 4]\n[8]\n" in ran.stdout
    assert not trace.exists(), trace.read_text()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pneumonia", "ui", f"port={port}"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=without_safe_path(), stderr=subprocess.PIPE, text=True
    ) as served:
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
        finally:
            served.terminate()
    assert not trace.exists(), trace.read_text()


OWN_MODULES = {
    "mine.py": """
import numpy as np
from pneumonia.datasets.base import SPLITS, build_data, build_split

def load(*, seed):
    from beside import Blobs
    splits = [build_split(name, Blobs(seed + n), labels=np.arange(40) % 2)
              for n, name in enumerate(SPLITS)]
    return build_data("blobs", splits, class_names=("no", "yes"), source="made here")

def steps(*, learning_rate):
    import keras
    return keras.optimizers.SGD(learning_rate)
""",
    "beside.py": """
import numpy as np

class Blobs:
    def __init__(self, seed):
        self.images = np.random.default_rng(seed).integers(0, 99, (40, 32, 32, 1), np.uint8)
    def __len__(self):
        return len(self.images)
    def read(self, indices):
        return self.images[indices]
""",
    "conf/dataset/mine.yaml": "_target_: mine.load\nseed: 0\n",
    "conf/optimizer/mine.yaml": "_target_: mine.steps\nlearning_rate: 0.01\n",
}


@pytest.mark.slow
def test_workers_of_ray_import_what_is_named_and_no_more(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    trace = set_traps(tmp_path)
    words = ("optimizer=mine", "executor=ray", "executor.workers=1")
    ran = search_of_own(tmp_path, OWN_MODULES, *words)
    assert "failed" not in ran.stdout + ran.stderr
    assert not trace.exists(), trace.read_text()


def wait_for(address: str) -> None:
    """Wait until a server answers."""
    for _ in range(120):
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.5)
    raise AssertionError(f"nothing answers at {address}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://anna:hush@h:5000/x", "http://h:5000/x"),
        ("http://hush@h", "http://h"),
        ("http://anna:hu/sh@h", "http://h"),
        ("http://anna:hu@sh@h", "http://h"),
        ("http://anna:hu?sh#h%2Fu@h/x", "http://h/x"),
        ("http://anna:hush", "http://"),
        ("http://anna:hu/sh", "http://"),
        ("postgresql://anna:hush@h/db?sslmode=require", "postgresql://h/db?sslmode=require"),
        ("postgresql://h/db?sslmode=require&password=hush", "postgresql://h/db"),
        ("postgresql://h/db?user=a@b&password=hush", "postgresql://b"),
        ("postgresql+psycopg2://h/db?sslkey=hush", "postgresql+psycopg2://h/db"),
        ("mysql+pymysql://u:hush@h:3306/db?charset=utf8", "mysql+pymysql://h:3306/db?charset=utf8"),
        ("http://h/x?api_key=hush", "http://h/x"),
        ("http://h/x#access_token=hush", "http://h/x"),
        ("http://h/x;token=hush?a=1", "http://h/x"),
        ("It is http://h/x; or 'http://h/y';", "It is http://h/x; or 'http://h/y';"),
        ("sqlite:///x.db?password=hush", "sqlite:///x.db"),
        ("sqlite://anna:hush@/x.db", "sqlite:///x.db"),
        ("file://anna:hush@h/x", "file://h/x"),
        ("https://b.s3.org/x?X-Amz-Signature=hush&y=1).", "https://b.s3.org/x)."),
        ("s3://AKIA:hu/sh@bucket/x", "s3://bucket/x"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("wasbs://container@account/x", "wasbs://container@account/x"),
        ("wasbs://container:hush@account/x", "wasbs://account/x"),
        ("sqlite:////home/a@b/x?y.db", "sqlite:////home/a@b/x?y.db"),
        ("file:///a@b", "file:///a@b"),
        ("sqlite+pysqlcipher://:hush@/x.db", "sqlite+pysqlcipher:///x.db"),
        ("a 'http://u:hush@h', b http://u:hush@i.", "a 'http://h', b http://i."),
        ("Is it http://h:5000? Or a@b?", "Is it http://h:5000? Or a@b?"),
        (
            "models:/pneumonia@champion dataset.path=a@b",
            "models:/pneumonia@champion dataset.path=a@b",
        ),
        ('${oc.env:X,"http://127.0.0.1:5000"}', '${oc.env:X,"http://127.0.0.1:5000"}'),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        (r"x=http\://anna\:hush@h\:5000", r"x=http\://h\:5000"),  # as Hydra writes a sweep
    ],
)
def test_what_may_be_secret_in_an_address_is_left_out(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
    assert without_passwords(shown) == shown


@pytest.mark.parametrize(
    "address",
    [
        "http://anna:hush@h",
        "http://anna:hu sh@h",
        "anna:hush@h",
        "http:/anna:hush@h",
        "//anna:hu/sh@h",
        "postgresql://h/x?password=hush",
    ],
)
def test_no_message_shows_a_password(address: str) -> None:
    message = str(ConfigError("tracking.url", "a key of the config", address, "The nearest is x"))
    assert "hu" not in message
    assert message.endswith("The nearest is x.")
    assert "hush" not in str(UserError(f"It is {address}."))


SECRET = "https://anna:hush@h/x?token=hush"


def test_nothing_that_is_recorded_holds_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    config = {"dataset": {"url": SECRET, "names": [SECRET, "b"]}}
    assert "hush" not in str(flatten(config))
    groups = ("augment", "model", "dense", "optimizer", "training", "features")
    whole: dict[str, Any] = {**config, **{group: {} for group in groups}}
    assert "hush" not in presets.text(whole, {}, epochs=1, comment=f"from {SECRET}")
    texts = {"reason": f"no {SECRET}", "traceback": f"Traceback\nno {SECRET}"}
    assert "hush" not in str(recorder.ending(Outcome("0", "FAILED", **texts)))
    hook = sys.excepthook
    try:
        hide_passwords()
        sys.excepthook(ValueError, ValueError(SECRET), None)
    finally:
        sys.excepthook = hook
    assert "ValueError: https://h/x" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        slow(["tracking.uri=http://anna:hu/sh@127.0.0.1:1"], "the URI of an MLflow store"),
        (["tracking.uri=http://anna:hush@127.0.0.1:1"], "Received: 'http://127.0.0.1:1'"),
        (["tracking.uri=http://anna:hush@h", "hydra.run.dir='o/${tracking.uri}'"], "no password"),
        (
            [
                *("-m", "tracking.uri=http://anna:hush@h,http://anna:hush@i"),
                "hydra.sweep.subdir='${hydra.job.override_dirname}'",
            ],
            "no password",
        ),
        (
            ["tracking.artifacts=s3://AKIA:hush@bucket/x"],
            "without a password, which MLflow would show",
        ),
        slow(["tracking.url=http://anna:hush@h"], "a key of the config. Received: 'http://h'"),
    ],
)
def test_a_command_leaves_no_password(
    arguments: list[str], fragment: str, tmp_path: Path, spawn: Any
) -> None:
    small = ["dataset=phantom", "dataset.train=4", "dataset.val=4", "dataset.test=4"]
    done = spawn("pneumonia", *arguments, *small, "hydra.output_subdir=copies", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert fragment in done.stderr
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr
    assert "sh@" not in done.stderr
    assert holding(tmp_path, "hush") == []
    assert not [path for path in tmp_path.rglob("*") if "hush" in str(path)]


LEAKY = "def load(*, url, seed=0):\n    raise KeyError(f'cannot read {url}')\n"


@pytest.mark.parametrize(
    ("options", "status"),
    [([], 1), slow(["-m", "seed=1,2"], 1), (["--cfg", "job"], 0), slow(["-i"], 0)],
)
def test_a_fault_or_a_look_at_the_config_shows_no_password(
    options: list[str], status: int, tmp_path: Path, spawn: Any
) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY)
    (tmp_path / "conf/dataset").mkdir(parents=True)
    (tmp_path / "conf/dataset/leaky.yaml").write_text("_target_: leaky.load\nurl: null\n")
    address = "dataset.url='https://anna:hush@h/x?token=hush'"
    done = spawn("pneumonia", "-cd", "conf", "dataset=leaky", address, *options, folder=tmp_path)
    assert done.returncode == status, done.stderr
    assert "https://h/x" in done.stdout + done.stderr
    assert "hush" not in done.stdout + done.stderr
    assert holding(tmp_path, "hush") == []


def test_a_command_shows_no_password_that_it_refuses(tmp_path: Path, spawn: Any) -> None:
    done = spawn("pneumonia", "ui", SECRET, folder=tmp_path)
    assert (done.returncode, "hush" in done.stderr) == (2, False)
