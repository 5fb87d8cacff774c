"""The SGLang backend against a stand-in for sglang: what it asks, reads, aborts, and how it starts, dies and closes."""

from __future__ import annotations

import ast
import asyncio
import json
import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.sglang import SGLang, sglang_overrides
from pacore_lab.errors import BackendError, EngineDead, RequestError, TransientError
from pacore_lab.interfaces import Chunk, Request
from pacore_lab.types import Model, SamplingParams
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("logs_of_its_own")
MODEL = "experiments/tiny_models/rlvr-tiny"
ENGINE = """
import asyncio, json, os, subprocess, sys, time
from types import SimpleNamespace

__version__ = "9.9"

class Manager:
    def __init__(self):
        self.aborted, self.names = set(), set()

    def abort_request(self, rid):
        self.aborted |= {name for name in self.names if name.startswith(rid)}  # as SGLang does

class Engine:
    def __init__(self, **settings):
        note(arguments=settings, original=os.environ.get("SGLANG_RETURN_ORIGINAL_LOGPROB"), pid=os.getpid())
        mode = os.environ.get("FAKE", "")
        if mode == "fails":
            print("Traceback (most recent call last):\\n  x\\nValueError: no such\\nOSError: late", flush=True)
            os.kill(os.getpid(), 9)
        self.helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        note(helper=self.helper.pid)
        if mode == "slow":
            print("loading", flush=True)
            time.sleep(600)
        self.tokenizer_manager = Manager()
        self.server_args = SimpleNamespace(device="abacus")
        infos = [{"max_total_num_tokens": 100 if mode == "small" else 10_000}]
        self._scheduler_init_result = SimpleNamespace(scheduler_infos=infos)

    async def async_generate(self, *, stream=False, **asked):
        note(asked=asked)
        pieces = self.pieces(asked)
        if stream:
            return pieces
        async for out in pieces:
            last = out
        return last

    async def pieces(self, asked):
        sampling, rid = asked["sampling_params"], asked["rid"]
        seed, most = sampling["sampling_seed"], sampling["max_new_tokens"]
        if seed == 400:
            raise ValueError("too\\nlong")
        if seed == 500:
            raise RuntimeError("broken")
        if seed == 666:
            print("error: the sky fell", flush=True)
            os.kill(os.getpid(), 9)
        self.tokenizer_manager.names.add(rid)
        words, meta = [], {"prompt_tokens": len(asked["input_ids"]), "cached_tokens": 3, "finish_reason": None}
        if asked["top_logprobs_num"]:
            meta["output_top_logprobs"] = []
        while len(words) < min(most, seed):
            if asked["top_logprobs_num"]:
                place = [(-len(words) - i, i, None) for i in range(asked["top_logprobs_num"])]
                meta["output_top_logprobs"].append(place)
            words.append(f"w{len(words)} ")
            await asyncio.sleep(0.005)
            if rid in self.tokenizer_manager.aborted:
                meta["finish_reason"] = {"type": "abort", "message": "Aborted", "status_code": None}
                break
            if len(words) % 4 == 0:
                yield {"text": "".join(words), "meta_info": {**meta, "completion_tokens": len(words)}}
        end = {"type": "length"} if most <= seed else {"type": "stop", "matched": 445}
        if seed == 503:
            end = {"type": "abort", "message": "no room", "status_code": 503}
        meta["finish_reason"] = meta["finish_reason"] or end
        if asked["return_logprob"]:
            meta["output_token_logprobs"] = [(-i / 8, i, None) for i in range(len(words))]
        yield {"text": "".join(words), "meta_info": {**meta, "completion_tokens": len(words)}}

    def shutdown(self):
        note(shut=True)
        self.helper.kill()

def note(**what):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps(what) + "\\n")
"""
ARGUMENTS = '''
from dataclasses import dataclass, make_dataclass
NAMES = """model_path revision dtype context_length json_model_override_args tp_size dp_size load_format stream_interval
enable_deterministic_inference enable_priority_scheduling disable_priority_preemption mem_fraction_static log_level
kv_cache_dtype"""
ServerArgs = make_dataclass("ServerArgs", NAMES.split())
'''


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """The environment in which `import sglang` finds the stand-in."""
    package = tmp_path / "site" / "sglang"
    (package / "srt").mkdir(parents=True)
    (package / "__init__.py").write_text(ENGINE)
    (package / "srt" / "__init__.py").touch()
    (package / "srt" / "server_args.py").write_text(ARGUMENTS)
    return {"PYTHONPATH": str(tmp_path / "site"), "NOTES": str(tmp_path / "notes")}


def backend(env: dict[str, str], fake: str = "", model: dict[str, Any] | None = None, **options: Any) -> SGLang:
    options = {"start_timeout": 60, **options}
    return SGLang(model=Model(name="tiny", path=MODEL, **(model or {})), env={**env, "FAKE": fake}, **options)


