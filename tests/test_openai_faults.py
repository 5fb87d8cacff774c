"""The OpenAI-compatible backend against servers that misbehave, hang up or are not there; the test server by itself."""

from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web

from pacore_lab.errors import BackendError, EngineDead, RequestError, TransientError
from pacore_lab.interfaces import Chunk
from pacore_lab.types import Model
from tests.asking import answering, ask, ask_streaming, asking, client, closed_port, delta, streaming
from tests.servers import Fault, RecordingServer, default_text

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.CUT])
async def test_a_broken_connection_may_be_tried_again(fault: Fault, stream: bool) -> None:
    async with RecordingServer(reply=lambda payload, n: fault) as server:
        with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
            await (ask_streaming(server) if stream else ask(server))


async def test_a_stream_that_ends_early_is_no_answer() -> None:
    """A tidy end in the middle would pass for a short answer."""
    async with RecordingServer(reply=lambda payload, n: Fault.CUT_CLEANLY) as server:
        with pytest.raises(TransientError, match="ended before the answer"):
            await ask_streaming(server)


async def test_a_stream_that_stalls_is_given_up_and_closed() -> None:
    async with RecordingServer(reply=lambda payload, n: Fault.STALL) as server:
        with pytest.raises(TransientError, match="no answer in time"):
            await ask_streaming(server, idle_timeout=0.2)
        await server.until(lambda s: s.aborted == 1)


async def test_waiting_for_the_first_byte_has_no_limit() -> None:
    """A request that queues in the engine for longer than idle_timeout or connect_timeout is not killed."""
    async with RecordingServer(delay=0.5) as server:
        assert (await ask_streaming(server, idle_timeout=0.1, connect_timeout=0.2))[0].content
        assert (await ask(server, connect_timeout=0.2)).content


