"""What the SGLang backend asks of its engine, reads and aborts, against a stand-in; which options it refuses."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from backends.sglang import SGLang, sglang_overrides
from pacore_lab.errors import RequestError, TransientError
from pacore_lab.interfaces import Chunk
from pacore_lab.types import Model
from tests.sglang_stand_in import MODEL, asking, installed, notes, running
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("logs_of_its_own")


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    return installed(tmp_path)


async def test_what_the_engine_is_asked(stand_in: dict[str, str]) -> None:
    """Every default that could decide a sample is spelled out: SGLang's own max_new_tokens is 128."""
    async with running(stand_in, mem_fraction=0.5, engine_args={"kv_cache_dtype": "fp8"}) as made:
        await made.complete(asking(seed=5, temperature=0.5, top_p=0.9, priority=-2, text="What is 1 + 1?"))
        await made.complete(asking(seed=2**63 - 1, max_tokens=7))
        assert made.capabilities.evidence["engine"] == "sglang 9.9"
        assert made.capabilities.seeds == "request"
        assert made.capabilities.context_length == 4096
        assert made.fingerprint.startswith("sglang:")
        assert made.fingerprint.endswith(":kv_cache_dtype fp8")
        assert made._chat is not None
        text = "<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n<|im_start|>assistant\n"
        tokens = made._chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    first, second = notes(stand_in, "asked")
    assert first["input_ids"] == tokens
    assert first["sampling_params"] == {
        "max_new_tokens": 4096 - len(tokens), "temperature": 0.5, "top_p": 0.9, "top_k": -1, "min_p": 0.0,
        "json_schema": None, "sampling_seed": 5,
    }  # fmt: skip
    assert (first["priority"], first["return_logprob"]) == (2, False)
    assert second["sampling_params"]["sampling_seed"] == 2**63 - 1
    assert second["sampling_params"]["max_new_tokens"] == 7
    assert not second["rid"].startswith(first["rid"])
    (arguments,) = notes(stand_in, "arguments")
    assert arguments["model_path"].endswith(MODEL)
    assert {key: arguments[key] for key in ("enable_deterministic_inference", "mem_fraction_static", "dtype")} == {
        "enable_deterministic_inference": True, "mem_fraction_static": 0.5, "dtype": "auto"
    }  # fmt: skip
    assert arguments["context_length"] >= 4096 + 2  # SGLang would end two tokens early
    assert notes(stand_in, "original") == ["1"]


async def test_what_comes_back(stand_in: dict[str, str]) -> None:
    async with running(stand_in) as made:
        stopped = await made.complete(asking(seed=5))
        cut = await made.complete(asking(seed=150, max_tokens=100, logprobs=True))
        clamped = await made.complete(asking(seed=3, max_tokens=100_000))
        with pytest.raises(RequestError, match="prompt has .* tokens and the context of tiny holds 4096"):
            await made.complete(asking(text="7 " * 5000))
    assert (stopped.content, stopped.finish_reason, stopped.generated_tokens) == ("w0 w1 w2 w3 w4 ", "stop", 5)
    assert (stopped.cached_tokens, stopped.mean_logprob, stopped.window_logprobs) == (3, None, None)
    assert (cut.finish_reason, cut.generated_tokens, cut.max_tokens, cut.clamped) == ("length", 100, 100, False)
    assert cut.window_logprobs == (-63 / 16, -(64 + 99) / 16)
    assert cut.mean_logprob == pytest.approx(-99 / 16)
    assert clamped.clamped
    assert clamped.max_tokens == 4096 - clamped.prompt_tokens


async def test_chunks_add_up(stand_in: dict[str, str]) -> None:
    chunks: list[Chunk] = []
    async with running(stand_in) as made:
        done = await made.complete(asking(seed=10), chunks.append)
    assert "".join(chunk.text for chunk in chunks) == done.content
    assert [chunk.tokens for chunk in chunks] == [4, 4, 2]


async def test_confidences_of_chunks_and_of_the_whole(stand_in: dict[str, str]) -> None:
    """SGLang's lists grow with the text: each chunk has what is new in them."""
    chunks: list[Chunk] = []
    async with running(stand_in) as made:
        assert (made.capabilities.logprobs, made.capabilities.most_top_logprobs) == ("topk", 976)
        streamed = await made.complete(asking(seed=10, logprobs=True, top_logprobs=3), chunks.append)
        whole = await made.complete(asking(seed=10, logprobs=True, top_logprobs=3))
        plain = await made.complete(asking(seed=10, logprobs=True))
    assert [chunk.confidences for chunk in chunks] == [(1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0), (9.0, 10.0)]
    assert streamed.confidences == whole.confidences == tuple(float(i) for i in range(1, 11))
    assert plain.confidences is None
    assert [asked["top_logprobs_num"] for asked in notes(stand_in, "asked")] == [3, 3, 0]


