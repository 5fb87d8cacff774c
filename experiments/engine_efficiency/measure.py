"""Tokens per second of a coordinated run against those of the engine alone. See README.md.

The run goes through everything (strategy, store, grading, files). The engine alone gets the very same requests all at
once, with nothing to wait for. Both are timed from the first request to the last answer, in turns, and prefix caches
are emptied in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from backends._checkpoint import load_tokenizer, locate
from backends._child import interpreter
from pacore_lab.config.build import build
from pacore_lab.config.command import launch, one_line_errors
from pacore_lab.errors import ConfigError
from pacore_lab.interfaces import Backend, OnChunk, Request
from pacore_lab.running.parts import Run
from pacore_lab.running.run import execute
from pacore_lab.types import Completion

HERE = Path(__file__).resolve().parent


@dataclass
class Watched:
    """A started backend that records every request, and when the first came and the last was answered."""

    backend: Backend
    requests: list[Request] = field(default_factory=list)
    tokens: int = 0
    first: float = 0.0
    last: float = 0.0

    def __post_init__(self) -> None:
        self.capabilities, self.fingerprint = self.backend.capabilities, self.backend.fingerprint

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        self.first = self.first or time.perf_counter()
        self.requests.append(request)
        done = await self.backend.complete(request, on_chunk)
        self.tokens += done.generated_tokens
        self.last = time.perf_counter()
        return done

    @property
    def rate(self) -> float:
        return self.tokens / (self.last - self.first)


async def coordinated(run: Run, backend: Backend, folder: Path) -> Watched:
    """A run on a started backend, with a store of its own, so that every trajectory is sampled."""
    watched = Watched(backend)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        await execute(replace(run, backend=watched, repeats=1, out=folder / "out", store=folder / "store.sqlite"))
    if backend.__class__.__name__ == "VLLM":
        await backend._engine.reset_prefix_cache()  # type: ignore[attr-defined]
    return watched


async def alone_vllm(backend: Any, requests: Sequence[Request]) -> float:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    prompts = [await backend._chat.render(request) for request in requests]

    async def one(number: int) -> int:
        asked = requests[number].params
        params = SamplingParams(
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_tokens=prompts[number].max_tokens,
            seed=requests[number].seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        inputs = {"type": "token", "prompt_token_ids": prompts[number].tokens}
        outputs = [out async for out in backend._engine.generate(inputs, params, f"raw-{number}-{time.monotonic_ns()}")]
        return len(outputs[-1].outputs[0].token_ids)

    start = time.perf_counter()
    tokens = sum(await asyncio.gather(*map(one, range(len(requests)))))
    rate = tokens / (time.perf_counter() - start)
    await backend._engine.reset_prefix_cache()
    return rate


async def alone_hf(backend: Any, requests: Sequence[Request]) -> float:
    """The decoder in a bare loop, without the worker's queues."""
    from backends._hf_rows import Row

    decoder, prompts = backend._worker.decoder, [await backend._chat.render(request) for request in requests]

    def decode() -> float:
        start, tokens = time.perf_counter(), 0
        for number, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            decoder.submit(
                Row(
                    prompt=prompt.tokens,
                    key=prompt.text,
                    order=(request.priority, number),
                    max_tokens=prompt.max_tokens,
                    temperature=request.params.temperature,
                    top_p=request.params.top_p,
                    seed=request.seed,
                    logprobs=False,
                )
            )
        while not decoder.idle:
            tokens += len(decoder.step())
        return tokens / (time.perf_counter() - start)

    return await asyncio.to_thread(decode)


async def alone_sglang(backend: Any, requests: Sequence[Request]) -> float:
    """A plain script around sglang.Engine, in its own process as in our backend."""
    prompts = [await backend._chat.render(request) for request in requests]
    asked = [
        {
            "ids": prompt.tokens,
            "sampling": {
                "max_new_tokens": prompt.max_tokens,
                "sampling_seed": request.seed,
                "temperature": request.params.temperature,
                "top_p": request.params.top_p,
            },
        }
        for request, prompt in zip(requests, prompts, strict=True)
    ]
    folder = locate(backend.model)
    settings, _ = load_tokenizer(backend.model, folder)
    given = {
        "arguments": {
            **backend._arguments(folder, settings, backend.capabilities.context_length),
            "log_level": "error",
        },
        "requests": asked,
    }
    await backend.close()  # its scheduler never sleeps
    done = await asyncio.to_thread(
        subprocess.run,
        [interpreter(backend.python), str(HERE / "raw_sglang.py")],
        input=json.dumps(given),
        text=True,
        capture_output=True,
        check=True,
        env={**os.environ, "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1", **backend.env},
    )
    await backend.start()
    return float(done.stdout.splitlines()[-1])


ALONE: dict[str, Callable[[Any, Sequence[Request]], Awaitable[float]]] = {
    "VLLM": alone_vllm,
    "HF": alone_hf,
    "SGLang": alone_sglang,
}


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Tokens per second in each turn."""

    name: str
    requests: int
    ours: list[float]
    alone: list[float]

    @property
    def ratios(self) -> list[float]:
        return [ours / alone for ours, alone in zip(self.ours, self.alone, strict=True)]

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.requests} requests, coordinated {statistics.median(self.ours):,.0f} tokens/s, "
            f"the engine alone {statistics.median(self.alone):,.0f}; ratio {statistics.median(self.ratios):.3f} "
            f"({min(self.ratios):.3f} to {max(self.ratios):.3f} in {len(self.ours)} turns)"
        )


async def efficiency(run: Run, backend: Any, turns: int) -> Efficiency:
    """The efficiency of a started backend; a first turn warms up and is not counted."""
    name = backend.__class__.__name__
    ours, alone = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns + 1):
            watched = await coordinated(run, backend, Path(folder) / str(turn))
            rate = await ALONE[name](backend, watched.requests)
            if turn:
                ours.append(watched.rate)
                alone.append(rate)
    return Efficiency(name=name, requests=len(watched.requests), ours=ours, alone=alone)


@hydra.main(version_base="1.3", config_path="../../conf", config_name="config")
@one_line_errors
def main(settings: DictConfig) -> None:
    """`repeats` is the number of turns."""
    run = build(settings)
    if run.backend.__class__.__name__ not in ALONE:
        raise ConfigError(f"backend={settings.backend._target_} is not an in-process engine (hf, vllm, sglang)")

    async def measure() -> Efficiency:
        await run.backend.start()
        try:
            return await efficiency(run, run.backend, run.repeats)
        finally:
            await run.backend.close()

    print(asyncio.run(measure()))


if __name__ == "__main__":
    launch(main)
