"""The OpenAI-compatible backend's connections: kept, cut by cancelling, hundreds at once, too many, closed."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from backends._session import watched_socket
from backends.openai import OpenAI
from pacore_lab.errors import BackendError
from pacore_lab.types import Model
from tests.asking import asking, client, closed_port
from tests.servers import Fault, Payload, RecordingServer, default_text

ROOT = Path(__file__).parent.parent


async def test_streams_reuse_their_connection() -> None:
    async with RecordingServer() as server, client(server) as backend:
        for _ in range(5):
            await backend.complete(asking(), lambda chunk: None)
    assert len(set(server.peers)) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_closes_the_connection(stream: bool) -> None:
    """That is what makes vLLM and SGLang stop generating."""
    async with RecordingServer(delay=0 if stream else 30, chunk_delay=30) as server, client(server) as backend:
        task = asyncio.create_task(backend.complete(asking(), (lambda chunk: None) if stream else None))
        await server.until(lambda s: s.in_flight == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda s: s.aborted == 1 and s.in_flight == 0)
        assert (await asyncio.wait_for(_models(server), 5)) == 404  # and the server is well


async def _models(server: RecordingServer) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    status = int((await reader.read()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


@pytest.mark.parametrize("stream", [False, True])
async def test_512_requests_at_once(stream: bool) -> None:
    """The client's pool had a hidden limit of 100 connections."""
    all_here = asyncio.Event()

    async def reply(payload: Payload, n: int) -> str:
        await all_here.wait()
        return default_text(payload)

    async with RecordingServer(reply=reply) as server, client(server) as backend:
        on_chunk = (lambda chunk: None) if stream else None
        jobs = asyncio.gather(*(backend.complete(asking(seed=i), on_chunk) for i in range(512)))
        await server.until(lambda s: s.in_flight == 512, seconds=30)
        all_here.set()
        completions = await jobs
    texts = {payload["seed"]: default_text(payload) for payload in server.requests}
    assert [c.content for c in completions] == [texts[i] for i in range(512)]


async def test_closing_twice_and_after_a_failed_start() -> None:
    backend = OpenAI(model=Model(name="m"), base_url=f"http://127.0.0.1:{closed_port()}")
    await backend.close()
    with pytest.raises(BackendError):
        await backend.start()
    await backend.close()
    await backend.close()


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
