"""The training's log: one JSON line per step, OUT/log.jsonl."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Log:
    """A log for a training that has made `step` steps. Opening it drops later lines and an incomplete one."""

    def __init__(self, file: Path, step: int) -> None:
        self._file = file
        kept = [line for line in read_log(file) if line["step"] <= step] if file.exists() else []
        draft = file.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(draft, file)
        self._started = time.monotonic() - (kept[-1]["seconds"] if kept else 0.0)

    def add(self, facts: Mapping[str, Any]) -> None:
        """Append and print a step's line, with the seconds spent so far over all processes of the training."""
        line = {**facts, "seconds": round(time.monotonic() - self._started, 2)}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(_shown(line), flush=True)


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log, without a last line that a kill left incomplete."""
    *whole, _ = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in whole]


def _shown(line: Mapping[str, Any]) -> str:
    def number(key: str, form: str) -> str:
        return "–" if line[key] is None else format(line[key], form)

    return (
        f"step {line['step']:5d}  reward {number('reward', '.3f')}  length {line['length']:6.1f}  "
        f"truncated {line['truncated']:3d}  entropy {number('entropy', '.3f')}  "
        f"explained {number('explained_variance', '5.2f')}  norm {number('grad_norm', '.2f')}  "
        f"{sum(line['spent'].values()):.1f} s  {line['seconds'] / 60:.1f} min"
    )
