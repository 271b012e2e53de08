"""What Docker would make of `compose.yaml` and the Dockerfiles: each service's command, environment, mounts, checks."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[1]
SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Image:
    """The last stage of a Dockerfile, built with some arguments."""

    entrypoint: list[str]
    command: list[str]
    environment: dict[str, str]
    user: str
    stop_signal: str
    healthcheck: str  # as written
    stages: list[list[tuple[str, str]]]  # instructions and their values, stage by stage

    def all(self, instruction: str) -> list[str]:
        """Values of an instruction in the last stage."""
        return [value for name, value in self.stages[-1] if name == instruction]


@dataclass(frozen=True)
class Mount:
    """A volume or a folder in a container."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class Service:
    """One service of the compose file, with what it has from its image."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    mounts: list[Mount]
    ports: list[str]
    user: str
    healthcheck: list[str] | None  # the command
    start_seconds: float  # until which a failing check does not count
    stop_seconds: float  # between SIGTERM and SIGKILL
    depends_on: dict[str, str]  # service → condition
    image: Image
    plain: dict[str, Any]  # the service as YAML has it


def _foreign(entrypoint: list[str], command: list[str], user: str) -> Image:
    return Image(entrypoint, command, {}, user, "SIGTERM", "", [])


# Images that are not built here: what their makers' Dockerfiles say.
FOREIGN = {
    "prom/prometheus": _foreign(["/bin/prometheus"], ["--config.file=/etc/prometheus/prometheus.yml"], "65534:65534"),
    "grafana/grafana": _foreign(["/run.sh"], [], "472:0"),
}


def read_image(file: Path, arguments: Mapping[str, str]) -> Image:
    """Parses a Dockerfile as it would be built with these arguments."""
    with file.open("rb+") as stream:
        lines = DockerfileParser(fileobj=stream).structure
    instructions = [(line["instruction"], line["value"]) for line in lines if line["instruction"] != "COMMENT"]
    starts = [i for i, (name, _) in enumerate(instructions) if name == "FROM"] + [len(instructions)]
    stages = [instructions[a:b] for a, b in pairwise(starts)]
    last = dict(stages[-1])
    known = {name: default.strip('"') for name, default in (v.split("=", 1) for n, v in stages[-1] if n == "ARG")}
    known |= {name: value for name, value in arguments.items() if name in known}
    environment = {}
    for word in shlex.split(" ".join(value for name, value in stages[-1] if name == "ENV")):
        name, value = word.split("=", 1)
        environment[name] = re.sub(r"\$\{(\w+)\}", lambda found: known[found[1]], value)
    return Image(
        json.loads(last["ENTRYPOINT"]),
        json.loads(last["CMD"]),
        environment,
        last["USER"],
        last["STOPSIGNAL"],
        last["HEALTHCHECK"],
        stages,
    )


def read_compose(variables: Mapping[str, str] | None = None) -> dict[str, Service]:
    """All services, with the variables of the compose file filled in."""
    content = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = _filled(content["services"], variables or {})
    return {name: _service(name, plain) for name, plain in services.items()}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    """`${NAME:-default}` and `$$`, wherever there is text."""
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        assert found[1], f"neither $$ nor ${{NAME:-default}}: {value}"
        return variables.get(found[1]) or found[2]

    return re.sub(r"\$\$|\$\{(\w+):-([^}]*)\}|\$", fill, value)


def _service(name: str, plain: dict[str, Any]) -> Service:
    if build := plain.get("build"):
        image = read_image(ROOT / build["dockerfile"], build["args"])
    else:
        image = FOREIGN[plain["image"].partition(":")[0]]
    check = plain.get("healthcheck")
    assert check is None or check["test"][0] == "CMD"
    return Service(
        name=name,
        # As in Docker, an entry point of the service's own does away with the image's command.
        argv=plain.get("entrypoint", image.entrypoint)
        + plain.get("command", [] if "entrypoint" in plain else image.command),
        environment=image.environment | plain.get("environment", {}),
        mounts=[Mount(m[0], m[1], m[2:] == ["ro"]) for m in (text.split(":") for text in plain["volumes"])],
        ports=plain.get("ports", []),
        user=plain["user"],
        healthcheck=check["test"][1:] if check else None,
        start_seconds=_seconds(check["start_period"]) if check else 0,
        stop_seconds=_seconds(plain.get("stop_grace_period", "10s")),
        depends_on={other: how["condition"] for other, how in plain.get("depends_on", {}).items()},
        image=image,
        plain=plain,
    )


def _seconds(text: str) -> float:
    return float(text[:-1]) * SECONDS[text[-1]]
