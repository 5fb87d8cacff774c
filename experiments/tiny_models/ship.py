"""Copy a training's last policy and its log to a folder that can be run: `... ship TRAINING FOLDER`."""

import shutil
import sys
from pathlib import Path

from experiments.tiny_models.model import load, ship


def main() -> None:
    training, folder = map(Path, sys.argv[1:])
    last = max(training.glob("policy-*"), key=lambda path: int(path.name.removeprefix("policy-")))
    shutil.rmtree(folder, ignore_errors=True)
    ship(*load(last), folder)
    shutil.copy(training / "log.jsonl", folder / "training.jsonl")


if __name__ == "__main__":
    main()
