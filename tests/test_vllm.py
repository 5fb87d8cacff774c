"""The vLLM backend where vLLM is not installed; `tests/engines/` has the rest."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from backends.vllm import VLLM
from pacore_lab.errors import BackendError
from pacore_lab.types import Model

TINY = Path(__file__).parents[1] / "experiments/tiny_models/rlvr-tiny"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tensor_parallel_size": 0}, "backend.tensor_parallel_size is 0"),
        ({"stream_interval": 0}, "backend.stream_interval is 0"),
        ({"gpu_memory_utilization": 1.5}, "backend.gpu_memory_utilization is 1.5"),
        ({"engine_args": {"dtype": "half", "seed": 1}}, "backend.engine_args sets dtype, seed"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VLLM(model=Model(name="m"), **settings)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
async def test_without_vllm_one_line_says_where_to_get_it(capfd: pytest.CaptureFixture[str]) -> None:
    backend = VLLM(model=Model(name="tiny", path=str(TINY)))
    with pytest.raises(BackendError, match=r"vLLM cannot be imported .*\.\[vllm\].*backend=vllm_server"):
        await backend.start()
    await backend.close()
    print("still here")  # standard output was lent to a log file, and is back
    assert capfd.readouterr().out == "still here\n"
