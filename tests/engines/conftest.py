"""Real engines for the contract suite, with the tiny checkpoint on a CPU, its logits divided by QUIET.

So at temperature 1 / QUIET it does what it was trained to, and above 1 it goes on and on, almost at random.

PACORE_ENGINES=hf,vllm_server,... names those to test (none: everything here is skipped); PACORE_VLLM and PACORE_SGLANG
are the environments that `install.sh` made. `make test-engines` does all of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from safetensors.numpy import load_file, save_file

from backends.hf import HF
from backends.served import SGLangServer, VLLMServer
from backends.sglang import SGLang
from backends.vllm import VLLM
from pacore_lab.interfaces import Backend
from pacore_lab.types import Model
from tests.engines.metrics import SGLANG_FILES

HERE = Path(__file__).resolve().parent
CHECKPOINT = HERE.parents[1] / "experiments/tiny_models/rlvr-tiny"
CONTEXT = 4096
VLLM_ENV = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
# A seeded prompt that chunked prefill splits kills the CPU build's engine.
VLLM_ARGS = {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": CONTEXT}
VLLM_FLAGS = ["--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens", str(CONTEXT)]
SGLANG_ENV = {
    "PYTHONPATH": str(HERE / "sglang_cpu"),
    "SGLANG_USE_CPU_ENGINE": "1",
    "OMP_NUM_THREADS": "1",
    "SGLANG_CPU_OMP_THREADS_BIND": "0",  # one bound thread is ten times as fast as two that are not
    "PROMETHEUS_MULTIPROC_DIR": str(SGLANG_FILES),
}
SGLANG_ARGS = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "max_total_tokens": 65536,
    "max_running_requests": 256,
}
SGLANG_FLAGS = [word for key, value in SGLANG_ARGS.items() for word in (f"--{key.replace('_', '-')}", str(value))]


QUIET = 20


@cache
def checkpoint() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="quiet-")) / "rlvr-tiny"
    shutil.copytree(CHECKPOINT, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] /= QUIET
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def model(**changes: Any) -> Model:
    return Model(**{"name": "rlvr-tiny", "path": str(checkpoint()), "dtype": "float32", **changes})


def _vllm(which: Model, **changes: Any) -> Backend:
    os.environ.update(VLLM_ENV)
    return VLLM(model=which, engine_args={**VLLM_ARGS, "disable_log_stats": False}, **changes)


ENGINES: dict[str, Callable[..., Backend]] = {
    "hf": lambda which: HF(model=which, device="cpu", threads=1, max_batch=256),
    "vllm": _vllm,
    "vllm_server": lambda which: VLLMServer(
        model=which, python=os.environ["PACORE_VLLM"], env=VLLM_ENV, args=VLLM_FLAGS
    ),
    "sglang": lambda which: SGLang(
        model=which,
        python=os.environ["PACORE_SGLANG"],
        env=SGLANG_ENV,
        engine_args={**SGLANG_ARGS, "enable_metrics": True, "decode_log_interval": 1},
    ),
    "sglang_server": lambda which: SGLangServer(
        model=which,
        python=os.environ["PACORE_SGLANG"],
        env=SGLANG_ENV,
        args=[*SGLANG_FLAGS, "--decode-log-interval", "1"],
    ),
}


def named() -> list[str]:
    return [name for name in os.environ.get("PACORE_ENGINES", "").split(",") if name]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", named(), scope="session")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(kind: str) -> AsyncIterator[Backend]:
    """The engine under test, started once."""
    backend = ENGINES[kind](model(logprobs=True, top_logprobs=20))
    try:
        await backend.start()
        yield backend
    finally:
        await backend.close()
