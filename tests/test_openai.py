"""The OpenAI-compatible backend against a server that records, misbehaves and hangs up."""

from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from backends.openai import OpenAI
from pacore_lab.errors import BackendError, EngineDead, RequestError, TransientError
from pacore_lab.interfaces import Chunk, Request
from pacore_lab.types import ChatMessage, Completion, Model, SamplingParams
from tests.servers import Fault, RecordingServer, default_text

ROOT = Path(__file__).parent.parent
X: tuple[ChatMessage, ...] = ({"role": "user", "content": "What is 6 × 7?"},)


def asking(prompt: tuple[ChatMessage, ...] = X, *, seed: int = 1, **params: Any) -> Request:
    return Request(id="a", prompt=prompt, params=SamplingParams(**params), seed=seed)


@asynccontextmanager
async def client(server: RecordingServer | str, **settings: Any) -> AsyncIterator[OpenAI]:
    url = server if isinstance(server, str) else server.base_url
    backend = OpenAI(model=settings.pop("model", Model(name="m")), base_url=url, **settings)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


async def ask(server: RecordingServer | str, request: Request | None = None, **settings: Any) -> Completion:
    async with client(server, **settings) as backend:
        return await backend.complete(request or asking())


async def ask_streaming(server: RecordingServer, **settings: Any) -> tuple[Completion, list[Chunk]]:
    chunks: list[Chunk] = []
    async with client(server, **settings) as backend:
        return await backend.complete(asking(), chunks.append), chunks


def answering(status: int, body: object = "", **headers: str) -> Callable[[dict[str, Any], int], web.Response]:
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda payload, n: web.Response(
        status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def streaming(*events: object, done: bool = True) -> Callable[[dict[str, Any], int], web.Response]:
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    text = "".join(lines) + ("data: [DONE]\n\n" if done else "")
    return lambda payload, n: web.Response(text=text, content_type="text/event-stream")


def delta(content: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, **more}]}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- what is sent ---------------------------------------------------------------------------------------------------


async def test_the_payload_is_the_published_clients_and_a_seed() -> None:
    """Guards reproduction: one more field, or one less, is another sampler than the paper's."""
    async with RecordingServer() as server:
        await ask(server, asking(seed=7))
        await ask(server, asking(), seed=False)
    plain = {"model": "m", "messages": list(X), "temperature": 1.0, "top_p": 1.0}
    assert server.requests == [{**plain, "seed": 7}, plain]
    assert list(server.requests[1]) == ["model", "messages", "temperature", "top_p"]


async def test_what_is_asked_for_is_sent() -> None:
    model = Model(name="m", chat_template_kwargs={"enable_thinking": False})
    async with RecordingServer() as server, client(server, model=model, extra_body={"top_k": 20}) as backend:
        request = asking(temperature=0.5, top_p=0.9, max_tokens=8, logprobs=True)
        await backend.complete(request, lambda chunk: None)
    sent = server.requests[0]
    assert {k: sent[k] for k in ("temperature", "top_p", "max_tokens", "logprobs", "top_k", "stream")} == {
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 8, "logprobs": True, "top_k": 20, "stream": True
    }  # fmt: skip
    assert sent["stream_options"] == {"include_usage": True}
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}


async def test_messages_arrive_byte_for_byte() -> None:
    nasty = "é 参考 😀 \u2028 \x00\x07 {{ x }} {% if %} \\boxed{1} </think> \r\n\t\"'"
    prompt: tuple[ChatMessage, ...] = (
        {"role": "system", "content": nasty},
        {"role": "assistant", "content": None, "reasoning_content": nasty},
        {"role": "user", "content": [{"type": "text", "text": nasty}]},
    )
    async with RecordingServer(reply=lambda payload, n: nasty) as server:
        completion = await ask(server, asking(prompt))
    assert server.requests[0]["messages"] == list(prompt)
    assert completion.content == nasty


async def test_a_prompt_of_three_megabytes() -> None:
    """Whole trajectories fed forward are that long; aiohttp warns of such a body when it is given as bytes."""
    prompt: tuple[ChatMessage, ...] = ({"role": "user", "content": "x" * 3_000_000},)
    async with RecordingServer(reply=lambda payload, n: "7") as server:
        await ask(server, asking(prompt))
    assert server.requests[0]["messages"] == list(prompt)


async def test_a_lone_surrogate_is_refused_before_it_is_sent() -> None:
    """json.dumps would pass it on as \\ud83d, and each server fails on it in its own way."""
    async with RecordingServer() as server:
        with pytest.raises(RequestError, match="lone surrogate"):
            await ask(server, asking(({"role": "user", "content": "half \ud83d"},)))
    assert server.requests == []


