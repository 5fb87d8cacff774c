"""The transformers backend: what a request gets back, faults, loading; on random weights, so training is no matter."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from backends.hf import HF
from pacore_lab.errors import BackendError, EngineDead, RequestError
from pacore_lab.interfaces import Chunk
from pacore_lab.types import Completion, Model
from tests.tiny_hf import CONTEXT, SHAPE, Running, backend, folder, net, plain_greedy, ship, tokenizer


async def test_stop_is_not_part_of_the_text_but_counts(folder: Path, tmp_path: Path, tokenizer: Any, net: Any) -> None:
    """Every end token of generation_config.json stops; the tokenizer's own does too."""
    out, prompt = plain_greedy(net, tokenizer, "hello", 20)
    ids = out[0, prompt:].tolist()
    end = next(i for i in range(3, 20) if ids[i] not in ids[:i])
    other = shutil.copytree(folder, tmp_path / "copy")
    (other / "generation_config.json").write_text(f'{{"eos_token_id": [299, {ids[end]}]}}')
    async with Running(backend(other)) as ask:
        stopped = await ask("hello", temperature=0)
        cut = await ask("hello", temperature=0, max_tokens=3)
    assert (stopped.finish_reason, stopped.generated_tokens) == ("stop", end + 1)
    assert stopped.content == tokenizer.decode(ids[:end])
    assert (cut.finish_reason, cut.generated_tokens, cut.clamped) == ("length", 3, False)


async def test_max_tokens_is_clamped_to_the_context_and_the_clamp_recorded(folder: Path) -> None:
    async with Running(backend(folder, context_length=64)) as ask:
        assert ask.backend.capabilities.context_length == 64
        clamped = await ask("hello", temperature=0, max_tokens=1000)
        free = await ask("hello", temperature=0)
        exact = await ask("hello", temperature=0, max_tokens=64 - free.prompt_tokens)
        with pytest.raises(RequestError, match=r"prompt has \d+ tokens .* holds 64"):
            await ask("x" * 80)
    assert clamped.max_tokens == free.max_tokens == exact.max_tokens == 64 - free.prompt_tokens
    assert clamped.generated_tokens == free.generated_tokens == 64 - free.prompt_tokens
    assert (clamped.clamped, free.clamped, exact.clamped) == (True, False, False)


async def test_the_chat_template_decides(folder: Path) -> None:
    async with Running(backend(folder, chat_template_kwargs={"think": True})) as ask:
        thinking = await ask("hello", max_tokens=1)
        with pytest.raises(RequestError, match="no such role"):
            await ask("hello", role="bad", max_tokens=1)
    async with Running(backend(folder)) as ask:
        assert (await ask("hello", max_tokens=1)).prompt_tokens == thinking.prompt_tokens - 1


async def test_think_marks_survive_and_special_tokens_do_not(folder: Path, tokenizer: Any) -> None:
    running = Running(backend(folder))
    async with running:
        ids = tokenizer("a<think>b</think><|im_start|>c", add_special_tokens=False)["input_ids"]
        assert running.backend._worker is not None
        assert running.backend._worker.tokenizer.decode(ids, skip_special_tokens=True) == "a<think>b</think>c"


