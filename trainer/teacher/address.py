"""Teacher addresses: `local:FOLDER`, `grpc://HOST:PORT[,...]`, `triton://HOST:PORT[,...]/MODEL`, and words for nobody.

`labels` stands for answers that were kept, `uniform` for a control, `none` for no teacher.
`grpcs://` and `tritons://` are the same over TLS. A HOST that is a name stands for all of its addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trainer.errors import BadInput
from trainer.teacher.endpoint import Endpoint
from trainer.teacher.grpc import GrpcEndpoint
from trainer.teacher.local import START_S, LocalEndpoint
from trainer.teacher.places import Place, can_be_host
from trainer.teacher.pool import Patience, Pool
from trainer.teacher.security import access_from_environment

UNIFORM = "uniform"
NONE = "none"
LABELS = "labels"  # what was asked before and kept
NOBODY = (UNIFORM, NONE, LABELS)
FORMS = "local:FOLDER, grpc[s]://HOST:PORT[,...], triton[s]://HOST:PORT[,...]/MODEL, labels, uniform or none"
ENCRYPTED = ("grpcs", "tritons")


def check_address(address: str) -> None:
    """Raises BadInput for an address that no teacher can have."""
    if address in NOBODY:
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


def connect(
    address: str,
    patience: Patience | None = None,
    stopped: Callable[[], bool] = lambda: False,
    digest: str | None = None,
) -> Pool | None:
    """The teacher at an address; None for addresses behind which nobody answers.

    `digest` of the one that is meant, where a server has several; whether it is the one is the caller's to check.
    """
    check_address(address)
    patience = patience or Patience()
    if address in NOBODY:
        return None
    if address.startswith("local:"):
        patient = replace(patience, connect_s=max(patience.connect_s, START_S))
        return Pool([address], lambda _: LocalEndpoint(Path(address.removeprefix("local:"))), patient, stopped=stopped)
    targets, opened = _endpoints(address)
    return Pool(targets, opened, patience, stopped=stopped, digest=digest)


def _endpoints(address: str) -> tuple[list[str], Callable[[Place], Endpoint]]:
    """The targets of an address, and how each of their places is spoken to."""
    scheme = address.partition(":")[0]
    access = access_from_environment(encrypted=scheme in ENCRYPTED)
    if scheme in ("grpc", "grpcs"):
        return _targets(address), lambda place: GrpcEndpoint(place, access)
    try:
        from trainer.teacher.triton import TritonEndpoint
    except ModuleNotFoundError as error:
        raise BadInput(f"triton:// needs {error.name}: pip install 'hoser-distill[triton]'") from None
    targets, model = _model(address)
    return targets, lambda place: TritonEndpoint(place, model, access)


def _targets(address: str) -> list[str]:
    return _checked(address.partition("://")[2].split(","), address)


def _model(address: str) -> tuple[list[str], str]:
    """(targets, model) of a triton:// address."""
    targets, _, model = address.partition("://")[2].rpartition("/")
    if not model:
        raise BadInput(f"teacher address {address!r}: names no model; must be {FORMS}")
    return _checked(targets.split(","), address), model


def _checked(targets: list[str], address: str) -> list[str]:
    for target in targets:
        _check_target(target, address)
    return targets


def _check_target(target: str, address: str) -> None:
    host, _, port = target.rpartition(":")
    if target.startswith("unix:/") and len(target) > len("unix:/"):
        if address.startswith(ENCRYPTED):
            raise BadInput(f"teacher address {address!r}: a Unix socket is plain; write it without the s")
        return
    if not can_be_host(host) or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise BadInput(f"teacher address {address!r}: {target!r} is not HOST:PORT; must be {FORMS}")
