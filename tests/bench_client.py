"""What the OpenAI-compatible client costs beside the engine: `make bench`. CPU-seconds of this process per trajectory
of 2,000 tokens (about 8 kB), with 1,024 in flight; the server is another process that answers from memory.

The habit: a session and a connection per request, streamed, every chunk through json.loads, texts added up.
The bare loop: the least that aiohttp can do; bodies ready beforehand, json.loads of the answer and nothing else.
Its 2,000 chunks reach the habit as fast as it reads; from an engine they come one by one, which costs it more.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from backends.openai import OpenAI
from pacore_lab.interfaces import Request
from pacore_lab.sampling.dispatch import Dispatcher
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.sampling.store import Store
from pacore_lab.types import Model, Prompt, SamplingParams

ROOT = Path(__file__).resolve().parent.parent
TOKENS, FLIGHTS, SIBLINGS, WAVES = 2_000, 1_024, 16, 4
WORDS = [f"w{i % 97:02d} " for i in range(TOKENS)]
LENGTH = sum(map(len, WORDS))
EVENT: dict[str, Any] = {
    "id": "chatcmpl-" + "0" * 32,
    "object": "chat.completion.chunk",
    "created": 1_770_000_000,
    "model": "m",
}


def answers() -> tuple[bytes, bytes]:
    """The same 2,000 tokens in one body and as a stream of one token a chunk, in vLLM's shape."""
    usage = {"prompt_tokens": 300, "completion_tokens": TOKENS, "total_tokens": 300 + TOKENS}
    message: dict[str, Any] = {"role": "assistant", "content": "".join(WORDS), "tool_calls": []}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    whole = json.dumps({**EVENT, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    parts = [{"index": 0, "delta": {"content": word}, "logprobs": None, "finish_reason": None} for word in WORDS]
    parts.append({"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": "stop"})
    events = [json.dumps({**EVENT, "choices": [part]}).encode() for part in parts]
    events += [json.dumps({**EVENT, "choices": [], "usage": usage}).encode(), b"[DONE]"]
    chunks = [b"data: %b\n\n" % event for event in events]
    stream = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n\r\n"
    return (
        head % (b"application/json", b"Content-Length: %d" % len(whole)) + whole,
        head % (b"text/event-stream; charset=utf-8", b"Transfer-Encoding: chunked") + stream,
    )


class Stub(asyncio.Protocol):
    """Keep-alive HTTP, just enough: an answer `delay` seconds after its request, the first ones when `together` of
    them are in; GET gives the most that were held at once."""

    whole, stream = answers()
    delay, together = 0.0, 1
    held = peak = 0
    all_in: asyncio.Event

    def connection_made(self, transport: Any) -> None:
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        if head.startswith(b"GET"):
            said = b"%d" % Stub.peak
            self.data = b""
            self.transport.write(b"HTTP/1.1 404 Peak\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
            return
        length = int(head.lower().partition(b"content-length:")[2].split(None, 1)[0])
        if len(body) < length:
            return
        self.data = b""
        Stub.held += 1
        Stub.peak = max(Stub.peak, Stub.held)
        if Stub.held == Stub.together:
            Stub.all_in.set()
        asyncio.get_running_loop().create_task(self.answer(self.stream if b'"stream": true' in body else self.whole))

    async def answer(self, answer: bytes) -> None:
        await asyncio.sleep(self.delay)
        await self.all_in.wait()
        Stub.held -= 1
        self.transport.write(answer)


async def serve(delay: float, together: int) -> None:
    Stub.delay, Stub.together, Stub.all_in = delay, together, asyncio.Event()
    more_files()
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0, backlog=16_384)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


def more_files() -> int:
    """Lift the soft limit on open files to the hard one, and say what it is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextmanager
def stub(delay: float = 0.0, together: int = 1) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.bench_client", str(delay), str(together)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def requests() -> list[Request]:
    """`FLIGHTS` requests; siblings share their prompt of about a kilobyte, as the sampler's do."""
    prompts: list[Prompt] = [
        ({"role": "user", "content": f"Problem {i}. " + "Find all integers n with n² + 1 prime. " * 25},)
        for i in range(FLIGHTS // SIBLINGS)
    ]
    params = SamplingParams()
    return [Request(id=f"{i}", prompt=prompts[i // SIBLINGS], params=params, seed=i) for i in range(FLIGHTS)]


def payload(request: Request, **more: Any) -> dict[str, Any]:
    fields = {"model": "m", "messages": request.prompt, "temperature": 1.0, "top_p": 1.0, "seed": request.seed}
    return {**fields, **more}


Ask = Callable[[int], Awaitable[str]]


async def waves(ask: Ask, count: int) -> float:
    """CPU-seconds per trajectory of `FLIGHTS` askers that ask `count` times each."""

    async def asker(number: int) -> None:
        for _ in range(count):
            assert len(await ask(number)) == LENGTH

    gc.collect()
    began = time.process_time()
    await asyncio.gather(*(asker(number) for number in range(FLIGHTS)))
    return (time.process_time() - began) / (FLIGHTS * count)


async def the_habit(url: str) -> float:
    todo = requests()

    async def ask(number: int) -> str:
        text = ""
        body = payload(todo[number], stream=True, stream_options={"include_usage": True})
        async with aiohttp.ClientSession() as session, session.post(f"{url}/chat/completions", json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    event = json.loads(line[6:])
                    if event["choices"]:
                        text += event["choices"][0]["delta"].get("content") or ""
        return text

    return await waves(ask, 1)


async def the_bare_loop(url: str) -> float:
    bodies = [json.dumps(payload(request)).encode() for request in requests()]
    target, headers = URL(f"{url}/chat/completions"), {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
    ) as session:

        async def ask(number: int) -> str:
            async with session.post(target, data=bodies[number]) as response:
                text: str = json.loads(await response.read())["choices"][0]["message"]["content"]
                return text

        return await waves(ask, WAVES)


async def ours(url: str) -> float:
    backend, todo = OpenAI(model=Model(name="m"), base_url=url, probe=False), requests()
    await backend.start()

    async def ask(number: int) -> str:
        return (await backend.complete(todo[number])).content

    try:
        return await waves(ask, WAVES)
    finally:
        await backend.close()


def shown(name: str, values: list[float], scale: float, unit: str) -> str:
    low, middle, high = (f"{value * scale:.2f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{name:28} {middle:>8} {unit} (min {low}, max {high}, n={len(values)})"


def test_client_cpu_per_trajectory(benchmark: Any) -> None:
    """Ours, the habit and the bare loop in turn, in one process, so that a slow moment hits all of them."""
    found: dict[str, list[float]] = {"habit": [], "bare": [], "ours": []}

    def once() -> None:
        found["habit"].append(asyncio.run(the_habit(url)))
        for _ in range(3):
            found["bare"].append(asyncio.run(the_bare_loop(url)))
            found["ours"].append(asyncio.run(ours(url)))

    with stub(delay=0.7) as url:
        benchmark.pedantic(once, rounds=3)
    of_habit = [mine / other for mine, other in zip(found["ours"][::3], found["habit"], strict=True)]
    of_bare = [mine / other for mine, other in zip(found["ours"], found["bare"], strict=True)]
    print()
    for name, values in found.items():
        print(shown(f"{name}, CPU a trajectory", values, 1000, "ms"))
    print(shown("habit / ours", [1 / ratio for ratio in of_habit], 1, "x "))
    print(shown("ours / bare", of_bare, 1, "x "))
    benchmark.extra_info |= {"habit/ours": 1 / statistics.median(of_habit), "ours/bare": statistics.median(of_bare)}
    assert statistics.median(of_habit) <= 1 / 20
    assert statistics.median(of_bare) <= 1.3


async def crowd(url: str, store: Path, count: int, width: int = 40) -> None:
    """`count` trajectories in flight at once, through sampler, dispatcher, client and store."""
    backend = OpenAI(model=Model(name="m"), base_url=url, probe=False)
    await backend.start()
    opened = await Store.open(store)
    dispatch = Dispatcher(backend=backend, store=opened, params=SamplingParams(), concurrency=count)

    async def call(number: int) -> None:
        sampler = EpisodeSampler(dispatch, seed=0, problem=str(number), repeat=0)
        found = await sampler.sample(({"role": "user", "content": f"problem {number}"},), width)
        assert all(len(trajectory.content) == LENGTH for trajectory in found), found[0].error

    async with asyncio.TaskGroup() as group:
        for number in range(count // width):
            group.create_task(call(number))
    assert dispatch.counters.sampled == count
    assert dispatch.counters.retries == dispatch.counters.failed == 0
    await opened.close()
    await backend.close()


def test_10_000_in_flight(benchmark: Any, tmp_path: Path) -> None:
    """One process, one connection each; the server answers only when all are in."""
    count = 10_000
    if (hard := more_files()) < count + 200:
        pytest.skip(f"{count:,} connections need as many open files, and this system allows {hard:,} (ulimit -Hn)")
    script = (
        "import asyncio, json, re, sys, time; from pathlib import Path; from tests.bench_client import crowd;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024;"
        "before = peak();"
        f"asyncio.run(crowd(sys.argv[1], Path(sys.argv[2]), {count}));"
        "print(json.dumps([before, peak(), time.process_time()]))"
    )

    def measure() -> list[float]:
        with stub(together=count) as url:
            command = [sys.executable, "-c", script, url, str(tmp_path / "s.sqlite")]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) as line:
                line.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert int(line.recv(1_000).rpartition(b"\n")[2]) == count
        found: list[float] = json.loads(done.stdout)
        return found

    before, peak, seconds = benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info["peak_mib"] = round(peak)
    print(f"\n{count:,} in flight: peak {peak:,.0f} MiB, of which {before:,.0f} MiB before the first trajectory; "
          f"{seconds:.1f} s CPU in all")  # fmt: skip
    assert peak - before < 1_500


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2])))
