"""Real verl on a machine without a GPU: its config, its loader, its reward worker, its dump, around our parts of them.

Skipped where verl is not installed; `make test-verl` makes an environment with it (`install.sh`).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.training import Record, write_records
from tests.doubles import user

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "experiments/tiny_models/rlvr-tiny"
RECIPE = ROOT / "experiments/train_pacore_8b"
TESTS = {"tests": [{"testtype": "stdin", "input": f"{n}\n", "output": f"{2 * n}\n"} for n in (1, 2)], "fn_name": None}
Compose = Callable[..., Any]


@pytest.fixture(autouse=True, scope="session")
def verl() -> None:
    """Imported once, with whatever it and its dependencies warn of."""
    if importlib.util.find_spec("verl") is None:
        pytest.skip("verl is not installed here: make test-verl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import verl.experimental.reward_loop.reward_loop
        import verl.trainer.main_ppo
        import verl.trainer.ppo.v1.trainer_base  # noqa: F401


def record(number: int, size: int = 24, **changed: Any) -> Record:
    given = {
        "conversation": user(f"What is {number} * 3?"),
        "responses": tuple(f"As far as I can see it is {number} or {i}." for i in range(size)),
        "scores": tuple(float(i % 3 == 0) for i in range(size)),
        "answer": str(3 * number),
    }
    return Record(id=f"r{number}", **{**given, **changed})


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """20 problems of mathematics and one of code."""
    code = record(20, answer=None, reference=TESTS, conversation=user("Double it."))
    write_records(tmp_path / "records.parquet", [*(record(number) for number in range(20)), code])
    return tmp_path / "records.parquet"


@pytest.fixture
def compose(records: Path, tmp_path: Path) -> Compose:
    """The recipe over verl's own config, as its command composes it."""
    from hydra import compose, initialize_config_dir

    def composed(*words: str) -> Any:
        with initialize_config_dir(str(RECIPE), version_base=None):
            return compose(
                "recipe",
                [
                    f"data.train_files={records}",
                    f"actor_rollout_ref.model.path={CHECKPOINT}",
                    f"trainer.default_local_dir={tmp_path / 'out'}",
                    *words,
                ],
            )

    return composed
