"""The transformers backend against transformers itself, on random weights: nothing here depends on a trained model."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from backends._draw import draw
from backends._rows import Row
from backends.hf import HF
from pacore_lab.errors import BackendError, EngineDead, RequestError
from pacore_lab.interfaces import Chunk, Request
from pacore_lab.types import Completion, Model, SamplingParams

CONTEXT = 400
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'bad' %}{{ raise_exception('no such role') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if think %}<think>{% endif %}{% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,  # far from uniform, so that greedy choices are never near ties
    "bos_token_id": None,
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    bytes_only = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.add_special_tokens(
        [AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    bytes_only.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    return fast


def ship(folder: Path, tokenizer: PreTrainedTokenizerFast, net: Any) -> Path:
    net.generation_config.eos_token_id = [tokenizer.eos_token_id]
    net.generation_config.pad_token_id = tokenizer.pad_token_id
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def net(tokenizer: PreTrainedTokenizerFast) -> Any:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SHAPE)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast, net: Any) -> Path:
    return ship(tmp_path_factory.mktemp("tiny"), tokenizer, net)


class Running:
    """`async with Running(HF(...)) as ask`: ask(text, seed=, ...) completes one request."""

    def __init__(self, backend: HF) -> None:
        self.backend = backend

    async def __aenter__(self) -> Running:
        await self.backend.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.backend.close()

    async def __call__(
        self, text: str, *, seed: int = 0, on_chunk: Any = None, role: str = "user", **params: Any
    ) -> Completion:
        prompt = ({"role": role, "content": text},)
        request = Request(id=f"{seed}", prompt=prompt, params=SamplingParams(**params), seed=seed)  # type: ignore[arg-type]
        return await self.backend.complete(request, on_chunk)


def backend(folder: Path, **options: Any) -> HF:
    settings = {key: options.pop(key) for key in list(options) if key in Model.__dataclass_fields__}
    return HF(model=Model(name="tiny", path=str(folder), **settings), **{"max_batch": 8, "threads": 1, **options})


def plain_greedy(net: Any, tokenizer: Any, text: str, max_tokens: int) -> tuple[Any, int]:
    """Token ids [1, prompt + answer] of `generate` on this one prompt, and the length of the prompt."""
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False, return_tensors="pt"
    )
    out = net.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens)
    return out, ids.shape[1]


def mixed(n: int, seed: int = 0) -> list[tuple[str, int]]:
    """(text, max_tokens) of all lengths, some texts asked for several times, some answers past the first bucket."""
    rng = np.random.default_rng(seed)
    texts = ["".join(chr(c) for c in rng.integers(97, 123, size)) for size in rng.integers(1, 200, n)]
    return [(texts[i if i % 3 else i // 2], int(rng.integers(1, 150 if i % 4 == 0 else 50))) for i in range(n)]


@pytest.mark.parametrize("family", ["qwen3", "llama"])
async def test_greedy_equals_generate_one_by_one(
    family: str, folder: Path, tmp_path: Path, tokenizer: Any, net: Any
) -> None:
    """Guards cache placement: rows that join, move, swap places and share prompts must not see each other's text."""
    if family == "llama":
        torch.manual_seed(1)
        net = LlamaForCausalLM(
            LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SHAPE)
        ).eval()
        folder = ship(tmp_path, tokenizer, net)
    asked = mixed(16 if family == "qwen3" else 6)
    async with Running(backend(folder, max_batch=6)) as ask:
        got = await asyncio.gather(*(ask(text, max_tokens=n, temperature=0) for text, n in asked))
    for completion, (text, n) in zip(got, asked, strict=True):
        out, prompt = plain_greedy(net, tokenizer, text, n)
        expected = tokenizer.decode(out[0, prompt:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert completion.content == expected
        assert completion.generated_tokens == out.shape[1] - prompt
        assert completion.prompt_tokens == prompt
    assert sum(c.cached_tokens > 0 for c in got) > 0


async def test_same_seed_same_text_whatever_else_is_running(folder: Path) -> None:
    asked = mixed(12, seed=1)
    async with Running(backend(folder)) as ask:
        alone = [await ask(text, seed=i, max_tokens=n) for i, (text, n) in enumerate(asked)]
        others = [asyncio.create_task(ask(text, seed=100 + i, top_p=0.9)) for i, (text, _) in enumerate(asked)]
        crowd = await asyncio.gather(*(ask(text, seed=i, max_tokens=n) for i, (text, n) in enumerate(asked)))
        await asyncio.gather(*others)
        again = await ask(asked[0][0], seed=7, max_tokens=60)
    assert [c.content for c in crowd] == [c.content for c in alone]
    assert len({c.content for c in alone}) == len(asked)
    assert again.content[:20] != alone[0].content[:20]


async def test_rows_give_way_when_memory_runs_out_and_continue_where_they_were(folder: Path) -> None:
    """Guards preemption: a budget of two long rows must change the order of work, never the text."""
    asked = mixed(10, seed=2)
    results = []
    for cache_tokens in (None, 2 * CONTEXT):
        async with Running(backend(folder, cache_tokens=cache_tokens)) as ask:
            tasks = [ask(text, seed=i, max_tokens=n) for i, (text, n) in enumerate(asked)]
            results.append([c.content for c in await asyncio.gather(*tasks)])
    assert results[0] == results[1]


async def test_a_request_larger_than_the_memory_is_refused(folder: Path) -> None:
    async with Running(backend(folder, cache_tokens=200)) as ask:
        with pytest.raises(RequestError, match=r"backend\.cache_tokens=200"):
            await ask("x")
        assert (await ask("x", max_tokens=5)).generated_tokens <= 5


def rows(n: int, **settings: Any) -> list[Row]:
    common: dict[str, Any] = {
        "prompt": [1], "key": "", "order": (0, 0), "max_tokens": 1, "temperature": 1.0, "top_p": 1.0, "logprobs": False
    }  # fmt: skip
    return [Row(seed=seed, **{**common, **settings}) for seed in range(n)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1, 0.0]),
        ({"temperature": 0.5}, [0.5**2, 0.25**2, 0.15**2, 0.1**2, 0.0]),
        ({"top_p": 0.7}, [0.5, 0.25, 0.0, 0.0, 0.0]),
        ({"top_p": 0.76}, [0.5, 0.25, 0.15, 0.0, 0.0]),
        ({"temperature": 0}, [1.0, 0.0, 0.0, 0.0, 0.0]),
        ({"temperature": 1e-40}, [1.0, 0.0, 0.0, 0.0, 0.0]),
        ({"top_p": 1e-9}, [1.0, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_draws_follow_the_distribution(settings: dict[str, Any], expected: list[float]) -> None:
    n = 5_000
    logits = torch.tensor([[0.1, 0.0, 0.5, 0.15, 0.25]]).log().repeat(n, 1)
    tokens, _ = draw(logits, rows(n, **settings))
    seen = Counter(tokens)
    order = [2, 4, 3, 0, 1]  # tokens by descending probability
    total = sum(expected)
    assert all(seen[token] == 0 for token, p in zip(order, expected, strict=True) if p == 0)
    likely = [(seen[token], n * p / total) for token, p in zip(order, expected, strict=True) if p > 0]
    if len(likely) > 1:
        assert chisquare(*zip(*likely, strict=True)).pvalue > 1e-4


def test_logits_that_are_not_numbers_are_an_error_not_a_token() -> None:
    with pytest.raises(FloatingPointError, match="nan"):
        draw(torch.full((2, 5), float("nan")), rows(2))


def test_a_row_draws_the_same_in_any_company() -> None:
    logits = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    together, _ = draw(logits, [replace_row(row, i) for i, row in enumerate(rows(64))])
    alone = [draw(logits[i : i + 1], [replace_row(row, i)])[0][0] for i, row in enumerate(rows(64))]
    assert together == alone


def replace_row(row: Row, i: int) -> Row:
    row.top_p, row.temperature = (1.0, 0.8, 0.5)[i % 3], (1.0, 0.0, 0.7)[i % 3]
    return row


async def test_a_short_answer_does_not_wait_for_a_long_one(folder: Path) -> None:
    async with Running(backend(folder)) as ask:
        long = asyncio.create_task(ask("a", temperature=0, max_tokens=300))
        late = asyncio.create_task(ask("a", temperature=0, max_tokens=250))
        short = await ask("b", temperature=0, max_tokens=3)
        assert short.generated_tokens == 3
        assert not long.done()
        assert not late.done()
        assert (await late).generated_tokens == 250
        assert (await long).generated_tokens == 300


async def test_cancelled_calls_leave_nothing_behind(folder: Path) -> None:
    """1000 aborts, in the queue and in the batch; then the engine is as good as new."""
    running = Running(backend(folder))
    async with running as ask:
        expected = await ask("after", max_tokens=20)
        for wave in range(4):
            tasks = [asyncio.create_task(ask(f"{wave} {i % 50}", seed=i)) for i in range(250)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await ask("after", max_tokens=20) == expected
        worker = running.backend._worker
        assert worker is not None
        assert worker.decoder.idle
        assert not worker._calls


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

        def fail() -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

        calls = [asyncio.create_task(ask("x", seed=i)) for i in range(20)]
        await asyncio.sleep(0.05)
        monkeypatch.setattr(decoder, "step", fail)
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
    call = asyncio.create_task(ask("x"))
    await asyncio.sleep(0.02)
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
