"""The OpenAI-compatible backend over several servers, and over servers that go away and come back."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from backends._servers import Servers
from backends._session import watched_socket
from backends.openai import OpenAI
from pacore_lab.errors import BackendError, EngineDead, TransientError
from pacore_lab.interfaces import Chunk
from pacore_lab.sampling.dispatch import Dispatcher, Retry
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.sampling.store import Store
from pacore_lab.types import ChatMessage, Model, SamplingParams
from tests.asking import answering, ask, asking, client, closed_port
from tests.outside import finished_in
from tests.servers import Fault, Payload, RecordingServer, default_text
from tests.waiting import until

ROOT = Path(__file__).parent.parent


def user(text: str) -> tuple[ChatMessage, ...]:
    return ({"role": "user", "content": text},)


@asynccontextmanager
async def fleet(*replies: Callable[[Payload, int], Any] | None, **options: Any) -> AsyncIterator[list[RecordingServer]]:
    servers = [RecordingServer(reply=reply, **options) for reply in replies]
    for server in servers:
        await server.__aenter__()
    try:
        yield servers
    finally:
        for server in servers:
            await server.__aexit__()


@asynccontextmanager
async def running(backend: OpenAI, path: Path, concurrency: int = 256) -> AsyncIterator[Dispatcher]:
    store = await Store.open(path / "store.sqlite")
    retry = Retry(base=0.05, cap=0.2)
    try:
        yield Dispatcher(backend=backend, store=store, params=SamplingParams(), concurrency=concurrency, retry=retry)
    finally:
        await store.close()


async def sample(dispatch: Dispatcher, problems: Sequence[str], n: int) -> list[Any]:
    samplers = [EpisodeSampler(dispatch, seed=0, problem=name, repeat=0) for name in problems]
    calls = (sampler.sample(user(name), n) for sampler, name in zip(samplers, problems, strict=True))
    return list(itertools.chain.from_iterable(await asyncio.gather(*calls)))


def whose(payload: Payload) -> str:
    return payload["messages"][0]["content"]


class Gate:
    """Replies that are held until the gate opens, however slow the machine is."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def reply(self, payload: Payload, n: int) -> str:
        await self.opened.wait()
        return default_text(payload)


async def until_held(servers: Sequence[RecordingServer], count: int) -> None:
    await servers[0].until(lambda _: sum(server.in_flight for server in servers) == count, seconds=30)


