"""How many requests an engine says it is working on, in its own words."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

RUNNING = ("vllm:num_requests_running", "vllm:num_requests_waiting", "sglang:num_running_reqs", "sglang:num_queue_reqs")
SGLANG_FILES = Path(tempfile.mkdtemp(prefix="pacore-sglang-metrics-"))
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
