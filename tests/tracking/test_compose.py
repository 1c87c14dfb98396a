"""What `docs/compose.yaml` says, as far as that can be told without images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumonia.tracking.settings import prepare_environment

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(:[?-])([^}]*)\}")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


def filled(text: str) -> str:
    """Return a text with the defaults of its variables, as compose fills it."""
    return VARIABLE.sub(lambda found: found[3] if found[2] == ":-" else "given", text)


def test_no_secret_has_a_default(services: dict[str, Any]) -> None:
    secrets = {
        name: value
        for service in services.values()
        for name, value in service["environment"].items()
        if "PASSWORD" in name
    }
    assert set(secrets) == {"POSTGRES_PASSWORD", "PGPASSWORD"}
    assert {VARIABLE.fullmatch(value)[2] for value in secrets.values()} == {":?"}  # type: ignore[index]
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert "@" not in services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"].replace(
        "://mlflow@postgres/", ""
    )


@pytest.mark.slow  # MLflow's server takes seconds to import
def test_only_this_machine_reaches_the_server_unless_it_is_told(services: dict[str, Any]) -> None:
    assert "ports" not in services["postgres"]
    (port,) = services["mlflow"]["ports"]
    assert filled(port) == "127.0.0.1:5000:5000"
    hosts = filled(services["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"])
    prepare_environment()
    from mlflow.server.security_utils import is_allowed_host_header

    assert is_allowed_host_header(hosts.split(","), "127.0.0.1:5000")
    assert not is_allowed_host_header(hosts.split(","), "elsewhere.example:5000")


def test_images_are_pinned_and_the_server_is_of_our_versions(services: dict[str, Any]) -> None:
    build = services["mlflow"]["build"]
    images = [services["postgres"]["image"], *re.findall(r"FROM (\S+)", build["dockerfile_inline"])]
    assert len(images) == 2
    assert all(re.search(r":\d+\.\d+", image) for image in images)
    assert (FILE.parent / build["context"]).resolve() == ROOT
    (copied,) = re.findall(r"COPY (\S+) ", build["dockerfile_inline"])
    pins = (ROOT / copied).read_text()
    (installed,) = re.findall(
        r"pip install .*--constraint \S+ (.*?) \\", build["dockerfile_inline"]
    )
    assert all(re.search(rf"^{name}==", pins, re.MULTILINE) for name in installed.split())


def test_what_must_stay_is_in_volumes_and_each_waits_for_the_other(
    services: dict[str, Any],
) -> None:
    volumes = yaml.safe_load(FILE.read_text())["volumes"]
    mounted = dict(v.split(":") for service in services.values() for v in service["volumes"])
    assert mounted == {"database": "/var/lib/postgresql/data", "artifacts": "/artifacts"}
    assert set(volumes) == set(mounted)
    assert all(service["healthcheck"]["test"][0] == "CMD" for service in services.values())
    assert services["mlflow"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.slow
def test_mlflow_takes_the_command(services: dict[str, Any]) -> None:
    prepare_environment()
    import mlflow.cli

    program, name, *words = [filled(word) for word in services["mlflow"]["command"]]
    assert (program, name) == ("mlflow", "server")
    given = mlflow.cli.cli.commands["server"].make_context("server", words).params
    assert given["serve_artifacts"]
    assert given["artifacts_destination"] == "/artifacts"
    assert (given["host"], int(given["port"]), int(given["workers"])) == ("0.0.0.0", 5000, 2)
    uri = services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    from sqlalchemy import make_url

    assert make_url(uri).get_dialect().import_dbapi().__name__ == "psycopg2"