async def test_the_idle_clock_starts_with_the_first_text() -> None:
    """Some servers send the role at once and the first token when the queue lets them."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n')
        await asyncio.sleep(0.4)
        writer.write(b'data: {"choices": [{"delta": {"content": "7"}, "finish_reason": "stop"}]}\n\n')
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with client(url, idle_timeout=0.1) as backend:
            assert (await backend.complete(asking(), lambda chunk: None)).content == "7"


async def test_a_server_gone_mid_run() -> None:
    async with RecordingServer() as server, client(server, patience=0.1) as backend:
        await backend.complete(asking())
        await server.kill()
        with pytest.raises(TransientError, match=r"the connection was lost|connection refused"):
            await backend.complete(asking())
        with pytest.raises(EngineDead, match=r"0\.1 s \(backend\.patience\): .* \(connection refused\); .* resumes"):
            await backend.complete(asking())


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
async def test_statuses_that_pass(status: int) -> None:
    async with RecordingServer(reply=answering(status, {"error": {"message": "busy"}}, Retry_After="3")) as server:
        with pytest.raises(TransientError, match=f"{status} busy") as caught:
            await ask(server)
    assert caught.value.retry_after == 3


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("1.5", 1.5, 1.5),
        (3600, 3400, 3601),  # seconds from now, as a date
        (-3600, 0, 0),
        ("-5", 0, 0),
    ],
)
async def test_retry_after(header: str | int, low: float, high: float) -> None:
    if isinstance(header, int):  # counted from when this test runs, not from when it was collected
        header = email.utils.formatdate(time.time() + header, usegmt=True)
    async with RecordingServer(reply=answering(429, Retry_After=header)) as server:
        with pytest.raises(TransientError) as caught:
            await ask(server)
    assert caught.value.retry_after is not None
    assert low <= caught.value.retry_after <= high


@pytest.mark.parametrize("header", ["soon", "nan", "inf", ""])
async def test_a_retry_after_that_means_nothing(header: str) -> None:
    async with RecordingServer(reply=answering(503, Retry_After=header)) as server:
        with pytest.raises(TransientError) as caught:
            await ask(server)
    assert caught.value.retry_after is None


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_request_keeps_the_servers_words(status: int) -> None:
    words = "too long:\n\x1b[31m 9000 \x00tokens " + "z" * 5000
    async with RecordingServer(reply=answering(status, {"error": {"message": words, "code": status}})) as server:
        with pytest.raises(RequestError) as caught:
            await ask(server)
    said = str(caught.value).partition(f"answers {status} ")[2]
    assert said.startswith("too long: [31m 9000 tokens zzz")
    assert len(said) == 300


@pytest.mark.parametrize("body", [{"detail": "no"}, {"object": "error", "message": "no"}, {"error": "no"}, "no"])
async def test_error_bodies_of_every_server(body: object) -> None:
    async with RecordingServer(reply=answering(400, body)) as server:
        with pytest.raises(RequestError, match=r"answers 400 no$"):
            await ask(server)


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "api_key_env"), (403, "api_key_env"), (404, "model.name=m"), (405, "backend.base_url")]
)
async def test_what_no_request_can_survive_stops_the_run(status: int, hint: str) -> None:
    async with RecordingServer(reply=answering(status, {"error": {"message": "no such thing"}})) as server:
        with pytest.raises(EngineDead, match=f"{status} no such thing.*{hint}"):
            await ask(server)


async def test_a_redirect_is_not_followed() -> None:
    """Following would turn the POST into a GET, or send the prompt and the key to somebody else."""
    async with RecordingServer() as other, RecordingServer(reply=answering(302, Location=other.base_url)) as server:
        with pytest.raises(EngineDead, match=f"redirects to {other.base_url}; set backend.base_url"):
            await ask(server)
    assert other.requests == []


BAD_BODIES = [
    "", "<html>hello</html>", "null", "[]", '"x"', "{}", '{"choices": []}', '{"choices": [{}]}', '{"choices": null}',
    '{"choices": [{"message": null}]}', '{"choices": [{"message": {"content": 7}}]}', '{"choices": {"a": 1}}',
    '{"choices": [{"message": {"content": "7"}, "logprobs": {"content": [{}]}}]}', '{"error": {"message": "boom"}}',
    '{"choices": [{"message": {"content": "7"}}], "usage": {"completion_tokens": "many"}}', '{"choices": [{"mess',
    '{"choices": [{"message": {"content": "7"}, "finish_reason": "abort"}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_BODIES)
async def test_bodies_that_are_no_completion(body: str) -> None:
    async with RecordingServer(reply=answering(200, body, Content_Type="application/json")) as server:
        with pytest.raises(TransientError):
            await ask(server)


@pytest.mark.parametrize("event", ['{"error": {"message": "out of memory", "code": 500}}', '{"choi', "[]", "7"])
async def test_a_stream_that_breaks_off(event: str) -> None:
    async with RecordingServer(reply=streaming(delta("half "), event)) as server:
        with pytest.raises(TransientError, match=r"out of memory|not a chat completion"):
            await ask_streaming(server)


async def test_an_empty_stream_is_no_answer() -> None:
    async with RecordingServer(reply=streaming({"choices": [], "usage": {"completion_tokens": 1}})) as server:
        with pytest.raises(TransientError, match="no choices"):
            await ask_streaming(server)


async def test_what_on_chunk_raises_comes_through() -> None:
    """A ValueError of the caller's is not the server's malformed JSON."""

    def explode(chunk: Chunk) -> None:
        raise ValueError("mine")

    async with RecordingServer() as server, client(server) as backend:
        with pytest.raises(ValueError, match="mine"):
            await backend.complete(asking(), explode)


async def test_nobody_listens() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(BackendError) as caught:
        await ask(url)
    line = f"no server answers at {url}/v1 (backend.base_url): connection refused; start it or mend the address"
    assert str(caught.value) == line


async def test_no_such_host() -> None:
    with pytest.raises(BackendError, match=r"no server answers at http://no-such-host\.invalid/v1 .*; start it"):
        await ask("http://no-such-host.invalid", connect_timeout=3)


async def test_a_server_that_listens_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(BackendError, match="no answer in time"):
            await ask(f"http://127.0.0.1:{mute.getsockname()[1]}", connect_timeout=0.3)
    assert time.monotonic() - began < 3


async def test_something_that_does_not_speak_http() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        with pytest.raises(BackendError, match="no server answers") as caught:
            await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, "{}"), (405, "no"), (501, ""), (200, "<html>"), (200, '{"data": []}'), (200, '{"data": [7]}'), (200, "[1]")],
)
async def test_a_server_without_a_list_of_models_is_accepted(status: int, body: str) -> None:
    async with RecordingServer(models=lambda: web.Response(status=status, text=body)) as server:
        assert (await ask(server)).content


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "api_key_env is null"),
        (403, "api_key_env"),
        (301, "redirects"),
        (503, "still starting"),
        (500, "starting"),
    ],
)
async def test_a_list_of_models_that_is_refused(status: int, words: str) -> None:
    async with RecordingServer(models=lambda: web.Response(status=status, headers={"Location": "/x"})) as server:
        with pytest.raises(BackendError, match=words):
            await ask(server)


async def test_another_model_is_served() -> None:
    async with RecordingServer(models=["qwen", "step"]) as server:
        with pytest.raises(BackendError, match=r"does not serve 'm'; it has qwen, step: set model\.name="):
            await ask(server)


async def test_the_context_length_is_the_servers() -> None:
    model = Model(name="m", context_length=100)
    async with RecordingServer(models=["other", "m"], max_model_len=4096) as server:
        async with client(server) as backend:
            assert backend.capabilities.context_length == 4096
        async with client(server, model=model) as backend:
            assert backend.capabilities.context_length == 4096
    async with RecordingServer() as server, client(server, model=model) as backend:
        assert backend.capabilities.context_length == 100


async def test_an_unset_key_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(BackendError, match="api_key_env names SOME_KEY, which is not set"):
        await ask("http://127.0.0.1:1", api_key_env="SOME_KEY")


async def test_the_server_as_a_program(tmp_path: Path) -> None:
    record = tmp_path / "asked.jsonl"
    command = ["-m", "tests.servers", "--port", "0", "--record", str(record), "--models", "m"]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with client((await process.stdout.readline()).decode().strip()) as backend:
        completion = await backend.complete(asking())
    payloads = [json.loads(line) for line in record.read_text().splitlines()]
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert [default_text(payload) for payload in payloads] == [completion.content]
