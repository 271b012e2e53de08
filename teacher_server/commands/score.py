"""`teacher score`: ask a served teacher by hand."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from teacher_server.commands.client_flags import Ca, ClientCert, ClientKey, TokenFile
from teacher_server.errors import InvalidRequest


def score(
    address: Annotated[str, typer.Argument(help="grpc[s]://HOST:PORT, HOST:PORT or unix:PATH.")],
    request: Annotated[typer.FileText, typer.Argument(help="JSON file; - is standard input.")] = "-",  # type: ignore[assignment]
    ca: Ca = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    token_file: TokenFile = None,
) -> None:
    """Ask a served teacher how probable candidates are: {"histories": [[1, 2]], "candidates": [[[3, 4]]], "window": 0}.

    Or whole trips: {"trips": [[1, 2, 3]]}.
    """
    from teacher_server.channel import ClientFiles
    from teacher_server.client import judge_address, score_address

    try:
        content = json.load(request)
    except ValueError as error:
        raise InvalidRequest(f"{request.name}: not valid JSON: {error}") from None
    ask = judge_address if isinstance(content, dict) and "trips" in content else score_address
    print(json.dumps(ask(address, content, ClientFiles(ca, client_cert, client_key, token_file))))
