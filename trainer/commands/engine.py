"""`--engine`: where the work of a command is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.errors import BadInput

if TYPE_CHECKING:
    from trainer.cluster import Cluster


class Engine(StrEnum):
    PLAIN = "plain"
    RAY = "ray"


EngineOption = Annotated[Engine, typer.Option(help="plain: here; ray: on the nodes of a Ray cluster that is there.")]


@contextmanager
def cluster_of(engine: Engine) -> Iterator[Cluster | None]:
    """The cluster to work on; None: work here. Raises BadInput."""
    if engine is Engine.PLAIN:
        yield None
        return
    try:
        from trainer.cluster import Cluster
    except ModuleNotFoundError as error:
        raise BadInput(f"--engine ray needs {error.name}: pip install 'hoser-distill[ray]'") from None
    with Cluster() as cluster:
        yield cluster
