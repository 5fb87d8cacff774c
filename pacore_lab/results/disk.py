"""Files that are whole or absent: a reader never sees half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write(path: Path, data: bytes) -> None:
    """Replace the file in one step. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_bytes(data)
    os.replace(draft, path)


def write_json(path: Path, value: Any) -> None:
    """Replace the file in one step by a value as indented JSON. Raises OSError."""
    write(path, (json.dumps(value, indent=2) + "\n").encode())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file, except a line that a kill cut short."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                continue
