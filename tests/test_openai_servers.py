"""Several servers under one OpenAI-compatible backend: who gets which prompt, who stands in, what lists are refused."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from backends._servers import Servers
from backends.openai import OpenAI
from pacore_lab.errors import BackendError, TransientError
from pacore_lab.interfaces import Chunk
from pacore_lab.types import Model
from tests.asking import answering, ask, asking, client, closed_port
from tests.fleets import Gate, fleet, until_held, user, whose
from tests.servers import Fault, RecordingServer, default_text


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
