"""Continuous batching against padded `generate`, on answers of log-normal length. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from backends.hf import HF
from pacore_lab.interfaces import Request
from pacore_lab.types import Model, SamplingParams

TINY = Path(__file__).parents[1] / "tiny_models" / "rlvr-tiny"


def workload(args: argparse.Namespace) -> list[tuple[str, int]]:
    """(prompt, tokens to generate) for each request, in order of arrival."""
    rng = np.random.default_rng(args.seed)
    prompts = rng.lognormal(np.log(args.prompt), 0.7, args.requests).clip(4, args.longest).astype(int)
    answers = rng.lognormal(np.log(args.median), args.sigma, args.requests).clip(1, args.longest).astype(int)
    return [("".join(map(str, rng.integers(0, 10, size))), int(n)) for size, n in zip(prompts, answers, strict=True)]


async def ours(backend: HF, work: list[tuple[str, int]]) -> None:
    """Every request as its own call, all at once."""

    async def one(i: int, text: str, tokens: int) -> int:
        params = SamplingParams(max_tokens=tokens)
        request = Request(id=str(i), prompt=({"role": "user", "content": text},), params=params, seed=i)
        return (await backend.complete(request)).generated_tokens

    done = await asyncio.gather(*(one(i, text, tokens) for i, (text, tokens) in enumerate(work)))
    assert list(done) == [tokens for _, tokens in work]


async def padded(net: Any, tokenizer: Any, work: list[tuple[str, int]], batch: int) -> None:
    """`generate` on `batch` requests at a time, in order of arrival, each batch as long as its longest answer."""
    for start in range(0, len(work), batch):
        some = work[start : start + batch]
        inputs = tokenizer.apply_chat_template(
            [[{"role": "user", "content": text}] for text, _ in some],
            add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
        longest = max(tokens for _, tokens in some)
        out = net.generate(
            **inputs, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=longest, eos_token_id=-1
        )
        assert out.shape == (len(some), inputs["input_ids"].shape[1] + longest)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=TINY, help="folder of the weights")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--prompt", type=float, default=60, help="median length of a prompt, characters")
    parser.add_argument("--median", type=float, default=60, help="median length of an answer, tokens")
    parser.add_argument("--sigma", type=float, default=1.0, help="standard deviation of log length")
    parser.add_argument("--longest", type=int, default=500, help="limit on the length of a prompt or an answer")
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    work = workload(args)
    total = sum(tokens for _, tokens in work)
    backend = HF(
        model=Model(name="tiny", path=str(args.model)), max_batch=args.max_batch, device="cpu", threads=args.threads
    )
    await backend.start()
    assert backend._worker is not None
    backend._worker.decoder.eos = frozenset()  # the workload sets the lengths, the same for every method
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model, padding_side="left")
    net = transformers.AutoModelForCausalLM.from_pretrained(args.model).eval()

    methods: dict[str, Callable[[list[tuple[str, int]]], Awaitable[None]]] = {
        "backends.hf": lambda work: ours(backend, work),
        "generate, whole queue": lambda work: padded(net, tokenizer, work, len(work)),
        f"generate, {args.max_batch} by {args.max_batch}": lambda work: padded(net, tokenizer, work, args.max_batch),
    }
    if args.requests <= args.max_batch:
        methods.popitem()  # it is the whole queue
    longest = max(tokens for _, tokens in work)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {args.threads} thread(s)")
    print(f"{len(work)} requests, {total} tokens, longest answer {longest}, mean {total / len(work):.0f}")
    for method in methods.values():
        await method(work[:4])  # warm-up
    clocks = {"wall": time.perf_counter, "CPU": time.process_time}  # CPU time is blind to busy neighbours
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for _ in range(args.repeats):  # in turns, so that a busy machine slows all of them
        for name, method in methods.items():
            start = {clock: now() for clock, now in clocks.items()}
            await method(work)
            rates[name].append({clock: total / (now() - start[clock]) for clock, now in clocks.items()})
    for clock in clocks:
        best = [rate[clock] for rate in rates["backends.hf"]]
        for name, found in rates.items():
            speeds = [rate[clock] for rate in found]
            ratios = [a / b for a, b in zip(best, speeds, strict=True)]
            print(
                f"{name:24} {statistics.median(speeds):6.0f} tokens per {clock} second "
                f"({min(speeds):.0f} to {max(speeds):.0f}); backends.hf is {statistics.median(ratios):.1f} times "
                f"as fast ({min(ratios):.1f} to {max(ratios):.1f})"
            )
    await backend.close()


if __name__ == "__main__":
    asyncio.run(main())
