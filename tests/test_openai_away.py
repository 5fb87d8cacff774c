"""Servers that go away and come back, under the OpenAI-compatible backend: what is waited for, and for how long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pacore_lab.errors import EngineDead, TransientError
from tests.asking import asking, client
from tests.fleets import Gate, fleet, running, sample, until_held, user
from tests.outside import finished_in
from tests.servers import Fault, Payload, RecordingServer, default_text
from tests.waiting import until


async def test_one_of_two_dies_with_200_in_flight(tmp_path: Path) -> None:
    """Nothing is lost, nothing waits for the dead one, nothing is finished twice."""
    gate = Gate()
    async with (
        fleet(gate.reply, gate.reply) as servers,
        client(servers) as backend,
        running(backend, tmp_path) as dispatch,
    ):
        job = asyncio.create_task(sample(dispatch, [f"p{i}" for i in range(50)], 4))
        await until_held(servers, 200)
        assert servers[0].in_flight > 40
        before = len(servers[1].requests)
        await servers[0].kill()
        await until_held(servers[1:], 200)
        gate.opened.set()
        found = await job
        assert dispatch.counters.retries == 0
    assert [t.error for t in found] == [None] * 200
    assert len({t.id for t in found}) == 200
    assert len(finished_in(tmp_path / "store.sqlite")) == 200
    seeds = Counter(payload["seed"] for payload in servers[1].requests)
    assert len(servers[1].requests) == 200 > before
    assert max(seeds.values()) == 1


async def test_a_server_that_returns_is_used_again(caplog: pytest.LogCaptureFixture) -> None:
    async with fleet(None, None) as servers, client(servers) as backend:
        await servers[0].kill()
        for i in range(20):
            await backend.complete(asking(user(f"{i}")))
        assert servers[0].requests == []
        await servers[0].restart()
        await until(lambda: "is back" in caplog.text)
        for i in range(20):
            await backend.complete(asking(user(f"{i}")))
    assert servers[0].requests
    assert "is away (connection refused); 1 of 2 servers left" in caplog.text


async def restarts(path: Path, away: float) -> None:
    """All of 64 trajectories come out of a server that is away for `away` seconds in their middle."""
    gate = Gate()
    async with (
        RecordingServer(gate.reply) as server,
        client(server, patience=3 * away) as backend,
        running(backend, path, concurrency=32) as dispatch,
    ):
        job = asyncio.create_task(sample(dispatch, [f"p{i}" for i in range(16)], 4))
        await until_held([server], 32)
        await server.kill()
        await asyncio.sleep(away)
        waiting = dispatch.counters.running
        asked = len(server.requests)
        gate.opened.set()
        await server.restart()
        found = await job
        assert dispatch.counters.retries == waiting == 32  # one each, for the connection; none for the wait
    assert asked == 32
    assert [t.error for t in found] == [None] * 64
    assert max(Counter(payload["seed"] for payload in server.requests[asked:]).values()) == 1


async def test_a_server_that_restarts_is_waited_for(tmp_path: Path) -> None:
    await restarts(tmp_path, 1)


@pytest.mark.slow
async def test_a_server_that_restarts_for_a_minute(tmp_path: Path) -> None:
    await restarts(tmp_path, 60)


async def test_a_gateway_without_its_server_is_waited_for(tmp_path: Path) -> None:
    """A proxy in front of a server that restarts answers 502 to everything: that is no answer to ask again for."""
    down, looks = False, 0

    def reply(payload: Payload, n: int) -> Any:
        return web.Response(status=502) if down else default_text(payload)

    def models() -> web.Response:
        nonlocal looks
        looks += 1
        return web.Response(status=502 if down else 404)

    async with (
        RecordingServer(reply=reply, models=models, delay=0.05) as server,
        client(server) as backend,
        running(backend, tmp_path, concurrency=8) as dispatch,
    ):
        job = asyncio.create_task(sample(dispatch, ["p"], 32))
        await server.until(lambda s: s.in_flight == 8)
        down, looks = True, 0
        await until(lambda: looks >= 30)
        asked = len(server.requests)
        assert asked <= 24
        down = False
        found = await job
    assert [t.error for t in found] == [None] * 32


async def test_all_away_for_longer_than_patience_is_one_line() -> None:
    async with fleet(None, None) as servers, client(servers, patience=0.3) as backend:
        for server in servers:
            await server.kill()
        with pytest.raises(TransientError, match="connection refused"):
            await backend.complete(asking())
        began = time.monotonic()
        failures = await asyncio.gather(*(backend.complete(asking()) for _ in range(50)), return_exceptions=True)
    assert 0.1 < time.monotonic() - began < 2
    assert all(isinstance(failure, EngineDead) for failure in failures)
    line = str(failures[0])
    assert line.count("away since 2") == line.count("(connection refused)") == 2
    assert all(server.base_url in line for server in servers)
    assert line.endswith("what was sampled is stored, the same command resumes")
    assert "\n" not in line


async def test_cancelling_while_waiting() -> None:
    async with RecordingServer() as server, client(server, patience=60) as backend:
        await server.kill()
        with pytest.raises(TransientError):
            await backend.complete(asking())
        tasks = [asyncio.create_task(backend.complete(asking())) for _ in range(20)]
        await asyncio.sleep(0)  # a turn, in which each of them begins to wait
        for task in tasks[:10]:
            task.cancel()
        assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(
            *tasks[:10], return_exceptions=True))  # fmt: skip
        assert not any(task.done() for task in tasks[10:])
        await server.restart()
        assert all(done.content for done in await asyncio.gather(*tasks[10:]))


async def test_closing_while_servers_are_away_leaves_no_task() -> None:
    async with RecordingServer() as server:
        async with client(server, patience=60) as backend:
            await server.kill()
            with pytest.raises(TransientError):
                await backend.complete(asking())
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_under_a_request_leaves_no_task() -> None:
    """The connection it loses is not the server's fault: a watch begun then would outlive its session."""
    async with RecordingServer(delay=30) as server:
        async with client(server) as backend:
            servers = backend._live.servers
            task = asyncio.create_task(backend.complete(asking()))
            await server.until(lambda s: s.in_flight == 1)
        with pytest.raises(TransientError):
            await task
        await server.until(lambda s: s.in_flight == 0)
        assert servers is not None
        assert [known.watch for known in servers.all] == [None]


