"""What an engine says of itself, in its own words: how many requests it is working on, and how many it aborted."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

RUNNING = ("vllm:num_requests_running", "vllm:num_requests_waiting", "sglang:num_running_reqs", "sglang:num_queue_reqs")
SGLANG_FILES = Path(tempfile.mkdtemp(prefix="sglang-metrics-"))
"""Where SGLang's processes write their metrics when there is no server to ask."""
READ_FILES = (
    "import sys; from prometheus_client import CollectorRegistry, generate_latest, multiprocess as m;"
    "r = CollectorRegistry(); m.MultiProcessCollector(r, path=sys.argv[1]); print(generate_latest(r).decode())"
)


async def busy(kind: str, backend: Any) -> int:
    """Requests running or waiting in the engine."""
    if kind == "hf":
        decoder = backend._worker.decoder
        return len(decoder.memory) + len(decoder.waiting)
    return count(await text(kind, backend))


async def text(kind: str, backend: Any) -> str:
    """The engine's metrics in Prometheus' format."""
    if kind == "vllm":
        from prometheus_client import generate_latest

        return generate_latest().decode()
    if kind == "sglang":
        python = os.environ["PACORE_SGLANG"] + "/bin/python"
        command = [python, "-c", READ_FILES, str(SGLANG_FILES)]
        return (await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)).stdout
    root = backend._client.roots[0].removesuffix("/v1")
    async with aiohttp.ClientSession() as session, session.get(f"{root}/metrics") as response:
        return await response.text()


def count(metrics: str) -> int:
    values = [line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith(RUNNING)]
    assert values, f"no {RUNNING} in the metrics"
    return round(sum(float(value) for name, value in values if not re.search(r"_(bucket|sum|count)\{", name)))


async def idle(kind: str, backend: Any, seconds: float) -> float:
    """Seconds until the engine says that it has nothing to do. Raises TimeoutError."""
    clock = asyncio.get_running_loop().time
    start = clock()
    async with asyncio.timeout(seconds):
        while await busy(kind, backend):
            await asyncio.sleep(0.05)
    return clock() - start


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an engine has done since it started. aborted: requests it began and did not end. tokens: None if unknown."""

    aborted: int
    tokens: int | None


async def work(kind: str, backend: Any) -> Work:
    """vLLM counts no aborts, but requests with a first token, and those that ended; SGLang the aborts it sent on."""
    if kind == "hf":
        return Work(aborted=_dropped(backend._worker.decoder), tokens=None)
    metrics = await text(kind, backend)
    if kind.startswith("sglang"):
        return Work(aborted=total(metrics, "sglang:num_aborted_requests_total"), tokens=None)
    begun = total(metrics, "vllm:time_to_first_token_seconds_count")
    ended = total(metrics, "vllm:request_success_total")
    return Work(aborted=begun - ended, tokens=total(metrics, "vllm:generation_tokens_total"))


def total(metrics: str, name: str) -> int:
    """A counter, summed over its labels; 0 as long as it was never increased."""
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith(f"{name}{{")))


def _dropped(decoder: Any) -> int:
    """Rows that left transformers' batch unfinished; the decoder itself keeps no count."""
    if not hasattr(decoder, "dropped"):
        decoder.dropped, drop = 0, decoder.drop_cancelled

        def counting() -> None:
            decoder.dropped += sum(row.cancelled for row in (*decoder.memory, *decoder.waiting))
            drop()

        decoder.drop_cancelled = counting
    return int(decoder.dropped)
