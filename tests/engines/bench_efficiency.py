"""P1 and the rest of P6: `experiments/engine_efficiency` on real engines and a CPU, [32, 4] over PROBLEMS problems."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from experiments.engine_efficiency.measure import ALONE, coordinated, efficiency
from pacore_lab.grading import MathGrader
from pacore_lab.problems.arithmetic import Arithmetic
from pacore_lab.running.parts import Run
from strategies.compaction import Conclusion
from strategies.orders import Published
from strategies.pacore import PaCoRe
from strategies.prompts import published
from strategies.schedules import Fixed
from tests.engines.conftest import CHECKPOINT, ENGINES, model, named

pytestmark = pytest.mark.asyncio(loop_scope="session")
PROBLEMS = int(os.environ.get("PACORE_BENCH_PROBLEMS", "32"))
TURNS = int(os.environ.get("PACORE_BENCH_TURNS", "3"))
TINY = model(path=str(CHECKPOINT))


def high(backend: Any) -> Run:
    strategy = PaCoRe(schedule=Fixed(widths=[32, 4]), prompt=published(), order=Published(), compaction=Conclusion())
    return Run(
        name="pacore_high", problem_set="arithmetic", strategy=strategy, backend=backend, model=TINY,
        problems=Arithmetic(n=PROBLEMS), grader=MathGrader(), seed=0, repeats=1, limit=None, concurrency=256, pool=None,
        out=Path(), store=Path(), settings={},
    )  # fmt: skip


async def test_efficiency_of_a_coordinated_run(kind: str, benchmark: Any) -> None:
    backend = ENGINES[kind](TINY)
    if backend.__class__.__name__ not in ALONE:
        pytest.skip("the same engine as in process, behind HTTP")
    await backend.start()
    try:
        found = await efficiency(high(backend), backend, TURNS)
    finally:
        await backend.close()
    benchmark.extra_info |= {"ours": found.ours, "alone": found.alone, "ratios": found.ratios}
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\n{found}")
    assert found.requests == PROBLEMS * 37
    assert statistics.median(found.ratios) > 0.75  # the aim is 0.95; on two shared cores single turns swing by a fifth


async def test_hf_against_vllm(tmp_path: Path, benchmark: Any) -> None:
    """The whole run again, on both in turns."""
    if set(named()) != {"hf", "vllm"}:
        pytest.skip("needs both in one environment: PACORE_ENGINES=hf,vllm in vLLM's")
    backends = {kind: ENGINES[kind](TINY) for kind in ("hf", "vllm")}
    rates: dict[str, list[float]] = {kind: [] for kind in backends}
    try:
        for backend in backends.values():
            await backend.start()
        for turn in range(TURNS + 1):  # the first warms up
            for kind, backend in backends.items():
                rates[kind].append((await coordinated(high(backend), backend, tmp_path / f"{kind}{turn}")).rate)
    finally:
        for backend in backends.values():
            await backend.close()
    ratios = [hf / vllm for hf, vllm in zip(rates["hf"][1:], rates["vllm"][1:], strict=True)]
    benchmark.extra_info |= {"rates": rates, "ratios": ratios}
    benchmark.pedantic(lambda: None, rounds=1)
    print(
        f"\nHF {statistics.median(rates['hf'][1:]):,.0f} tokens/s, vLLM {statistics.median(rates['vllm'][1:]):,.0f}; "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} in {TURNS} turns)"
    )
