"""backends.hf against transformers' ContinuousBatchingManager (manager.py) on the shape of PaCoRe. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import transformers

from backends.hf import HF
from experiments.hf_cpu.manager import Manager
from pacore_lab.interfaces import Chunk, Request
from pacore_lab.types import Completion, Model, SamplingParams

MODEL = Model(name="tiny", path=str(Path(__file__).parents[1] / "tiny_models" / "rlvr-tiny"), dtype="float32")
Engine: TypeAlias = HF | Manager
MANAGERS: dict[str, dict[str, Any]] = {
    "our draws": {},
    "its own draws": {"draws": "its own"},
    "batch of 16": {"max_batch": 16},
    "pages of 256": {"page_size": 256},
    "prefill first": {"scheduler": "prefill_first"},
    "paged|eager": {"attention": "paged|eager"},
}


def digits(rng: np.random.Generator, size: int) -> str:
    return "".join(map(str, rng.integers(0, 10, size)))


def request(text: str, seed: int, tokens: int, **params: Any) -> Request:
    drawn = SamplingParams(max_tokens=tokens, **params)
    return Request(id=f"{seed}", prompt=({"role": "user", "content": text},), params=drawn, seed=seed)


def problem(rng: np.random.Generator, args: argparse.Namespace) -> list[list[Request]]:
    """A round of 32 siblings with lengths far apart, then one of 4 with a long prompt."""
    lengths = rng.lognormal(np.log(args.median), 1.0, 32).clip(8, args.longest).astype(int)
    asked, shown = digits(rng, 100), digits(rng, args.long_prompt)
    first = [request(asked, int(rng.integers(2**31)), int(n)) for n in lengths]
    return [first, [request(shown, int(rng.integers(2**31)), args.median) for _ in range(4)]]


async def solve(engine: Engine, problems: Iterable[list[list[Request]]]) -> list[str]:
    """All problems at once, each round after the one before; the texts."""

    async def one(rounds: list[list[Request]]) -> list[Completion]:
        return [done for each in rounds for done in await asyncio.gather(*map(engine.complete, each))]

    done = [item for each in await asyncio.gather(*map(one, problems)) for item in each]
    asked = [each.params.max_tokens for rounds in problems for each in chain(*rounds)]
    assert [item.generated_tokens for item in done] == asked
    return [item.content for item in done]


def kept(engine: Engine) -> tuple[int, int]:
    """Bytes of keys and values, and of what attention needs besides, as they are allocated now."""
    if isinstance(engine, HF):
        assert engine._worker is not None
        buckets = engine._worker.decoder.memory.buckets
        return sum(tensor.nbytes for bucket in buckets for tensor in (*bucket.keys, *bucket.values)), 0
    at_work = engine.manager.batch_processor
    return at_work.cache.cache_tensor.nbytes, sum(x.nbytes for x in at_work.inputs_and_outputs.attention_mask.values())


def endless(engine: Engine) -> None:
    """Without end tokens: lengths are set by the workload, the same ones for every engine."""
    if isinstance(engine, HF):
        assert engine._worker is not None
        engine._worker.decoder.eos = frozenset()
    else:
        engine.eos = frozenset()


def spread(numbers: Iterable[float], form: str = ".0f") -> str:
    found = sorted(numbers)
    return f"{statistics.median(found):{form}} ({found[0]:{form}} to {found[-1]:{form}})"


async def speed(engines: dict[str, Engine], args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    problems = [problem(rng, args) for _ in range(args.problems)]
    asked = [each.params.max_tokens or 0 for rounds in problems for each in chain(*rounds)]
    print(f"{len(problems)} problem(s): {len(asked)} requests, {sum(asked)} tokens, longest answer {max(asked)}")
    clocks: dict[str, Callable[[], float]] = {"CPU": time.process_time, "wall": time.perf_counter}
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    texts: dict[str, list[str]] = {}
    for turn in range(args.turns):  # in turns, so that a busy machine slows all of them
        for name, engine in list(engines.items())[:: 1 if turn % 2 else -1]:
            start = {clock: now() for clock, now in clocks.items()}
            texts[name] = await solve(engine, problems)
            rates[name].append({clock: sum(asked) / (now() - start[clock]) for clock, now in clocks.items()})
    for name, found in rates.items():
        cache, mask = kept(engines[name])
        same = sum(a == b for a, b in zip(texts["backends.hf"], texts[name], strict=True))
        print(f"{name:14} keys and values {cache / 1e6:.0f} MB, mask {mask / 1e6:.0f} MB; {same} texts as backends.hf")
        for clock in clocks:
            ratios = [a[clock] / b[clock] for a, b in zip(rates["backends.hf"], found, strict=True)]
            print(f"{'':14} {spread(each[clock] for each in found)} tokens per {clock} second, "
                  f"backends.hf is {spread(ratios, '.2f')} times as fast")  # fmt: skip


async def promises(engine: Engine, net: Any, tokenizer: Any) -> None:
    """Seeds alone and in company, log-probabilities beside a full forward pass, aborts."""
    rng = np.random.default_rng(1)
    asks = [request(digits(rng, 20 + 3 * i), i, 200, temperature=0.7, logprobs=True) for i in range(48)]
    alone = [await engine.complete(each) for each in asks]
    again = [await engine.complete(each) for each in asks]
    company = await asyncio.gather(*map(engine.complete, asks))
    off = [abs((a.mean_logprob or 0) - (b.mean_logprob or 0)) for a, b in zip(alone, company, strict=True)]
    for what, others in (("alone again", again), ("in company", company)):
        same = sum(a.content == b.content for a, b in zip(alone, others, strict=True))
        print(f"  {what}: {same} of {len(asks)} texts the same")
    print(f"  in company: mean log-probability off by at most {max(off):.1e}")

    wrong = [0.0]
    for each, done in zip(asks, company, strict=True):
        ids = tokenizer(done.content, add_special_tokens=False)["input_ids"]
        ids += [tokenizer.eos_token_id] * (done.finish_reason == "stop")
        if len(ids) != done.generated_tokens:  # the text's own tokens are others than those drawn
            continue
        turns = [dict(turn) for turn in each.prompt]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = net(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).mean().item()
        wrong.append(abs(expected - (done.mean_logprob or 0)))
    print(
        f"  mean log-probability against a full forward pass: off by at most {max(wrong):.1e} ({len(wrong) - 1} texts)"
    )

    counts = [0] * 32

    def heard(i: int, chunk: Chunk) -> None:
        counts[i] += chunk.tokens

    endless(engine)
    tasks = [asyncio.create_task(engine.complete(request("1", i, 3000), partial(heard, i))) for i in range(32)]
    while min(counts) < 20:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    start = time.perf_counter()
    for task in tasks[:16]:
        task.cancel()
    assert engine._worker is not None
    while len(engine._worker.decoder.memory) > 16:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    freed = time.perf_counter() - start
    for task in tasks[16:]:
        task.cancel()
    await asyncio.wait(tasks)
    print(f"  16 of 32 aborted: slots free after {1000 * freed:.0f} ms; at least {min(counts)} tokens of each reported")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--managers", nargs="+", default=["our draws", "its own draws"], choices=list(MANAGERS))
    parser.add_argument("--problems", type=int, default=1, help="solved at once")
    parser.add_argument("--long-prompt", type=int, default=2000, help="digits of the second round's")
    parser.add_argument("--median", type=int, default=120, help="median length of an answer, tokens")
    parser.add_argument("--longest", type=int, default=1500)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--promises", action="store_true", help="what each honours, before the speeds")
    args = parser.parse_args()

    torch.set_num_threads(1)
    engines: dict[str, Engine] = {"backends.hf": HF(model=MODEL, device="cpu", threads=1)}
    engines |= {name: Manager(model=MODEL, **MANAGERS[name]) for name in args.managers}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, one thread; "
          f"transformers {transformers.__version__}")  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL.path)
    net = transformers.AutoModelForCausalLM.from_pretrained(MODEL.path).eval()
    for name, engine in engines.items():
        start = time.perf_counter()
        await engine.start()
        await engine.complete(request("1", 0, 4))
        print(f"{name}: started in {time.perf_counter() - start:.2f} s, first answer included")
    for name, engine in engines.items():
        if args.promises:
            print(f"{name}:")
            await promises(engine, net, tokenizer)
        endless(engine)
    await speed(engines, args)
    print(f"load {os.getloadavg()[0]:.1f}")
    for engine in engines.values():
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
