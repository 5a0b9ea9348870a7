"""docker/compose.yaml, read as the engines read it: no secret in it, nothing open, everything watched and kept."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = [name for name, service in SERVICES.items() if "profiles" not in service]
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::-([^}]*))?\}")


def settings() -> dict[str, str]:
    """What env.example sets, and what it shows as a comment."""
    lines = (DOCKER / "env.example").read_text(encoding="utf-8").splitlines()
    pairs = (line.lstrip("#").partition("=") for line in lines if re.match(r"#?[A-Z0-9_]+=", line))
    return {name: value for name, _, value in pairs}


def environment(name: str) -> dict[str, str | None]:
    return dict(SERVICES[name].get("environment") or {})


def test_it_is_what_stands_up_a_server() -> None:
    assert set(SERVERS) == {"postgres", "s3", "mlflow"}
    assert SERVICES["train"]["build"]["dockerfile"] == "docker/Dockerfile"
    assert SERVICES["train"]["build"]["args"] == {"VARIANT": "${VARIANT:-cpu}"}
    assert SERVICES["train-gpu"]["gpus"] == "all"
    for service in SERVICES.values():
        assert "privileged" not in service
        assert "no-new-privileges:true" in service["security_opt"]
        if "build" in service:
            assert (DOCKER / service["build"]["context"]).resolve() == DOCKER.parent


def test_no_password_stands_in_the_files() -> None:
    secrets = COMPOSE["secrets"]
    assert all(set(secret) == {"environment"} for secret in secrets.values())
    given = settings()
    assert all(given[secret["environment"]] == "" for secret in secrets.values())
    assert given["MLFLOW_TRACKING_PASSWORD"] == ""
    for name in SERVICES:
        for key, value in environment(name).items():
            if re.search("PASSWORD|SECRET|TOKEN|_KEY$", key) and value is not None:
                assert value.startswith("/run/secrets/"), f"{name}: {key}"
    ini = configparser.ConfigParser()
    ini.read(DOCKER / "basic_auth.ini")
    assert "admin_password" not in ini["mlflow"]
    assert ini["mlflow"]["database_uri"] == "postgresql://mlflow@postgres:5432/mlflow_auth"
    assert environment("mlflow")["MLFLOW_BACKEND_STORE_URI"] == "postgresql://mlflow@postgres:5432/mlflow"


def test_every_secret_is_given_to_who_reads_it() -> None:
    for name, service in SERVICES.items():
        read = set(re.findall(r"/run/secrets/(\w+)", str(service)))
        if name == "mlflow":
            read |= set(re.findall(r"\$\(secret (\w+)\)", (DOCKER / "mlflow_server.sh").read_text(encoding="utf-8")))
        assert read == set(service.get("secrets", [])), name
        assert read <= set(COMPOSE["secrets"])


def test_only_the_server_is_reached_and_from_this_machine_alone() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"mlflow"}
    (port,) = SERVICES["mlflow"]["ports"]
    assert port.startswith("${BIND:-127.0.0.1}:")
    assert settings()["BIND"] == "127.0.0.1"
    assert COMPOSE["networks"]["stores"]["internal"] is True
    assert all(SERVICES[name]["networks"] == ["stores"] for name in ("postgres", "s3"))
    assert "stores" not in SERVICES["train"]["networks"]
    hosts = str(environment("mlflow")["MLFLOW_SERVER_ALLOWED_HOSTS"]).split(",")
    assert "mlflow:5000" in hosts and "*" not in hosts


@pytest.mark.parametrize("name", SERVERS)
def test_servers_are_watched_and_start_again(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD" and check["retries"] > 1
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["logging"]["options"]["max-size"]
    needs = SERVICES[name].get("depends_on", {})
    assert all(need == {"condition": "service_healthy"} for need in needs.values())
    assert name != "mlflow" or set(needs) == {"postgres", "s3"}


def test_data_are_in_named_volumes() -> None:
    mounted = [volume.partition(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert {source for source, _, _ in mounted if source[0].isalpha()} == set(COMPOSE["volumes"])
    for source, _, target in mounted:
        if source.startswith("."):
            assert target.endswith(":ro") and (DOCKER / source).is_file()


def test_every_variable_is_explained_and_images_are_pinned() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    used = {name for name, _ in VARIABLE.findall(text)}
    used |= {secret["environment"] for secret in COMPOSE["secrets"].values()}
    used |= {key for key, value in environment("train").items() if value is None}
    assert used == set(settings())
    for name in ("postgres", "s3"):
        (default,) = (default for _, default in VARIABLE.findall(SERVICES[name]["image"]))
        assert re.fullmatch(r"[\w.-]+\.\w+/[\w/.-]+:v?\d+\.\d+[\w.-]*", default), default
    base = re.search(r"^ARG BASE=(\S+)$", (DOCKER / "mlflow.Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert base is not None and re.search(r"@sha256:[0-9a-f]{64}$", base[1])
