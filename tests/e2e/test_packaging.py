"""The built wheel works on its own, from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from families import slow

from pneumonia.datasets import dicom
from pneumonia.models import litert

ROOT = Path(__file__).parents[2]
TINY = (
    *("dataset=phantom", "dataset.train=60", "dataset.val=40", "dataset.test=40"),
    *("dataset.image_size=32", "model.image_size=32", "model.layer=block2b_add"),
    *("dense.units=8", 'dense.dropout="choice(0.1, 0.3)"', "optimizer.learning_rate=0.003"),
    *("tuner=grid", "tuner.max_epochs=1", "training.jit=false"),
)


@dataclass(frozen=True)
class Installed:
    """A wheel, and the folder that it is installed in."""

    wheel: Path
    target: Path
    project: Path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run an installed command in an empty folder, far from the checkout."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "TF_"))}
        return subprocess.run(
            [sys.executable, str(self.target / "bin" / command[0]), *command[1:]],
            cwd=self.project,
            env={**inherited, "PYTHONPATH": str(self.target), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    pytest.importorskip("hatchling", reason="builds the wheel without a network")
    folder = tmp_path_factory.mktemp("packaging")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("pneumonia-*.whl")
    target, project = folder / "site", folder / "project"
    project.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    options = ["--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*pip, *options, str(wheel)], check=True, capture_output=True, timeout=120)
    return Installed(wheel, target, project)


@pytest.mark.slow
@pytest.mark.parametrize("line", [dicom.EXTRA, slow(litert.EXTRA)])
def test_what_is_said_to_install_is_what_pip_finds(line: str) -> None:
    # What is installed already needs no network.
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    ran = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "already satisfied" in ran.stdout


def test_wheel_holds_the_package_with_its_conf_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = set(archive.namelist())
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "pneumonia").rglob("*.py")}
    expected |= {f"pneumonia/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")}
    expected |= {"pneumonia/py.typed"}
    expected |= {f"pneumonia/reporting/templates/page.{kind}" for kind in ("html", "css", "js")}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_imports_come_from_the_wheel(installed: Installed) -> None:
    code = (
        "import pneumonia, pneumonia.config.compose as c, importlib.metadata as m; "
        "print(pneumonia.__file__, c.find_conf(), m.version('pneumonia'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed.project,
        env={**os.environ, "PYTHONPATH": str(installed.target)},
        capture_output=True,
        text=True,
        check=True,
    )
    file, conf, version = ran.stdout.split()
    package = installed.target / "pneumonia"
    assert Path(file) == package / "__init__.py"
    assert Path(conf) == package / "conf"
    assert version in installed.wheel.name


@pytest.mark.parametrize("command", ["pneumonia", "pneumonia predict", "pneumonia report"])
def test_help(command: str, installed: Installed) -> None:
    ran = installed.run(*command.split(), "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"  {command} " in ran.stdout


def test_version(installed: Installed) -> None:
    ran = installed.run("pneumonia", "--version")
    assert ran.stdout.strip() == " ".join(installed.wheel.name.split("-")[:2])


def test_config_is_shown_and_leaves_nothing(installed: Installed) -> None:
    ran = installed.run("pneumonia", "--cfg", "job", "experiment=demo")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "_target_: pneumonia.datasets.chest_phantom.phantom" in ran.stdout
    assert list(installed.project.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "pneumonia tuner=",
            {f"tuner={name}" for name in ("asha", "bayesian", "grid", "hyperband", "random")},
        ),
        slow("pneumonia tuner=g", {"tuner=grid"}),
        slow("pneumonia dense.un", {"dense.units="}),
        slow("pneumonia pre", {"predict"}),
        ("pneumonia predict thr", {"threshold="}),
    ],
)
def test_completion(line: str, expected: set[str], installed: Installed) -> None:
    place = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    ran = installed.run("pneumonia", "-sc", "query=bash", **place)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert set(ran.stdout.split()) == expected


def test_completion_is_installed_for_the_command(installed: Installed) -> None:
    ran = installed.run("pneumonia", "-sc", "install=bash")
    assert ran.returncode == 0
    assert "complete " in ran.stdout
    assert "pneumonia" in ran.stdout


@pytest.mark.slow
def test_a_search(installed: Installed) -> None:
    ran = installed.run("pneumonia", *TINY)
    assert ran.returncode == 0, ran.stderr
    assert "2 trials by val_auc" in ran.stdout
    assert {path.name for path in installed.project.iterdir()} == {"mlruns", "outputs"}
    (preset,) = (installed.project / "outputs").rglob("best.yaml")
    assert str(preset.relative_to(installed.project)) in ran.stdout
