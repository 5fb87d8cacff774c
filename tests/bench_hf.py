"""P6: continuous batching against padded `generate` on mixed lengths: `experiments/hf_cpu`, asked for in a process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def test_hf_against_padded_generate(benchmark: Any) -> None:
    command = [sys.executable, "-m", "experiments.hf_cpu.measure"]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True), rounds=1
    )
    print("\n" + done.stdout)
    ratio = re.search(r"whole queue .*tokens per CPU second.*is ([\d.]+) times", done.stdout)
    assert ratio
    assert float(ratio[1]) >= 3
