"""The flags of every command that asks a served teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PANEL = "A teacher behind TLS or tokens"

Ca = Annotated[
    Path | None,
    typer.Option(envvar="TEACHER_CLIENT_CA", help="PEM file: who may sign its certificate.", rich_help_panel=PANEL),
]
ClientCert = Annotated[
    Path | None,
    typer.Option(envvar="TEACHER_CLIENT_CERT", help="PEM file: the certificate to show.", rich_help_panel=PANEL),
]
ClientKey = Annotated[
    Path | None, typer.Option(envvar="TEACHER_CLIENT_KEY", help="PEM file: its private key.", rich_help_panel=PANEL)
]
TokenFile = Annotated[
    Path | None,
    typer.Option(envvar="TEACHER_CLIENT_TOKEN_FILE", help="File with the bearer token to show.", rich_help_panel=PANEL),
]
