"""The programs in the Pods: what a container runs, as the cluster would put it together, read by the real parsers."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from torch.distributed.run import get_args_parser
from typer.exceptions import TyperException

from teacher_server.__main__ import app as teacher_app
from tests.compose import ROOT, Image, Mount, Service, read_image
from tests.kubernetes.manifests import Invalid, Object
from trainer.__main__ import app as trainer_app

APPS: dict[str, Any] = {"teacher": typer.main.get_command(teacher_app), "trainer": typer.main.get_command(trainer_app)}
RAN = "#!/bin/sh\nprintf '%s\\n' torchrun \"$@\"\n"


def image_of(container: Object) -> Image:
    """What the container's image is made of, by the Dockerfile."""
    name, _, tag = container["image"].partition(":")
    return read_image(ROOT / "docker" / f"{Path(name).name}.Dockerfile", {"VARIANT": tag.partition("-")[0]})


def environment_of(container: Object) -> dict[str, str]:
    """The image's variables and the container's own."""
    own = {}
    for entry in container.get("env", ()):
        source = entry.get("valueFrom", {}).get("resourceFieldRef", {}).get("resource")
        if source:
            where, what = source.split(".")
            own[entry["name"]] = container["resources"][where][what]
        else:
            own[entry["name"]] = entry["value"]
    return image_of(container).environment | own


def argv_of(container: Object) -> list[str]:
    """The words that the container runs: its command and arguments, or else the image's."""
    image = image_of(container)
    command, args = container.get("command"), container.get("args")
    if args is None:
        args = [] if command else image.command
    return [*(command or image.entrypoint), *args]


def started_by(container: Object, folder: Path, runs: Path = Path("/runs")) -> list[str]:
    """The words of the program that the container ends up as: a shell script is run, with a stand-in for torchrun."""
    argv = argv_of(container)
    if argv[0] != "sh":
        return argv
    stand_in = folder / "torchrun"
    stand_in.write_text(RAN)
    stand_in.chmod(0o755)
    argv = [word.replace("/runs/", f"{runs}/") for word in argv]
    environment = environment_of(container) | {"PATH": f"{folder}:{os.defpath}"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode != 0:
        raise Invalid(f"the container's script fails: {done.stderr.strip()}")
    return done.stdout.splitlines()


def check_command(argv: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """The settings that a program of ours reads from its words and variables, by name. Raises Invalid."""
    if argv[0] == "torchrun":
        try:
            launch = get_args_parser().parse_args(argv[1:])
        except SystemExit:
            raise Invalid(f"torchrun does not take {argv[1:]}") from None
        if not launch.module:
            raise Invalid("torchrun is not told to run a module")
        argv = [launch.training_script, *launch.training_script_args]
    program, name, *words = argv
    if program not in APPS or name not in APPS[program].commands:
        raise Invalid(f"no command {program} {name}")
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        try:
            return dict(APPS[program].commands[name].make_context(name, words).params)
        except TyperException as error:
            raise Invalid(f"{program} {name}: {error}") from None


def as_service(name: str, spec: Object) -> Service:
    """A Pod as a service that `tests.sandbox` runs: its volumes are folders by their names, its memory is tmpfs."""
    (container,) = spec["containers"]
    security, volumes = spec["securityContext"], {volume["name"]: volume for volume in spec["volumes"]}
    mounts, tmpfs = [], []
    for mount in container["volumeMounts"]:
        if memory := volumes[mount["name"]].get("emptyDir"):
            size = re.sub(r"i$", "", memory["sizeLimit"]).lower()
            tmpfs.append(f"{mount['mountPath']}:size={size}")
        else:
            mounts.append(Mount(mount["name"], mount["mountPath"], mount.get("readOnly", False)))
    return Service(
        name=name,
        argv=argv_of(container),
        environment=environment_of(container),
        mounts=mounts,
        ports=[],
        user=f"{security['runAsUser']}:{security['runAsGroup']}",
        healthcheck=None,
        start_seconds=60,
        stop_seconds=spec["terminationGracePeriodSeconds"],
        depends_on={},
        image=image_of(container),
        plain={"read_only": container["securityContext"]["readOnlyRootFilesystem"], "tmpfs": tmpfs},
    )
