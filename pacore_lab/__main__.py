"""The commands around a run: `python -m pacore_lab NAME ...`. The run itself is `python run.py`."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "compare": ("pacore_lab.commands.compare", "methods of finished runs, paired: table, CSV, plots"),
    "sweep": ("pacore_lab.commands.sweep", "replay many policies from one store, without sampling"),
    "regrade": ("pacore_lab.commands.regrade", "grade a finished run again, without sampling"),
    "copying": ("pacore_lab.commands.copying", "which of its messages a synthesis agrees with"),
    "swe_bench": ("pacore_lab.commands.swe_bench", "export a run's patches for SWE-bench's own harness"),
    "pools": ("pacore_lab.training.pools", "training: message pools from finished runs"),
    "filters": ("pacore_lab.training.filters", "training: the problems that each stage keeps"),
    "ppo": ("pacore_lab.training.ppo.__main__", "training: PPO with a critic, for small models"),
    "curves": ("pacore_lab.training.curves", "training: reward, length and emergent correctness by step"),
    "attention": ("pacore_lab.training.attention", "training: what a response attends to"),
}
"""For each command: the module whose `main` reads the rest of the command line, and what the command does."""


def main() -> int | None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print(__doc__, *(f"  {each:{width}}  {what}" for each, (_, what) in COMMANDS.items()), sep="\n")
        return 0
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}; the commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    del sys.argv[1]
    outcome: int | None = import_module(COMMANDS[name][0]).main()
    return outcome


if __name__ == "__main__":
    sys.exit(main())
