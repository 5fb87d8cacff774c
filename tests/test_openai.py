"""What the OpenAI-compatible backend sends, and what it reads in an answer, whole or streamed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from pacore_lab.errors import EngineDead, RequestError
from pacore_lab.interfaces import Chunk
from pacore_lab.types import ChatMessage, Completion, Model
from tests.asking import X, answering, ask, ask_streaming, asking, client, delta, streaming
from tests.servers import RecordingServer, default_text


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


async def test_a_schema_is_sent_where_the_server_is_said_to_follow_it() -> None:
    schema = '{"type": "object", "properties": {"same": {"type": "string"}}}'
    async with RecordingServer() as server, client(server, schema=True) as backend:
        assert backend.capabilities.schema
        await backend.complete(replace(asking(), schema=schema))
        await backend.complete(asking())
    form = {"name": "answer", "strict": True, "schema": json.loads(schema)}
    assert server.requests[0]["response_format"] == {"type": "json_schema", "json_schema": form}
    assert "response_format" not in server.requests[1]


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


TOO_LONG = {  # what vLLM and SGLang say
    "vllm": {"error": {"message": "'max_tokens' or 'max_completion_tokens' is too large: 99. This model's maximum "
             "context length is 64 tokens and your request has 5 input tokens (99 > 64 - 5).", "code": 400}},
    "sglang": {"object": "error", "message": "Requested token count exceeds the model's maximum context length of 64 "
               "tokens. You requested a total of 104 tokens: 5 tokens from the input messages and 99 tokens for the "
               "completion.", "code": 400},
}  # fmt: skip


@pytest.mark.parametrize("words", TOO_LONG.values(), ids=TOO_LONG)
@pytest.mark.parametrize("stream", [False, True])
async def test_more_tokens_than_the_context_has_left(words: dict[str, Any], stream: bool) -> None:
    """A long prompt must not turn a bounded run into failures; what was really allowed is on record."""

    def reply(payload: dict[str, Any], n: int) -> Any:
        return answering(400, words)(payload, n) if "max_tokens" in payload else default_text(payload)

    async with RecordingServer(reply=reply, models=["m"], max_model_len=64) as server, client(server) as backend:
        chunks: list[Chunk] = []
        completion = await backend.complete(asking(max_tokens=99), chunks.append if stream else None)
    assert (completion.clamped, completion.max_tokens) == (True, 64 - 5)
    assert completion.content == default_text(server.requests[1])
    first, second = server.requests
    assert second == {key: value for key, value in first.items() if key != "max_tokens"}


async def test_what_a_clamped_answer_may_have_is_unknown_without_a_context() -> None:
    async with RecordingServer(
        reply=lambda p, n: answering(400, "context")(p, n) if "max_tokens" in p else "7"
    ) as server:
        completion = await ask(server, asking(max_tokens=99))
    assert (completion.clamped, completion.max_tokens, completion.content) == (True, None, "7")


async def test_a_400_that_was_not_about_the_context() -> None:
    """Without its bound the answer is longer than was asked for: that is no clamping, and no sample."""
    text = "word " * 20
    async with RecordingServer(
        reply=lambda p, n: answering(400, "max_tokens: must be even")(p, n) if "max_tokens" in p else text
    ) as server:
        with pytest.raises(RequestError, match=r"must be even \(without max_tokens=7 it gave 21? tokens"):
            await ask(server, asking(max_tokens=7))


@pytest.mark.parametrize(("words", "requests"), [(TOO_LONG["vllm"], 2), ("no such parameter", 1)])
async def test_a_prompt_that_is_too_long_is_one_refusal(words: object, requests: int) -> None:
    async with RecordingServer(reply=answering(400, words)) as server, client(server) as backend:
        with pytest.raises(RequestError, match="answers 400"):
            await backend.complete(asking(max_tokens=99))
        assert len(server.requests) == requests
        with pytest.raises(RequestError, match="answers 400"):
            await backend.complete(asking())
        assert len(server.requests) == requests + 1


async def test_an_unknown_finish_reason_is_kept() -> None:
    body = {"choices": [{"message": {"content": "7"}, "finish_reason": "repetition"}]}
    async with RecordingServer(reply=lambda payload, n: body) as server:
        assert (await ask(server)).finish_reason == "repetition"


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