@asynccontextmanager
async def running(env: dict[str, str], **options: Any) -> AsyncIterator[SGLang]:
    made = backend(env, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def asking(seed: int = 10, text: str = "hello", priority: int = 0, **params: Any) -> Request:
    prompt = ({"role": "user", "content": text},)
    return Request(id="a", prompt=prompt, params=SamplingParams(**params), seed=seed, priority=priority)  # type: ignore[arg-type]


def notes(env: dict[str, str], key: str) -> list[Any]:
    lines = [json.loads(line) for line in Path(env["NOTES"]).read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


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


@pytest.mark.parametrize(
    ("fake", "options", "line"),
    [
        ("fails", {}, r"SGLang did not start: ValueError: no such \(log: /.*\)"),
        (
            "slow",
            {"start_timeout": 2},
            r"SGLang was not ready after 2 s \(backend.start_timeout\): loading \(log: .*\)",
        ),
        (
            "small",
            {},
            r"SGLang's cache holds 100 tokens, fewer than one trajectory of 4096; lower model.context_length .*",
        ),
        (
            "",
            {"engine_args": {"foo": 1}},
            r"SGLang did not start: sglang 9.9 has no argument foo \(backend.engine_args\).*",
        ),
    ],
)
async def test_a_failed_start_is_one_line_and_leaves_nothing(
    stand_in: dict[str, str], fake: str, options: dict[str, Any], line: str
) -> None:
    made = backend(stand_in, fake, **options)
    with pytest.raises(BackendError, match=f"^{line}$"):
        await made.start()
    await made.close()
    if fake:
        assert not any(alive(pid) for pid in notes(stand_in, "pid") + notes(stand_in, "helper"))


async def test_a_python_without_sglang() -> None:
    with pytest.raises(
        BackendError, match=r"^SGLang did not start: sglang cannot be imported.*set backend\.python to an"
    ):
        await backend({}).start()
    with pytest.raises(BackendError, match=r"^backend\.python=/nowhere: there is no Python"):
        await backend({}, python="/nowhere").start()


async def test_the_engines_death_reaches_all_who_wait(stand_in: dict[str, str]) -> None:
    made = backend(stand_in)
    await made.start()
    calls = [asyncio.create_task(made.complete(asking(seed=3000))) for _ in range(20)]
    await until(lambda: len(notes(stand_in, "asked")) == 20)
    with pytest.raises(EngineDead, match=r"^SGLang's engine died: the sky fell \(log: [^\n]*\)$"):
        await made.complete(asking(seed=666))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, EngineDead) for result in results)
    with pytest.raises(EngineDead, match="the sky fell"):
        await made.complete(asking())
    await made.close()
    assert not any(alive(pid) for pid in notes(stand_in, "helper"))


async def test_close_ends_everything_and_may_be_repeated(stand_in: dict[str, str]) -> None:
    made = backend(stand_in)
    await made.close()
    with pytest.raises(EngineDead, match="not running"):
        await made.complete(asking())
    await made.start()
    call = asyncio.create_task(made.complete(asking(seed=3000)))
    await until(lambda: notes(stand_in, "asked"))
    await made.close()
    with pytest.raises(EngineDead, match="closed"):
        await call
    await made.close()
    assert not any(alive(pid) for pid in notes(stand_in, "pid") + notes(stand_in, "helper"))


async def test_an_interrupted_start_leaves_nothing(stand_in: dict[str, str]) -> None:
    made = backend(stand_in, "slow")
    start = asyncio.create_task(made.start())
    await until(lambda: Path(stand_in["NOTES"]).exists() and notes(stand_in, "helper"))
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not any(alive(pid) for pid in notes(stand_in, "pid") + notes(stand_in, "helper"))


async def test_ctrl_c_in_the_terminal_is_ours_alone(stand_in: dict[str, str]) -> None:
    async with running(stand_in):
        (pid,) = notes(stand_in, "pid")
        assert os.getsid(pid) != os.getsid(0)
        assert os.getpgid(pid) != os.getpgid(0)


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


def test_the_child_needs_nothing_but_sglang() -> None:
    """It runs in environments that have no lab."""
    program = Path(__file__).parents[1] / "backends" / "_sglang_child.py"
    found = set()
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    assert found <= set(sys.stdlib_module_names) | {"sglang"}


async def test_killing_the_engine_is_not_the_end_of_us(stand_in: dict[str, str]) -> None:
    async with running(stand_in) as made:
        call = asyncio.create_task(made.complete(asking(seed=3000)))
        await until(lambda: notes(stand_in, "asked"))
        os.kill(notes(stand_in, "pid")[0], signal.SIGKILL)
        with pytest.raises(EngineDead, match=r"^SGLang's engine died: it said nothing, exit code 137"):
            await call