async def test_logprobs_are_those_of_a_full_forward(folder: Path, net: Any, tokenizer: Any) -> None:
    async with Running(backend(folder)) as ask:
        others = [asyncio.create_task(ask("other", seed=i, max_tokens=100)) for i in range(3)]
        got = await ask("hello", temperature=0, max_tokens=150, logprobs=True)
        sampled = await ask("hello", temperature=0.7, top_p=0.9, max_tokens=100, logprobs=True)
        assert (await others[0]).mean_logprob is None
        await asyncio.gather(*others)
    out, prompt = plain_greedy(net, tokenizer, "hello", 150)
    with torch.inference_mode():
        logprobs = net(out).logits.log_softmax(-1)[0, prompt - 1 : -1]
    chosen = logprobs.gather(1, out[0, prompt:, None])[:, 0]
    assert got.mean_logprob == pytest.approx(chosen.mean().item(), abs=1e-4)
    assert got.window_logprobs == pytest.approx([w.mean().item() for w in chosen.split(64)], abs=1e-4)
    assert sampled.window_logprobs is not None
    assert len(sampled.window_logprobs) == -(-sampled.generated_tokens // 64)


async def test_chunks_add_up_to_the_answer(folder: Path) -> None:
    chunks: list[Chunk] = []
    async with Running(backend(folder)) as ask:
        quiet = await ask("hello", seed=3, max_tokens=200)
        streamed = await ask("hello", seed=3, max_tokens=200, on_chunk=chunks.append)
        assert streamed.content == quiet.content == "".join(chunk.text for chunk in chunks)
        assert sum(chunk.tokens for chunk in chunks) == streamed.generated_tokens

        def broken(_: Chunk) -> None:
            raise RuntimeError("caller's bug")

        with pytest.raises(RuntimeError, match="caller's bug"):
            await ask("hello", on_chunk=broken)
        assert (await ask("hello", seed=3, max_tokens=200)).content == quiet.content


async def test_a_failing_step_ends_every_call_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(backend(folder))
    async with running as ask:
        assert running.backend._worker is not None
        decoder = running.backend._worker.decoder
        steps = [decoder.step] * 3

        def fail() -> Any:
            if steps:
                return steps.pop()()
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

        monkeypatch.setattr(decoder, "step", fail)
        calls = [asyncio.create_task(ask("x", seed=i)) for i in range(20)]
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
        assert any(isinstance(result, EngineDead) for result in results)
        assert all(isinstance(result, EngineDead | Completion) for result in results)
        with pytest.raises(EngineDead, match=r"^[^\n]*out of memory\. Tried[^\n]*backend\.max_batch[^\n]*$"):
            await ask("y")


async def test_close_ends_pending_calls_and_may_be_repeated(folder: Path) -> None:
    ask = Running(backend(folder))
    await ask.backend.close()
    with pytest.raises(EngineDead, match="not running"):
        await ask("x")
    await ask.backend.start()
    began = asyncio.Event()
    call = asyncio.create_task(ask("a", temperature=0, on_chunk=lambda chunk: began.set()))
    await began.wait()
    await ask.backend.close()
    with pytest.raises(EngineDead, match="closed"):
        await call
    await ask.backend.close()


async def test_yarn_reaches_the_model(folder: Path) -> None:
    running = Running(backend(folder, yarn_factor=4.0, yarn_original=CONTEXT, context_length=1200))
    async with running as ask:
        worker = running.backend._worker
        assert worker is not None
        config = worker.decoder.model.config
        assert config.rope_parameters == {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": CONTEXT,
            "attention_factor": 1.0,
        }
        assert config.max_position_embeddings == running.backend.capabilities.context_length == 1200
        assert worker.decoder.model.model.rotary_emb.attention_scaling == 1.0
        assert (await ask("x" * 500, max_tokens=2)).generated_tokens == 2


async def test_a_context_beyond_the_checkpoint_needs_yarn(folder: Path) -> None:
    with pytest.raises(BackendError, match="yarn_factor"):
        await backend(folder, context_length=CONTEXT + 1).start()


async def test_sliding_windows_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    """Their layers attend to less than the text; running them here would give wrong samples without an error."""
    config = Qwen3Config(
        vocab_size=len(tokenizer), use_sliding_window=True, sliding_window=16, max_window_layers=0, **SHAPE
    )
    ship(tmp_path, tokenizer, Qwen3ForCausalLM(config))
    with pytest.raises(BackendError, match="Qwen3ForCausalLM attends in a way"):
        await backend(tmp_path).start()


async def test_a_wrong_path_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BackendError, match=r"no such folder \(.* holds notes\.txt\)"):
        await backend(tmp_path / "missing").start()
    with pytest.raises(BackendError, match=r"no config\.json \(it holds notes\.txt\)"):
        await backend(tmp_path).start()
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(BackendError, match=r"^model\.path=[^\n]* cannot be loaded: [^\n]+$"):
        await backend(tmp_path).start()


async def test_the_fingerprint_follows_contents_not_places(folder: Path, tmp_path: Path) -> None:
    async def of(path: Path, **options: Any) -> str:
        async with Running(backend(path, **options)) as ask:
            return ask.backend.fingerprint

    copy = shutil.copytree(folder, tmp_path / "copy")
    same = await of(folder)
    assert await of(copy) == same
    assert len({same, await of(copy, dtype="bfloat16"), await of(copy, context_length=99)}) == 3
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert await of(copy) != same


def test_importing_the_module_is_cheap() -> None:
    code = "import sys, backends.hf; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("key", ["max_batch", "threads", "cache_tokens"])
def test_senseless_numbers_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=rf"backend\.{key} is 0"):
        HF(model=Model(name="tiny"), **{key: 0})