async def test_surrogates_in_an_answer_are_mended() -> None:
    """A pair torn apart by a stream is one character again; a lone one could not be stored."""
    events = streaming(delta("a \ud83d"), delta("\ude00 b \ud83d", finish_reason="stop"))
    async with RecordingServer(reply=events) as server:
        completion, _ = await ask_streaming(server)
    assert completion.content == "a 😀 b \ufffd"


async def test_the_key_comes_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sesame-123")
    async with RecordingServer() as server:
        await ask(server, api_key_env="SOME_KEY")
        await ask(server)
    assert server.headers[0]["Authorization"] == "Bearer sesame-123"
    assert "Authorization" not in server.headers[1]


async def test_the_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sesame-123")
    async with RecordingServer(reply=answering(400, "bad key? sesame-123")) as server:
        with pytest.raises(RequestError, match=r"bad key\? \*\*\*"):
            await ask(server, api_key_env="SOME_KEY")
    assert "sesame" not in repr(OpenAI(model=Model(name="m"), base_url="http://h", api_key_env="SOME_KEY"))


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    async with RecordingServer() as server:
        assert (await ask(server)).content


# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [None, "reasoning", "reasoning_content"])
@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_inline_and_split_off(split: str | None, stream: bool) -> None:
    async with RecordingServer(split=split) as server:
        completion = (await ask_streaming(server))[0] if stream else await ask(server)
    text = default_text(server.requests[0])
    thought, _, answer = text.removeprefix("<think>").partition("</think>")
    assert (completion.reasoning, completion.content) == ((thought, answer) if split else ("", text))
    assert completion.finish_reason == "stop"
    assert completion.prompt_tokens == 5
    assert completion.generated_tokens == len(text.split())


async def test_chunks_add_up_to_the_completion() -> None:
    async with RecordingServer() as server:
        completion, chunks = await ask_streaming(server)
    assert "".join(chunk.text for chunk in chunks) == completion.content
    assert sum(chunk.tokens for chunk in chunks) == completion.generated_tokens > 5


