"""What the lab costs on top of an engine: `make bench`. A backend that answers at once stands in for the engine; its
texts are random hex digits, which compress to a half (prose compresses better).

Peak memory is measured in a process of its own, over the whole life of the process.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.mock import Mock
from pacore_lab.sampling.dispatch import Dispatcher
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.sampling.store import Store
from pacore_lab.types import Model, SamplingParams

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 32


async def sample_all(path: Path, trajectories: int, characters: int) -> None:
    """`trajectories` of `characters` each through dispatcher, sampler and store, in calls of 32, all in flight."""
    backend = Mock(model=Model(name="mock"), characters=characters)
    store = await Store.open(path)
    dispatch = Dispatcher(backend=backend, store=store, params=SamplingParams(), concurrency=256)

    async def call(number: int) -> None:
        sampler = EpisodeSampler(dispatch, seed=0, problem=str(number), repeat=0)
        found = await sampler.sample(({"role": "user", "content": f"problem {number}"},), WIDTH)
        assert len(found) == WIDTH

    async with asyncio.TaskGroup() as group:
        for number in range(trajectories // WIDTH):
            group.create_task(call(number))
    await store.close()


@pytest.mark.parametrize("characters", [2_000, 100_000])
def test_trajectories_per_second(benchmark: Any, tmp_path: Path, characters: int) -> None:
    count, runs = 1_024, iter(range(100))
    benchmark.pedantic(
        lambda: asyncio.run(sample_all(tmp_path / f"{next(runs)}.sqlite", count, characters)), rounds=5, warmup_rounds=1
    )
    benchmark.extra_info["trajectories_per_second"] = round(count / benchmark.stats.stats.median)
    print(f"\n{characters:,} characters each: {count / benchmark.stats.stats.median:,.0f} trajectories/s (median of 5)")


def test_peak_memory_of_20_000_trajectories_of_100_kb(benchmark: Any, tmp_path: Path) -> None:
    """2 GB of text through one process; what is stored is not held."""
    script = (
        "import asyncio, json, re, sys; from pathlib import Path; from tests.bench_overhead import sample_all;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024;"
        "before = peak();"
        "asyncio.run(sample_all(Path(sys.argv[1]), 20_000, 100_000)); print(json.dumps([before, peak()]))"
    )

    def measure() -> list[float]:
        command = [sys.executable, "-c", script, str(tmp_path / "s.sqlite")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    before, peak = benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info["peak_mib"] = round(peak)
    print(f"\npeak {peak:,.0f} MiB, of which {before:,.0f} MiB before the first trajectory")
    assert peak - before < 500
