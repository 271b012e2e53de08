"""Who may ask: bearer tokens from a file, for the gRPC and the HTTP door alike. Health is open to all."""

from __future__ import annotations

import hmac
import logging
import re
import stat
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import grpc

from teacher_server.addresses import Address, is_public
from teacher_server.errors import BadSettings, Unauthenticated
from teacher_server.files import reason
from teacher_server.grpc_status import STATUS_OF
from teacher_server.settings import Security
from teacher_server.tls import ServerTls
from teacher_server.watched import Watched

MIN_CHARACTERS = 16
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750's form, which every header can carry
OPEN_METHODS = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)

log = logging.getLogger("teacher")


class BearerTokens:
    """The tokens of a file: one a line, at least 16 characters; blank lines and lines that begin with # do not count.

    Raises BadSettings, which names file and line but never a token.
    """

    def __init__(self, file: Path) -> None:
        self._digests = Watched((file,), lambda: _read_tokens(file))
        if file.stat().st_mode & stat.S_IROTH:
            log.warning("every user of this machine can read the tokens in %s: chmod o-r is safer", file)

    def check(self, authorization: Iterable[str]) -> None:
        """Raise Unauthenticated unless there is one Authorization header, `Bearer TOKEN`, with a known token."""
        shown = list(authorization)
        if len(shown) != 1:
            raise Unauthenticated("this teacher asks for a token: send the header 'authorization: Bearer TOKEN', once")
        scheme, _, token = shown[0].partition(" ")
        digest = sha256(token.strip(" ").encode()).digest()
        # Digests, all of them, in constant time: how long it takes says nothing of how near a guess was.
        known = [hmac.compare_digest(digest, one) for one in self._digests.value()]
        if scheme.lower() != "bearer" or not any(known):
            raise Unauthenticated("the token is not known here")


@dataclass(frozen=True)
class Access:
    """What both doors ask of their callers. The default: whoever reaches the port may ask, in plain text."""

    tls: ServerTls | None = None
    tokens: BearerTokens | None = None
    open_metrics: bool = False  # metrics and the status page are as open as health


def access_of(security: Security, addresses: Iterable[Address]) -> Access:
    """Read the files. Raises BadSettings; warns where tokens would cross a network that others may listen to."""
    tls = ServerTls(security.tls) if security.tls else None
    tokens = BearerTokens(security.token_file) if security.token_file else None
    public = ", ".join(str(address) for address in addresses if is_public(address))
    if tokens and public and not tls:
        log.warning("tokens will cross the network to %s in plain text: give --tls-cert and --tls-key", public)
    return Access(tls, tokens, security.open_metrics)


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses gRPC calls without a good token before their message is read; health is open."""

    def __init__(self, tokens: BearerTokens, reading: Callable[[], AbstractContextManager[None]]) -> None:
        """`reading`: around what is done to a request before it reaches the service, for whoever counts refusals."""
        self._tokens, self._reading = tokens, reading

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        if handler_call_details.method not in OPEN_METHODS:
            metadata = handler_call_details.invocation_metadata
            try:
                with self._reading():
                    self._tokens.check(value for name, value in metadata if name == "authorization")
            except Unauthenticated as error:
                return _refusal(error)
        return await continuation(handler_call_details)


def _refusal(error: Unauthenticated) -> grpc.RpcMethodHandler:
    async def refuse(requests: object, context: grpc.aio.ServicerContext) -> None:
        await context.abort(STATUS_OF[type(error)], error.brief)

    # Of the streaming kind whatever the method is, for that kind does not wait for a message.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _read_tokens(file: Path) -> tuple[bytes, ...]:
    """The tokens' digests."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError:
        raise BadSettings(f"--token-file {file}: it holds more than plain letters, digits and signs") from None
    except OSError as error:
        raise BadSettings(f"--token-file {file} cannot be read ({reason(error)})") from None
    tokens = {number: line.strip() for number, line in enumerate(lines, 1)}
    tokens = {number: token for number, token in tokens.items() if token and not token.startswith("#")}
    for number, token in tokens.items():
        if len(token) < MIN_CHARACTERS or not TOKEN.fullmatch(token):
            raise BadSettings(
                f"{file}:{number}: a token has at least {MIN_CHARACTERS} letters, digits or signs of ._~+/-= "
                "(openssl rand -hex 32 makes one)"
            )
    if not tokens:
        raise BadSettings(f"--token-file {file} holds no token: write one a line (openssl rand -hex 32 makes one)")
    return tuple(sha256(token.encode()).digest() for token in tokens.values())