async def test_siblings_stay_together_and_prompts_spread() -> None:
    """A prefix cache holds a prompt on one server only; a server that idles is wasted."""
    gate = Gate()
    async with fleet(*[gate.reply] * 3) as servers, client(servers) as backend:
        jobs = [backend.complete(asking(user(f"{name}"), seed=i)) for name in range(64) for i in range(4)]
        together = asyncio.gather(*jobs)
        await until_held(servers, 256)
        gate.opened.set()
        await together
    shares = sorted(server.peak for server in servers)
    assert sum(shares) == 256
    assert shares[2] <= shares[0] + max(8, shares[0] // 4) + 1
    homes: dict[str, set[int]] = {}
    for number, server in enumerate(servers):
        for payload in server.requests:
            homes.setdefault(whose(payload), set()).add(number)
    assert sum(len(found) == 1 for found in homes.values()) > 32


async def test_one_prompt_overflows_to_all_servers() -> None:
    gate, prompt = Gate(), user("x")
    async with fleet(*[gate.reply] * 3) as servers, client(servers) as backend:
        together = asyncio.gather(*(backend.complete(asking(prompt, seed=i)) for i in range(96)))
        await until_held(servers, 96)
        gate.opened.set()
        await together
    assert min(server.peak for server in servers) >= 24


async def test_one_after_another_they_go_to_one_server() -> None:
    async with fleet(None, None) as servers, client(servers) as backend:
        for i in range(10):
            await backend.complete(asking(user("x"), seed=i))
    assert sorted(len(server.requests) for server in servers) == [0, 10]


async def test_messages_encoded_once_are_not_sent_for_another_prompt() -> None:
    """The encoded messages are kept by identity of the prompt: an id used again must not bring back the old text."""
    async with RecordingServer() as server, client(server) as backend:
        await asyncio.gather(*(backend.complete(asking(user(f"p{i % 3}{i}"), seed=i)) for i in range(60)))
    assert {payload["seed"]: whose(payload) for payload in server.requests} == {i: f"p{i % 3}{i}" for i in range(60)}


@pytest.mark.parametrize(
    "bad", [answering(500), answering(503), answering(429, Retry_After="30"), lambda p, n: Fault.RESET,
            lambda p, n: Fault.CUT, answering(200, "{}")]
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
async def test_another_server_is_tried_at_once(bad: Any, stream: bool) -> None:
    """No back-off while somebody else can answer, and no half of an answer is seen twice."""
    async with fleet(bad, None) as servers, client(servers) as backend:
        began = time.monotonic()
        for i in range(12):
            chunks: list[Chunk] = []
            try:
                completion = await backend.complete(asking(user(f"{i}")), chunks.append if stream else None)
            except TransientError:
                assert stream  # cut after its first chunks: the dispatcher begins anew
                assert chunks
                continue
            assert completion.content == default_text(servers[1].requests[-1])
            assert not chunks or "".join(chunk.text for chunk in chunks) == completion.content
        assert time.monotonic() - began < 3
    assert servers[0].requests


async def test_only_when_nobody_is_left_it_is_a_fault() -> None:
    async with fleet(answering(500), answering(429, Retry_After="7"), answering(500)) as servers:
        with pytest.raises(TransientError, match="answers 500") as caught:
            await ask(servers)
        assert [len(server.requests) for server in servers] == [1, 1, 1]
        assert caught.value.retry_after is None
    async with fleet(answering(429, Retry_After="7"), answering(429, Retry_After="3")) as servers:
        with pytest.raises(TransientError) as caught:
            await ask(servers)
        assert caught.value.retry_after == 3


async def test_a_server_that_asks_for_time_gets_it_while_others_are_there() -> None:
    async with fleet(answering(503, "busy", Retry_After="30"), None) as servers, client(servers) as backend:
        for i in range(40):
            await backend.complete(asking(user(f"{i}")))
        assert len(servers[0].requests) == 1
    async with RecordingServer(reply=answering(429, Retry_After="30")) as server, client(server) as backend:
        for _ in range(2):  # alone, it is asked when the dispatcher thinks fit
            with pytest.raises(TransientError):
                await backend.complete(asking())
        assert len(server.requests) == 2


async def test_the_wait_is_that_of_the_server_that_is_free_first() -> None:
    """One that asks for a minute must not hold up a request that another would take in a second."""
    slow, soon = answering(429, Retry_After="60"), answering(429, Retry_After="1")
    async with fleet(slow, soon) as servers, client(servers) as backend:
        waits = []
        for i in range(6):
            with pytest.raises(TransientError) as caught:
                await backend.complete(asking(user(f"{i}")))
            waits.append(caught.value.retry_after)
    assert max(waits) <= 1


async def test_a_permanent_refusal_is_not_carried_around() -> None:
    async with fleet(answering(400, "too long"), answering(400, "too long")) as servers:
        with pytest.raises(BackendError, match="answers 400 too long"):
            await ask(servers)
        assert sorted(len(server.requests) for server in servers) == [0, 1]


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


async def test_servers_that_differ_are_refused() -> None:
    """Two models under one name would be mixed in one store."""
    async with RecordingServer(models=["m"], entry={"root": "org/a"}) as one:
        async with RecordingServer(models=["m"], entry={"root": "org/b"}) as other:
            with pytest.raises(BackendError, match="has org/b and .*, but .* has org/a and .*; list servers that are"):
                await ask([one, other])
        async with RecordingServer() as other:
            with pytest.raises(BackendError, match="unnamed weights"):
                await ask([one, other])
    async with (
        RecordingServer(models=["m"], max_model_len=4096) as one,
        RecordingServer(models=["m"], max_model_len=8192) as other,
    ):
        with pytest.raises(BackendError, match="context of 8192 tokens, but .* context of 4096"):
            await ask([one, other])


async def test_one_of_several_is_not_there_at_the_start() -> None:
    async with RecordingServer() as server:
        with pytest.raises(BackendError, match=r"no server answers at .*connection refused; start it or mend"):
            await ask([server, f"http://127.0.0.1:{closed_port()}"])


def test_the_fingerprint_of_several_servers() -> None:
    """The order of the list says nothing; known weights are the same wherever they are served."""

    def named(*urls: str) -> str:
        return OpenAI(model=Model(name="m"), base_url=list(urls)).fingerprint

    assert named("http://a", "http://b") == named("http://b", "http://a") == "openai:http://a/v1,http://b/v1:m"
    assert named("http://a") == "openai:http://a/v1:m"


async def test_the_fingerprint_names_the_weights_if_known() -> None:
    async with fleet(None, None, models=["m"], entry={"root": "org/a"}) as servers, client(servers) as backend:
        assert backend.fingerprint == "openai:org/a:m"


@pytest.mark.parametrize("urls", [[], ["http://h", "http://h/v1/"], ["http://h", "nonsense"]])
def test_a_list_that_makes_no_sense(urls: list[str]) -> None:
    with pytest.raises(ValueError, match=r"backend\.base_url is"):
        OpenAI(model=Model(name="m"), base_url=urls)


@pytest.mark.parametrize(("settings", "words"), [({"health_interval": 0}, "health_interval"), ({"patience": -1}, "p")])
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"backend\.{words}"):
        OpenAI(model=Model(name="m"), base_url="http://h", **settings)


async def test_a_server_that_leaves_moves_only_its_own_prompts() -> None:
    servers = Servers([f"http://{i}" for i in range(5)], check=asyncio.sleep, interval=1, patience=1)  # type: ignore[arg-type]
    keys = [str(i).encode() for i in range(500)]
    before = {key: servers.pick(servers.ranked(key)) for key in keys}
    counts = Counter(server.root for server in before.values() if server)
    assert min(counts.values()) > 60
    gone = servers.all[2]
    gone.away = "gone"
    moved = {key for key in keys if servers.pick(servers.ranked(key)) is not before[key]}
    assert moved == {key for key in keys if before[key] is gone}


async def test_a_vanished_host_is_noticed_in_two_minutes() -> None:
    """No FIN and no RST: without these options TCP would wait forever for a host whose power is off."""
    with watched_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 9))) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if sys.platform == "linux":
            idle, interval, count, unanswered = (
                made.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            )
            assert 110 <= idle + interval * count <= 130
            assert unanswered == 120_000


async def test_too_few_files_is_one_line(tmp_path: Path) -> None:
    """Every trajectory in flight has a connection; "Too many open files" is no fault of the server's."""
    code = (
        "import asyncio, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from tests.asking import asking, client\n"
        "async def main():\n"
        "    async with client(sys.argv[1]) as backend:\n"
        "        await asyncio.gather(*(backend.complete(asking(seed=i)) for i in range(100)))\n"
        "try: asyncio.run(main())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    async with RecordingServer(reply=lambda p, n: Fault.HANG) as server:
        command = [sys.executable, "-c", code, server.base_url]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert out.decode().startswith("EngineDead this process may open no more than 64 files"), out
    assert "lower concurrency= or raise the limit (ulimit -n)" in out.decode()
    assert json.dumps(out.decode()).count("\\n") == 1
