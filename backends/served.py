"""vLLM's and SGLang's own servers: started for the run, used through the OpenAI API, stopped with the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from backends._checkpoint import config_overrides
from backends._served import Served
from backends._sglang_engine import LOGPROBS_ENV
from backends.openai import OpenAI
from backends.sglang import sglang_overrides


@dataclass(kw_only=True, eq=False)
class VLLMServer(Served):
    """vLLM's own server, `python -m vllm.entrypoints.openai.api_server`.

    gpu_memory_utilization: share of each GPU's memory that vLLM may take.
    """

    engine = "vLLM"
    module = "vllm.entrypoints.openai.api_server"
    memory_key = "backend.gpu_memory_utilization"
    own_env: ClassVar[Mapping[str, str]] = {"VLLM_NO_USAGE_STATS": "1"}

    gpu_memory_utilization: float = 0.9

    def _overrides(self, config: Any) -> dict[str, Any]:
        return config_overrides(self.model, config)

    def _flags(self, model: str, overrides: Mapping[str, Any], context: int) -> list[str]:
        return [
            *("--model", model),
            *("--served-model-name", self.model.name),
            *("--dtype", self.model.dtype),
            *("--max-model-len", str(context)),
            *("--hf-overrides", json.dumps(overrides)),
            *("--tensor-parallel-size", str(self.tensor_parallel_size)),
            *("--data-parallel-size", str(self.data_parallel_size)),
            *("--gpu-memory-utilization", str(self.gpu_memory_utilization)),
            *("--load-format", self.load_format),
            *("--max-logprobs", str(max(20, self.model.top_logprobs + 1))),  # 20 is its default; we ask for one more
            *("--generation-config", "vllm"),  # uses only the end tokens of the checkpoint's
            *("--enable-prefix-caching", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"),
        ]


@dataclass(kw_only=True, eq=False)
class SGLangServer(Served):
    """SGLang's own server, `python -m sglang.launch_server`.

    mem_fraction: share of each GPU's memory for weights and cache; None is SGLang's own choice.
    seeds: a seed determines its text (deterministic inference, slower); False is faster, but only the store then
        repeats a sample.

    SGLang keeps the last two tokens of the context for itself, so a trajectory that fills it ends two tokens early.
    In a stream, its server leaves out the log-probabilities, and so the confidences, of tokens without text of their
    own (the end of the turn, parts of a character); `backends.sglang` has them all.
    """

    engine = "SGLang"
    module = "sglang.launch_server"
    memory_key = "backend.mem_fraction"
    own_env: ClassVar[Mapping[str, str]] = LOGPROBS_ENV

    mem_fraction: float | None = None
    seeds: bool = True

    def _inner(self, port: int) -> OpenAI:
        return replace(super()._inner(port), seed=self.seeds)

    def _overrides(self, config: Any) -> dict[str, Any]:
        return sglang_overrides(self.model, config)

    def _flags(self, model: str, overrides: Mapping[str, Any], context: int) -> list[str]:
        memory = [] if self.mem_fraction is None else ["--mem-fraction-static", str(self.mem_fraction)]
        return [
            *("--model-path", model),
            *("--served-model-name", self.model.name),
            *("--dtype", self.model.dtype),
            *("--context-length", str(context)),
            *("--json-model-override-args", json.dumps(overrides)),
            *("--tp-size", str(self.tensor_parallel_size)),
            *("--dp-size", str(self.data_parallel_size)),
            *("--load-format", self.load_format),
            *("--sampling-defaults", "openai"),  # uses only the end tokens of its generation config
            *("--enable-cache-report", "--enable-metrics", "--log-level-http", "warning"),
            *memory,
            *(["--enable-deterministic-inference"] if self.seeds else []),
        ]
