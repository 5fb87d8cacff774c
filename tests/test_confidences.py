"""Confidences of tokens (DeepConf, arXiv 2508.15260, equation 2): the same number from every backend, or a refusal."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends._confidence import confidence
from backends.mock import Mock
from backends.openai import OpenAI
from backends.served import VLLMServer
from backends.vllm import VLLM
from pacore_lab.errors import EngineDead, RequestError
from pacore_lab.interfaces import Chunk, Request
from pacore_lab.types import Model
from tests.asking import answering, ask, asking, client, delta, streaming
from tests.servers import Payload, RecordingServer

SCORED: dict[str, Any] = {"logprobs": True, "top_logprobs": 3}


@given(st.lists(st.floats(-50, 1e-6), min_size=1, max_size=30))
def test_one_number_for_a_place(likeliest: list[float]) -> None:
    """Not -0.0, which a JSON reader keeps, and not below 0 because an engine rounds log 1 up."""
    made = confidence(likeliest)
    assert made == pytest.approx(max(0.0, -sum(likeliest) / len(likeliest)), abs=6e-5)
    assert math.copysign(1, made) == 1
    assert made == round(made, 4)


# ---- the mock ----


async def test_the_mock_makes_them_up_alike_each_time() -> None:
    engine = Mock(model=Model(name="m"), characters=501)
    chunks: list[Chunk] = []

    def request(seed: int, **params: Any) -> Request:
        return asking(seed=seed, **{**SCORED, **params})

    one, again = await engine.complete(request(1)), await engine.complete(request(1), chunks.append)
    other = await engine.complete(request(2))
    assert one == again
    assert one.confidences != other.confidences
    assert len(one.confidences or ()) == one.generated_tokens
    assert tuple(number for chunk in chunks for number in chunk.confidences) == one.confidences
    assert [len(chunk.confidences) for chunk in chunks] == [chunk.tokens for chunk in chunks]
    assert one.mean_logprob is not None
    plain = await engine.complete(asking(seed=1))
    assert (plain.content, plain.confidences, plain.mean_logprob) == (one.content, None, None)
    cut = await engine.complete(request(1, max_tokens=5))
    assert (cut.content, cut.finish_reason, cut.generated_tokens) == (one.content[:20], "length", 5)


# ---- servers ----


def place(chosen: float, *likeliest: float) -> Payload:
    others = [{"token": "x", "logprob": number} for number in likeliest]
    return {"token": "x", "logprob": chosen, "top_logprobs": others}


def body(*places: Payload) -> Payload:
    choice = {"message": {"content": "a b"}, "finish_reason": "stop", "logprobs": {"content": list(places)}}
    return {"choices": [choice], "usage": {"completion_tokens": len(places), "prompt_tokens": 1}}


async def test_of_a_servers_list_the_likeliest_count() -> None:
    """vLLM puts the chosen token first, whatever its rank, and cuts the list after as many as were asked for."""
    answer = body(place(-9.0, -9.0, -0.5, -1.0, -3.0), place(-0.5, -0.5, -1.0, -3.0, -4.0))
    for owner, asked in (("vllm", 4), ("sglang", 3)):
        async with RecordingServer(reply=lambda p, n: answer, models=["m"], entry={"owned_by": owner}) as server:
            done = await ask(server, asking(**SCORED))
        assert done.confidences == (1.5, 1.5)
        assert server.requests[0]["top_logprobs"] == asked
        assert server.requests[0]["logprobs"] is True


async def test_a_stream_carries_them() -> None:
    pieces = [delta("a", logprobs={"content": [place(-1, -1, -2, -3), place(-1, -1, -1, -1)]}),
              delta("b", logprobs={"content": [place(-4, -4, -4, -4)]}, finish_reason="stop")]  # fmt: skip
    chunks: list[Chunk] = []
    async with RecordingServer(reply=streaming(*pieces)) as server, client(server) as engine:
        done = await engine.complete(asking(**SCORED), chunks.append)
    assert [(chunk.tokens, chunk.confidences) for chunk in chunks] == [(2, (2.0, 1.0)), (1, (4.0,))]
    assert done.confidences == (2.0, 1.0, 4.0)


async def test_too_few_of_the_likeliest_are_no_confidence() -> None:
    """A mean over fewer is another quantity; it may not pass for this one."""
    async with RecordingServer(reply=lambda p, n: body(place(-1, -1, -2, -3), place(-1, -1))) as server:
        with pytest.raises(RequestError, match="gives 1 of the 3 likeliest tokens"):
            await ask(server, asking(**SCORED))
    async with RecordingServer(reply=lambda p, n: body(place(-1))) as server:
        with pytest.raises(EngineDead, match=r"gives 0 of .* set model\.top_logprobs=0"):
            await ask(server, asking(**SCORED))
        assert (await ask(server, asking(logprobs=True))).confidences is None
    assert "top_logprobs" not in server.requests[-1]


@pytest.mark.parametrize(
    ("given", "can", "most", "said"),
    [
        (3, "topk", 3, "given when asked for, with 3 of the 3 likeliest tokens"),
        (1, "chosen", 3, "given when asked for, with 1 of the 3 likeliest tokens"),
        (0, "chosen", 3, "given when asked for, with 0 of the 3 likeliest tokens"),
        (None, "none", 3, "asked for and not given"),
    ],
)
async def test_the_probe_asks_for_them_in_the_same_call(given: int | None, can: str, most: int, said: str) -> None:
    def reply(payload: Payload, n: int) -> Payload:
        scores = [] if given is None else [place(-1.0, *[-1.0] * given)]
        answer = body(*(scores if payload.get("logprobs") else []))
        answer["choices"][0]["message"]["content"] = str(payload["seed"])
        return answer

    model = Model(name="m", **SCORED)
    async with RecordingServer(reply=reply) as server, client(server, probe=True, model=model) as engine:
        found = engine.capabilities
    assert (found.logprobs, found.most_top_logprobs) == (can, most)
    assert found.evidence["logprobs"] == said
    assert [payload.get("top_logprobs") for payload in server.requests] == [3, None, None]


async def test_the_weakest_of_several_servers_counts() -> None:
    def reply(few: int) -> Any:
        return lambda payload, n: body(place(-1.0, *[-1.0] * (few if payload.get("logprobs") else 0)))

    model = Model(name="m", **SCORED)
    one, other = RecordingServer(reply=reply(3)), RecordingServer(reply=reply(1))
    async with one, other, client([one, other], probe=True, model=model) as engine:
        assert engine.capabilities.logprobs == "chosen"


async def test_a_server_that_refuses_so_many_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def reply(payload: Payload, n: int) -> Any:
        return answering(400, "at most 20")(payload, n) if payload.get("top_logprobs") else "text"

    model = Model(name="m", logprobs=True, top_logprobs=30)
    async with RecordingServer(reply=reply) as server, client(server, probe=True, model=model) as engine:
        assert engine.capabilities.logprobs == "none"
    assert "answers 400 at most 20" in caplog.text


async def test_without_the_probe_the_apis_bound_holds() -> None:
    async with RecordingServer() as server:
        async with client(server, model=Model(name="m", **SCORED)) as engine:
            assert (engine.capabilities.logprobs, engine.capabilities.most_top_logprobs) == ("topk", 20)
        async with client(server) as engine:
            assert engine.capabilities.logprobs == "chosen"


def test_engines_are_started_for_so_many() -> None:
    """vLLM refuses more than its max_logprobs, and its server has to be asked for one more."""
    flags = VLLMServer(model=Model(name="m", logprobs=True, top_logprobs=30))._flags("m", {}, 100)
    assert flags[flags.index("--max-logprobs") + 1] == "31"
    flags = VLLMServer(model=Model(name="m"))._flags("m", {}, 100)
    assert flags[flags.index("--max-logprobs") + 1] == "20"


def test_the_field_is_the_labs() -> None:
    with pytest.raises(ValueError, match=r"backend\.engine_args sets max_logprobs"):
        VLLM(model=Model(name="m"), engine_args={"max_logprobs": 5})
    with pytest.raises(ValueError, match=r"backend\.args has --max-logprobs"):
        VLLMServer(model=Model(name="m"), args=["--max-logprobs", "5"])
    with pytest.raises(ValueError, match=r"backend\.extra_body sets continue_final_message, top_logprobs"):
        OpenAI(
            model=Model(name="m"),
            base_url="http://a",
            extra_body={"top_logprobs": 5, "continue_final_message": True},
        )
