"""What a server does with a folder that it cannot load now, and may load later."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from teacher_server import hosting as hosting_module
from teacher_server import retries as retries_module
from teacher_server.addresses import TcpAddress
from teacher_server.assembly import Assembly, Loaded
from teacher_server.errors import BadArtifact, EngineFailure
from teacher_server.hosting import Hosting
from teacher_server.limits import Connections, Limits
from teacher_server.models import Models
from teacher_server.repository import Repository
from teacher_server.retries import FIRST_PAUSE_S, LONGEST_PAUSE_S, Retries
from teacher_server.settings import Security, Settings, Telling
from tests.serving import tiny_artifact

SETTINGS = Settings(
    artifacts=(),
    grpc_addresses=(TcpAddress("127.0.0.1", 0),),
    http_address=None,
    model_name=None,
    device="cpu",
    dtype="float32",
    batch_tokens=None,
    compile=False,
    max_queue_delay=0.0,
    batch_timeout=None,
    exit_when_stuck=False,
    queue_tokens=10_000,
    limits=Limits(),
    drain_delay=0.0,
    drain_timeout=5.0,
    connections=Connections(),
    security=Security(),
    telling=Telling(),
    until_stdin_closes=False,
)
SOON_S = 0.02


@dataclass
class Trouble(Assembly):
    """An assembly whose loads fail as `errors` say, by the folder's name; the others are real."""

    errors: dict[str, Exception] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(SETTINGS)

    def load(self, folder: Path, *, may_change: bool) -> Loaded:
        self.tried.append(folder.name)
        if error := self.errors.get(folder.name):
            raise error
        return super().load(folder, may_change=may_change)


@dataclass
class Hosted:
    """A server's models, as they follow a shelf."""

    shelf: Path
    assembly: Trouble
    models: Models

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(SOON_S)

    async def looks(self, times: int = 5) -> None:
        """Let the shelf be looked at so many times, and more."""
        await asyncio.sleep(2 * times * SOON_S)


@asynccontextmanager
async def hosted(shelf: Path, **errors: Exception) -> AsyncIterator[Hosted]:
    """The shelf's teachers, ready, and followed for the time of a `with`."""
    models, assembly = Models(), Trouble(errors=errors)
    hosting = Hosting(Repository([shelf]), models, assembly, lambda name, digest: [], drain_timeout=5.0)
    hosting.load_all()
    await hosting.warm_up()
    following = asyncio.create_task(hosting.follow())
    try:
        yield Hosted(shelf, assembly, models)
    finally:
        following.cancel()
        await asyncio.gather(models.drain(5.0), *hosting.retiring)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the teachers `north` and `south`; whoever follows it looks often."""
    monkeypatch.setattr(hosting_module, "POLL_S", SOON_S)
    monkeypatch.setattr(hosting_module, "LEAVE_S", SOON_S)
    for seed, name in enumerate(("north", "south")):
        tiny_artifact(tmp_path / "shelf" / name, seed=seed)
    yield tmp_path / "shelf"
    gc.unfreeze()


def unreadable() -> BadArtifact:
    error = BadArtifact("south/model.safetensors: cannot be read: [Errno 5] Input/output error")
    error.__cause__ = OSError(5, "Input/output error")
    return error


@pytest.mark.parametrize("error", [MemoryError("CUDA out of memory"), unreadable()], ids=["memory", "disk"])
def test_what_memory_or_the_disk_failed_is_tried_again(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(retries_module, "FIRST_PAUSE_S", SOON_S)

    async def body() -> None:
        async with hosted(shelf, south=error) as server:
            assert server.models.broken == {"south": str(error)}
            await server.until(lambda: server.assembly.tried.count("south") > 2)
            del server.assembly.errors["south"]
            await server.until(lambda: server.models.get("south") is not None)
            assert not server.models.broken
            tried = len(server.assembly.tried)
            await server.looks()
            assert len(server.assembly.tried) == tried

    asyncio.run(body())


def test_it_is_tried_as_soon_as_another_has_gone(shelf: Path) -> None:
    """The pause itself is far longer than this test waits."""

    async def body() -> None:
        tiny_artifact(shelf / "west", seed=2)
        async with hosted(shelf, south=MemoryError("CUDA out of memory")) as server:
            del server.assembly.errors["south"]
            await server.looks()
            assert server.assembly.tried.count("south") == 1
            (shelf / "west").rename(shelf / ".west")
            async with asyncio.timeout(retries_module.FIRST_PAUSE_S / 2):
                await server.until(lambda: server.models.get("south") is not None)

    asyncio.run(body())


def test_what_is_wrong_in_itself_is_tried_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries_module, "FIRST_PAUSE_S", SOON_S)

    async def body() -> None:
        tiny_artifact(shelf / "west", seed=2)
        errors = {"south": BadArtifact("the weights have 3 layers"), "west": EngineFailure("not finite")}
        async with hosted(shelf, **errors) as server:
            await server.looks(10)
            assert sorted(server.assembly.tried) == ["north", "south", "west"]

    asyncio.run(body())


def test_nothing_is_loaded_while_the_device_is_stuck(shelf: Path) -> None:
    async def body() -> None:
        async with hosted(shelf) as server:
            server.assembly._device.set_stuck()
            tiny_artifact(shelf / "east", seed=3)
            (shelf / "south").rename(shelf / ".south")
            await server.until(lambda: server.models.get("south") is None)
            await server.looks()
            assert "east" not in server.assembly.tried
            server.assembly._device.set_stuck(False)
            await server.until(lambda: server.models.get("east") is not None)
            assert server.assembly.tried.count("east") == 1

    asyncio.run(body())


def test_pauses_double_up_to_a_bound() -> None:
    now = [0.0]
    retries, pauses = Retries(lambda: now[0]), list[float]()
    assert not retries.due("city")
    for _ in range(9):
        retries.failed("city")
        begun = now[0]
        while not retries.due("city"):
            now[0] += FIRST_PAUSE_S
        pauses.append(now[0] - begun)
    assert pauses[:4] == [FIRST_PAUSE_S * factor for factor in (1, 2, 4, 8)]
    assert pauses[-1] == LONGEST_PAUSE_S
    retries.forget("city")
    retries.hurry()
    assert not retries.due("city")