async def test_all_thought_and_no_answer_is_an_empty_answer() -> None:
    """vLLM: a generation cut inside its thinking has content null; that is not the thinking's text."""
    message = {"role": "assistant", "content": None, "reasoning": "hm, hm"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    body = {"choices": [{"message": message, "finish_reason": "length", "logprobs": None}], "usage": usage}
    async with RecordingServer(reply=lambda payload, n: body) as server:
        completion = await ask(server)
    assert completion == Completion(
        content="", reasoning="hm, hm", finish_reason="length", prompt_tokens=3, generated_tokens=2, cached_tokens=1
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_as_mean_and_windows(stream: bool) -> None:
    text = " ".join(f"w{i}" for i in range(100))
    async with RecordingServer(reply=lambda payload, n: text) as server, client(server) as backend:
        completion = await backend.complete(asking(logprobs=True), (lambda chunk: None) if stream else None)
    scores = [-(i % 8) / 8 for i in range(100)]
    assert completion.mean_logprob == pytest.approx(sum(scores) / 100)
    assert completion.window_logprobs == pytest.approx((sum(scores[:64]) / 64, sum(scores[64:]) / 36))


async def test_logprobs_that_do_not_come_stop_the_run() -> None:
    """Servers ignore fields they do not know; a run that needs log-probabilities must not go on without."""
    body = {"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}]}
    async with RecordingServer(reply=lambda payload, n: body) as server:
        with pytest.raises(EngineDead, match=r"no log-probabilities; set model\.logprobs=false"):
            await ask(server, asking(logprobs=True))


async def test_a_server_without_usage_works() -> None:
    """Zero tokens beside a text would make a strategy look free."""
    async with RecordingServer(usage=False) as server, client(server) as backend:
        chunks: list[Chunk] = []
        streamed = await backend.complete(asking(), chunks.append)
        scored = await backend.complete(asking(logprobs=True))
        assert streamed.generated_tokens == scored.generated_tokens == len(chunks) == len(streamed.content.split())
        whole = await backend.complete(asking())
    assert (whole.generated_tokens, whole.counted) == (0, False)


async def test_a_server_that_cannot_stream_answers_a_streaming_call() -> None:
    body = {"choices": [{"message": {"content": "7 7"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}
    async with RecordingServer(reply=lambda payload, n: body) as server:
        completion, chunks = await ask_streaming(server)
    assert completion.content == "7 7"
    assert chunks == [Chunk(text="7 7", tokens=2)]


async def test_a_stream_of_odd_shapes() -> None:
    """Comments, CRLF, no space after the colon, `delta: null`, one line of a megabyte (readline stops at 128 KiB)."""
    long = "x" * 1_000_000
    lines = [": ping", "event: message", "data:" + json.dumps(delta("a")), "data: " + json.dumps(delta(long)), "", ""]
    lines += ["data: " + json.dumps({"choices": [{"delta": None, "finish_reason": "stop"}]}), "data: [DONE]", ""]
    raw = "\r\n".join(lines)
    async with RecordingServer(reply=lambda p, n: web.Response(text=raw, content_type="text/event-stream")) as server:
        completion, chunks = await ask_streaming(server)
    assert completion.content == "a" + long
    assert len(chunks) == 2


async def test_streams_reuse_their_connection() -> None:
    async with RecordingServer() as server, client(server) as backend:
        for _ in range(5):
            await backend.complete(asking(), lambda chunk: None)
    assert len(set(server.peers)) == 1


# --- what goes wrong ------------------------------------------------------------------------------------------------


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
    async with RecordingServer() as server, client(server) as backend:
        await backend.complete(asking())
        await server.__aexit__()
        with pytest.raises(TransientError, match=r"the connection was lost|connection refused"):
            await backend.complete(asking())
        with pytest.raises(TransientError, match="connection refused"):
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
        (email.utils.formatdate(time.time() + 3600, usegmt=True), 3400, 3601),
        (email.utils.formatdate(time.time() - 3600, usegmt=True), 0, 0),
        ("-5", 0, 0),
    ],
)
async def test_retry_after(header: str, low: float, high: float) -> None:
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
        with pytest.raises(TransientError, match=r"out of memory|no chat completion"):
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


# --- cancelling, and many at once -----------------------------------------------------------------------------------


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
    async with RecordingServer(delay=0.5) as server, client(server) as backend:
        on_chunk = (lambda chunk: None) if stream else None
        jobs = [backend.complete(asking(seed=i), on_chunk) for i in range(512)]
        completions = await asyncio.gather(*jobs)
    assert server.peak > 256  # no hidden limit of 100 connections
    texts = {payload["seed"]: default_text(payload) for payload in server.requests}
    assert [c.content for c in completions] == [texts[i] for i in range(512)]


async def test_closing_twice_and_after_a_failed_start() -> None:
    backend = OpenAI(model=Model(name="m"), base_url=f"http://127.0.0.1:{closed_port()}")
    await backend.close()
    with pytest.raises(BackendError):
        await backend.start()
    await backend.close()
    await backend.close()


# --- starting -------------------------------------------------------------------------------------------------------


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


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("http://h:8000/v1/", "http://h:8000/v1"),
        (" http://h:8000/v1/chat/completions ", "http://h:8000/v1"),
        ("https://h/api/v1", "https://h/api/v1"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_base_url(given: str, root: str) -> None:
    assert OpenAI(model=Model(name="m"), base_url=given).root == root


@pytest.mark.parametrize(
    "url",
    ["", "h:8000", "localhost:8000/v1", "ftp://h", "http://", "http://h:eighty", "http://h:99999", "http://h/v1?a=b",
     "http://a b/v1", "http://user:secret@h/v1"],
)  # fmt: skip
def test_a_nonsense_base_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"backend\.base_url is .*such as http://127\.0\.0\.1:8000/v1") as caught:
        OpenAI(model=Model(name="m"), base_url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"api_key_env": "sk-secret"}, "backend.api_key_env takes the NAME"),
        ({"connect_timeout": 0}, "backend.connect_timeout is 0"),
        ({"idle_timeout": -1}, "backend.idle_timeout is -1"),
        ({"extra_body": {"seed": 1, "n": 4}}, "backend.extra_body sets n, seed"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        OpenAI(model=Model(name="m"), base_url="http://h", **settings)
    assert "secret" not in str(caught.value)


def test_the_fingerprint_names_what_shapes_a_sample() -> None:
    def named(extra_body: dict[str, Any] | None = None, **model: Any) -> str:
        return OpenAI(model=Model(name="m", **model), base_url="http://h", extra_body=extra_body or {}).fingerprint

    assert named() == "openai:http://h/v1:m"
    assert named(revision="v2") == "openai:http://h/v1:m@v2"
    different = [named(), named(revision="v2"), named({"top_k": 1}), named(chat_template_kwargs={"top_k": 1})]
    assert len(set(different)) == 4
    assert named({"a": 1, "b": 2}) == named({"b": 2, "a": 1})


def test_capabilities() -> None:
    backend = OpenAI(model=Model(name="m"), base_url="http://h")
    assert (backend.capabilities.seeds, backend.capabilities.logprobs) == ("request", "chosen")
    assert backend.capabilities.partial
    assert OpenAI(model=Model(name="m"), base_url="http://h", seed=False).capabilities.seeds == "none"


# --- the server as a program ----------------------------------------------------------------------------------------


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
