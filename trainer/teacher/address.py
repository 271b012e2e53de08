"""Teacher addresses: `local:FOLDER`, `grpc://HOST:PORT[,HOST:PORT]`, `triton://HOST:PORT/MODEL`, `uniform`, `none`.

`grpcs://` and `tritons://` are the same over TLS.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainer.errors import BadInput
from trainer.teacher.grpc import GrpcTeacher
from trainer.teacher.local import LocalTeacher
from trainer.teacher.protocol import Teacher
from trainer.teacher.security import Access, access_from_environment

UNIFORM = "uniform"
NONE = "none"
FORMS = "local:FOLDER, grpc[s]://HOST:PORT[,HOST:PORT], triton[s]://HOST:PORT/MODEL, uniform or none"
ENCRYPTED = ("grpcs", "tritons")


def check_address(address: str) -> None:
    """Raises BadInput for an address that no teacher can have."""
    if address in (UNIFORM, NONE):
        return
    scheme, _, rest = address.partition(":")
    if scheme == "local" and rest:
        return
    if scheme in ("grpc", "grpcs") and rest.startswith("//"):
        _targets(address)
        return
    if scheme in ("triton", "tritons") and rest.startswith("//"):
        _model(address)
        return
    raise BadInput(f"teacher address {address!r}: must be {FORMS}")


def connect(address: str, deadline_s: float) -> Teacher | None:
    """The teacher at an address; None for the two addresses behind which nobody answers."""
    check_address(address)
    if address in (UNIFORM, NONE):
        return None
    if address.startswith("local:"):
        return LocalTeacher(Path(address.removeprefix("local:")), deadline_s=deadline_s)
    scheme = address.partition(":")[0]
    access = access_from_environment(encrypted=scheme in ENCRYPTED)
    if scheme in ("triton", "tritons"):
        return _triton(*_model(address), deadline_s, access)
    return GrpcTeacher(_targets(address), deadline_s=deadline_s, access=access)


def _triton(target: str, model: str, deadline_s: float, access: Access) -> Teacher:
    try:
        from trainer.teacher.triton import TritonTeacher
    except ModuleNotFoundError as error:
        raise BadInput(f"triton:// needs {error.name}: pip install 'hoser-distill[triton]'") from None
    return TritonTeacher(target, model, deadline_s=deadline_s, access=access)


def _targets(address: str) -> list[str]:
    targets = address.partition("://")[2].split(",")
    for target in targets:
        _check_target(target, address)
    return targets


def _model(address: str) -> tuple[str, str]:
    """(target, model) of a triton:// address."""
    target, _, model = address.partition("://")[2].rpartition("/")
    if not model:
        raise BadInput(f"teacher address {address!r}: names no model; must be {FORMS}")
    _check_target(target, address)
    return target, model


def _check_target(target: str, address: str) -> None:
    host, _, port = target.rpartition(":")
    if target.startswith("unix:/") and len(target) > len("unix:/"):
        if address.startswith(ENCRYPTED):
            raise BadInput(f"teacher address {address!r}: a Unix socket is plain; write it without the s")
        return
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise BadInput(f"teacher address {address!r}: {target!r} is not HOST:PORT; must be {FORMS}")