async def test_a_server_that_comes_back_with_other_weights_stays_out(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody restarts it with the next checkpoint: its samples would carry the old name in the store."""
    async with fleet(None, None, models=["m"], entry={"root": "org/a"}) as servers, client(servers) as backend:
        await servers[0].kill()
        for i in range(8):
            await backend.complete(asking(user(f"{i}")))
        servers[0].entry = {"root": "org/b"}
        await servers[0].restart()
        await until(lambda: "is away (it came back with org/b and a context" in caplog.text)
        for i in range(8):
            await backend.complete(asking(user(f"{i}")))
        assert servers[0].requests == []
        servers[0].entry = {"root": "org/a"}
        await until(lambda: "is back" in caplog.text)
        for i in range(8):
            await backend.complete(asking(user(f"{i}")))
    assert servers[0].requests


async def test_a_connection_that_breaks_each_time_ends_after_the_usual_tries(tmp_path: Path) -> None:
    """The list of models says that the server is well: without the retry budget this would go on forever."""
    async with (
        RecordingServer(reply=lambda p, n: Fault.RESET) as server,
        client(server) as backend,
        running(backend, tmp_path) as dispatch,
    ):
        found = await sample(dispatch, ["p"], 2)
    assert all("after 9 tries" in (t.error or "") for t in found)
    assert all(t.content == "" for t in found)
    assert len(server.requests) == 18