async def test_many_at_once_keep_apart(stand_in: dict[str, str]) -> None:
    async with running(stand_in) as made:
        answers = await asyncio.gather(*(made.complete(asking(seed=i)) for i in range(1, 200)))
    assert [answer.generated_tokens for answer in answers] == list(range(1, 200))


async def test_cancelling_hands_on_the_rest(stand_in: dict[str, str]) -> None:
    chunks: list[Chunk] = []
    async with running(stand_in) as made:
        neighbours = [asyncio.create_task(made.complete(asking(seed=100))) for _ in range(12)]  # "1" begins "10"
        call = asyncio.create_task(made.complete(asking(seed=2000), chunks.append))
        quiet = asyncio.create_task(made.complete(asking(seed=2000)))
        await until(lambda: len(chunks) >= 2)
        call.cancel()
        quiet.cancel()
        for task in (call, quiet):
            with pytest.raises(asyncio.CancelledError):
                await task
        tokens = sum(chunk.tokens for chunk in chunks)
        assert "".join(chunk.text for chunk in chunks) == "".join(f"w{i} " for i in range(tokens))
        assert 8 <= tokens < 1000
        assert {(await task).generated_tokens for task in neighbours} == {100}
        assert made._engine is not None
        assert not made._engine._calls


async def test_a_second_cancellation_leaks_nothing(stand_in: dict[str, str]) -> None:
    async with running(stand_in) as made:
        began = asyncio.Event()
        call = asyncio.create_task(made.complete(asking(seed=2000), lambda chunk: began.set()))
        await began.wait()
        call.cancel()
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert made._engine is not None
        assert not made._engine._calls
        assert (await made.complete(asking(seed=5))).generated_tokens == 5


async def test_a_callers_bug_is_the_callers(stand_in: dict[str, str]) -> None:
    def broken(_: Chunk) -> None:
        raise RuntimeError("caller's bug")

    async with running(stand_in) as made:
        with pytest.raises(RuntimeError, match="caller's bug"):
            await made.complete(asking(seed=2000), broken)
        assert (await made.complete(asking(seed=5))).generated_tokens == 5


async def test_refusals_and_faults(stand_in: dict[str, str]) -> None:
    async with running(stand_in) as made:
        with pytest.raises(RequestError, match=r"^SGLang refuses the request: too long$"):
            await made.complete(asking(seed=400))
        with pytest.raises(TransientError, match="broken"):
            await made.complete(asking(seed=500))
        for on_chunk in (None, lambda chunk: None):
            with pytest.raises(TransientError, match=r"gave the request up \(abort: no room\)"):
                await made.complete(asking(seed=503, max_tokens=3), on_chunk)


async def test_yarn_as_sglang_reads_it(stand_in: dict[str, str]) -> None:
    """SGLang multiplies by 0.1 ln(factor) + 1 whatever attention_factor says; attn_factor has to undo that."""
    async with running(stand_in, model={"yarn_factor": 4.0, "yarn_original": 2048}) as made:
        assert made.capabilities.context_length == 8192
    (arguments,) = notes(stand_in, "arguments")
    overrides = json.loads(arguments["json_model_override_args"])
    rope = overrides["rope_parameters"]
    assert overrides["max_position_embeddings"] == 8192
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("yarn", 4.0, 2048)
    assert rope["attn_factor"] * (0.1 * math.log(4.0) + 1) == pytest.approx(1)
    assert sglang_overrides(Model(name="x"), None) == {}


async def test_random_weights_and_no_seeds(stand_in: dict[str, str]) -> None:
    async with running(stand_in, load_format="dummy", seeds=False) as made:
        assert made.fingerprint.endswith(":random weights")
        assert made.capabilities.seeds == "none"
    assert notes(stand_in, "arguments")[0]["enable_deterministic_inference"] is False


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"stream_interval": 0}, r"backend\.stream_interval is 0"),
        ({"mem_fraction": 1.5}, r"backend\.mem_fraction is 1\.5"),
        ({"start_timeout": 0}, r"backend\.start_timeout is 0"),
        ({"engine_args": {"tp_size": 2, "dtype": "x"}}, r"backend\.engine_args sets dtype, tp_size, which the lab"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        SGLang(model=Model(name="tiny"), **options)
