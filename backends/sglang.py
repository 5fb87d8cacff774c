"""SGLang's engine in a process of its own, in this or in another virtual environment."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends._chat import Chat, Rendered
from backends._checkpoint import config_overrides, context_of, fingerprint, load_tokenizer, locate, vocabulary_of
from backends._child import interpreter
from backends._sglang_child import Message, pack, unpack
from backends._sglang_engine import Call, Engine
from pacore_lab.errors import BackendError, EngineDead, RequestError, TransientError, require_count
from pacore_lab.interfaces import Capabilities, OnChunk, Request
from pacore_lab.types import Completion, Model, SamplingParams, mean_and_windows

OWN_ARGS = {
    "model_path", "revision", "dtype", "context_length", "json_model_override_args", "tp_size", "dp_size",
    "mem_fraction_static", "load_format", "enable_deterministic_inference", "stream_interval",
    "enable_priority_scheduling", "disable_priority_preemption", "schedule_low_priority_values_first",
    "skip_tokenizer_init", "incremental_streaming_output", "preferred_sampling_params",
}  # fmt: skip
SHAPING_ARGS = ("quantization", "kv_cache_dtype", "torchao_config")
"""Engine arguments that decide the distribution of samples, for the fingerprint."""
SPARE = 6
"""Tokens of context that SGLang keeps for itself, requested on top so that a whole context can be filled."""


@dataclass(kw_only=True, eq=False)
class SGLang:
    """Samples with sglang.Engine, one request per trajectory; siblings share the prefix cache.

    With `seeds`, a request's seed determines its text, whatever else is in the batch (SGLang's deterministic
    inference). Log-probabilities are the model's own, before temperature and top-p.

    python: the interpreter or virtual environment that has SGLang; None is this one.
    tensor_parallel_size: GPUs per copy of the model. data_parallel_size: copies of the model.
    mem_fraction: share of each GPU's memory for weights and cache; None is SGLang's own choice.
    load_format: "dummy" gives random weights of the right shape, to measure speed.
    seeds: False is faster, but only the store then repeats a sample.
    stream_interval: tokens per chunk of a trajectory that may be aborted.
    start_timeout: seconds that the engine may take to start.
    env: environment variables for the engine.
    engine_args: further fields of SGLang's ServerArgs.
    """

    model: Model
    python: str | None = None
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    mem_fraction: float | None = None
    load_format: str = "auto"
    seeds: bool = True
    stream_interval: int = 16
    start_timeout: float = 1800
    env: Mapping[str, str] = field(default_factory=dict)
    engine_args: Mapping[str, Any] = field(default_factory=dict)

    _capabilities: Capabilities = field(init=False, default=Capabilities())
    _fingerprint: str = field(init=False, default="")
    _chat: Chat | None = field(init=False, default=None)
    _engine: Engine | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        for key in ("tensor_parallel_size", "data_parallel_size", "stream_interval"):
            require_count(f"backend.{key}", getattr(self, key))
        if self.mem_fraction is not None and not 0 < self.mem_fraction < 1:
            raise ValueError(f"backend.mem_fraction is {self.mem_fraction}; give a share in (0, 1), or null")
        if not self.start_timeout > 0:
            raise ValueError(f"backend.start_timeout is {self.start_timeout}; give seconds, more than 0")
        if taken := sorted(OWN_ARGS & set(self.engine_args)):
            raise ValueError(
                f"backend.engine_args sets {', '.join(taken)}, which the lab sets itself: use backend.* and model.*"
            )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    async def start(self) -> None:
        interpreter(self.python)  # refuses a wrong path before anything slow
        folder = locate(self.model)
        config, tokenizer = await asyncio.to_thread(load_tokenizer, self.model, folder)
        context, vocabulary = context_of(self.model, config), vocabulary_of(self.model, config)
        self._chat = chat = Chat(self.model, tokenizer, context)
        self._engine = engine = await Engine.start(
            interpreter(self.python), self._arguments(folder, config, context), self.env, self.start_timeout
        )
        if engine.tokens < context:
            await self.close()
            raise BackendError(
                f"SGLang's cache holds {engine.tokens} tokens, fewer than one trajectory of {context}; "
                "lower model.context_length or raise backend.mem_fraction"
            )
        commit = getattr(config, "_commit_hash", None)
        digest = await asyncio.to_thread(fingerprint, self.model, folder, commit)
        self._fingerprint = ":".join(["sglang", digest, *self._shaping()])
        self._capabilities = Capabilities(
            seeds="request" if self.seeds else "none",
            logprobs="topk",
            most_top_logprobs=vocabulary,
            partial=True,
            prefill=chat.prefill,
            priority=True,
            schema=True,
            context_length=context,
            evidence={**engine.evidence, "log": str(engine.child.log)},
        )

    def _arguments(self, folder: Path | None, config: Any, context: int) -> Message:
        arguments: Message = {
            "model_path": str(folder or self.model.path),
            "revision": self.model.revision if folder is None else None,
            "dtype": self.model.dtype,
            "context_length": context + SPARE,
            "json_model_override_args": json.dumps(sglang_overrides(self.model, config)),
            "tp_size": self.tensor_parallel_size,
            "dp_size": self.data_parallel_size,
            "load_format": self.load_format,
            "enable_deterministic_inference": self.seeds,
            "stream_interval": self.stream_interval,
            "enable_priority_scheduling": True,
            "disable_priority_preemption": True,
        }
        memory = {} if self.mem_fraction is None else {"mem_fraction_static": self.mem_fraction}
        return {"log_level": "warning", **self.engine_args, **arguments, **memory}

    def _shaping(self) -> list[str]:
        shaping = [f"{key} {self.engine_args[key]}" for key in SHAPING_ARGS if key in self.engine_args]
        return shaping + (["random weights"] if self.load_format == "dummy" else [])

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        engine, chat = self._engine, self._chat
        if engine is None or chat is None:
            raise EngineDead("the SGLang backend is not running: start() it first")
        prompt = await chat.render(request)
        answer, call = await engine.ask(_message(request, prompt, stream=on_chunk is not None), on_chunk)
        return _completion(answer, call, prompt, request.params)

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
        if self._chat is not None:
            self._chat.close()
            self._chat = None


def sglang_overrides(model: Model, config: Any) -> dict[str, Any]:
    """`config_overrides` for SGLang, which has no attention_factor and multiplies its own by attn_factor."""
    overrides = config_overrides(model, config)
    if overrides:
        factor = overrides["rope_parameters"]["factor"]
        overrides["rope_parameters"]["attn_factor"] = 1 / (0.1 * math.log(factor) + 1)
    return overrides


def _message(request: Request, prompt: Rendered, *, stream: bool) -> Message:
    """Sets everything that a default could decide: otherwise SGLang's max_new_tokens is 128."""
    params = request.params
    return {
        "prompt": pack("i", prompt.tokens),
        "sampling": {
            "max_new_tokens": prompt.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "json_schema": request.schema,
            "sampling_seed": request.seed,  # 63 bits; without deterministic inference SGLang ignores it
        },
        "logprobs": params.logprobs,
        "top": params.top_logprobs,
        "priority": -request.priority,  # SGLang serves the higher first
        "stream": stream,
    }


def _completion(answer: Message, call: Call, prompt: Rendered, params: SamplingParams) -> Completion:
    if "refused" in answer:
        raise RequestError(f"SGLang refuses the request: {_plain(answer['refused'])}")
    if "failed" in answer:
        raise TransientError(f"SGLang failed: {_plain(answer['failed'])}")
    if answer["reason"] not in ("stop", "length"):
        raise TransientError(f"SGLang gave the request up ({answer['reason']}: {_plain(answer.get('why', ''))})")
    mean, windows = mean_and_windows(unpack("d", answer["logprobs"]))
    return Completion(
        content="".join(call.text),
        finish_reason=answer["reason"],
        prompt_tokens=len(prompt.tokens),
        generated_tokens=answer["tokens"],
        cached_tokens=answer["cached"],
        max_tokens=prompt.max_tokens,
        clamped=prompt.clamped,
        mean_logprob=mean,
        window_logprobs=windows,
        confidences=tuple(call.confidences) if params.top_logprobs else None,
    )


def _plain(text: object) -> str:
    return " ".join(str(text).split())[:300]
