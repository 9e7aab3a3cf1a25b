"""No image can be pulled where the tests run, so each service of ours starts by its very command."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
OURS = {"tracking": "/health", "dashboard": "/_stcore/health"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_file_names_the_three_services_and_holds_no_secret() -> None:
    assert set(COMPOSE["services"]) == {"postgres", *OURS}
    for name, service in COMPOSE["services"].items():
        assert service["healthcheck"]["test"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), f"{name} is open to the network"
        for key, value in service["environment"].items():
            if "PASSWORD" in key or "@" in str(value):
                assert "${POSTGRES_PASSWORD:-" in str(value), f"{name}: {key} holds a password"


@pytest.mark.parametrize("name", OURS)
def test_the_command_of_a_service_starts_and_is_healthy(name: str, tmp_path: Path) -> None:
    service = COMPOSE["services"][name]
    port = free_port()
    words = shlex.split(service["command"])
    inside = words[words.index("--port") + 1]
    assert service["ports"] == [f"127.0.0.1:{inside}:{inside}"]
    assert f"localhost:{inside}{OURS[name]}" in service["healthcheck"]["test"][-1]

    # What differs from the container: the port, the folder /data, and SQLite in place of PostgreSQL.
    words[words.index("--port") + 1] = str(port)
    words = [word.replace("/data", str(tmp_path)) for word in words]
    words[0] = str(Path(sys.executable).with_name(words[0]))
    environment = {
        **os.environ,
        "CONTRAFACT_WORKSPACE": str(tmp_path),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path / 'tracking.db'}",
    }
    with (tmp_path / "service.log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{OURS[name]}", timeout=2) as reply:
                    assert reply.status == 200
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                told = (tmp_path / "service.log").read_text()[-2000:]
                assert process.poll() is None, told
                assert time.monotonic() < deadline, told
                time.sleep(0.3)
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)
