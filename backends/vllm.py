"""vLLM in this process (its engine core runs in a process of its own, which vLLM starts and stops)."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from backends._chat import Chat, Rendered
from backends._checkpoint import config_overrides, context_of, fingerprint, load_tokenizer, locate, vocabulary_of
from backends._child import root_cause
from backends._confidence import confidence
from backends._output import output_to
from pacore_lab.errors import BackendError, EngineDead, RequestError, TransientError, Unsupported, require_count
from pacore_lab.interfaces import Capabilities, Chunk, OnChunk, Request
from pacore_lab.types import Completion, Model, mean_and_windows

OWN_ARGS = {
    "model", "tokenizer", "revision", "dtype", "max_model_len", "hf_overrides", "tensor_parallel_size",
    "data_parallel_size", "gpu_memory_utilization", "load_format", "stream_interval", "enable_prefix_caching",
    "scheduling_policy", "logprobs_mode", "max_logprobs", "seed",
}  # fmt: skip

SHAPING_ARGS = ("quantization", "kv_cache_dtype")
"""Engine arguments that decide the distribution of samples, for the fingerprint."""


@dataclass(kw_only=True, eq=False)
class VLLM:
    """Samples with vLLM's asynchronous engine, one request per trajectory; siblings share the prefix cache.

    The engine is given each request's seed, but through rounding the text also depends on the rest of the batch: only
    the store repeats it. Log-probabilities are the model's own, before temperature and top-p.

    tensor_parallel_size: GPUs per copy of the model. data_parallel_size: copies of the model.
    gpu_memory_utilization: share of each GPU's memory that vLLM may take; on a CPU, VLLM_CPU_KVCACHE_SPACE decides.
    load_format: "dummy" gives random weights of the right shape, to measure speed.
    stream_interval: tokens per chunk of a trajectory that may be aborted.
    engine_args: further fields of vLLM's AsyncEngineArgs.
    """

    model: Model
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    load_format: str = "auto"
    stream_interval: int = 16
    engine_args: Mapping[str, Any] = field(default_factory=dict)

    _capabilities: Capabilities = field(init=False, default=Capabilities())
    _fingerprint: str = field(init=False, default="")
    _engine: Any = field(init=False, default=None)
    _chat: Chat | None = field(init=False, default=None)
    _log: Path | None = field(init=False, default=None)
    _numbers: count[int] = field(init=False, default_factory=count)

    def __post_init__(self) -> None:
        for key in ("tensor_parallel_size", "data_parallel_size", "stream_interval"):
            require_count(f"backend.{key}", getattr(self, key))
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(f"backend.gpu_memory_utilization is {self.gpu_memory_utilization}; give a share in (0, 1]")
        if taken := sorted(OWN_ARGS & set(self.engine_args)):
            raise ValueError(
                f"backend.engine_args sets {', '.join(taken)}, which the lab sets itself: use backend.*, model.*"
            )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    async def start(self) -> None:
        folder = locate(self.model)
        config, tokenizer = await asyncio.to_thread(load_tokenizer, self.model, folder)
        context, vocabulary = context_of(self.model, config), vocabulary_of(self.model, config)
        self._chat = chat = Chat(self.model, tokenizer, context)
        self._engine = await asyncio.to_thread(self._launch, folder, config, context)
        commit = getattr(config, "_commit_hash", None)
        digest = await asyncio.to_thread(fingerprint, self.model, folder, commit)
        self._fingerprint = ":".join(["vllm", digest, *self._shaping()])
        import vllm

        self._capabilities = Capabilities(
            seeds="request",
            logprobs="topk",
            most_top_logprobs=vocabulary,
            partial=True,
            prefill=chat.prefill,
            priority=True,
            schema=True,
            context_length=context,
            evidence={"engine": f"vLLM {vllm.__version__}"},
        )

    def _shaping(self) -> list[str]:
        shaping = [f"{key} {self.engine_args[key]}" for key in SHAPING_ARGS if key in self.engine_args]
        return shaping + (["random weights"] if self.load_format == "dummy" else [])

    def _launch(self, folder: Path | None, config: Any, context: int) -> Any:
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        handle, name = tempfile.mkstemp(prefix="pacore-vllm-", suffix=".log")
        self._log = Path(name)
        with output_to(handle):
            try:
                from vllm import AsyncEngineArgs
                from vllm.v1.engine.async_llm import AsyncLLM
            except ImportError as error:
                self._log.unlink()
                raise BackendError(
                    f"vLLM cannot be imported ({error}); install the lab with its extra in vLLM's environment "
                    "(pip install -e '.[vllm]'), or use backend=vllm_server backend.python=PATH"
                ) from error
            try:
                _sampling(Request(id="", prompt=(), params=self.model.sampling, seed=0), context)
            except Exception as error:  # such as temperatures above 2
                self._log.unlink()
                raise Unsupported(f"vLLM refuses model.*: {' '.join(str(error).split())}") from error
            own: dict[str, Any] = {
                "model": str(folder or self.model.path),
                "revision": self.model.revision if folder is None else None,
                "dtype": self.model.dtype,
                "max_model_len": context,
                "hf_overrides": config_overrides(self.model, config),
                "tensor_parallel_size": self.tensor_parallel_size,
                "data_parallel_size": self.data_parallel_size,
                "gpu_memory_utilization": self.gpu_memory_utilization,
                "load_format": self.load_format,
                "stream_interval": self.stream_interval,
                "enable_prefix_caching": True,
                "scheduling_policy": "priority",
                "max_logprobs": max(20, self.model.top_logprobs),  # 20 is its default
            }
            try:
                engine = AsyncLLM.from_engine_args(
                    AsyncEngineArgs(**{"disable_log_stats": True, **self.engine_args, **own})
                )
            except TypeError as error:
                self._log.unlink()
                raise BackendError(f"backend.engine_args: {' '.join(str(error).split())}") from error
            except Exception as error:  # whatever vLLM raises; often only its child's output has the reason
                raise BackendError(f"vLLM did not start: {self._reason(error)} (log: {name})") from error
            for handler in logging.getLogger("vllm").handlers:
                if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                    handler.setStream(self._log.open("a"))  # type: ignore[attr-defined]
            return engine

    def _reason(self, error: BaseException) -> str:
        """Why the engine core failed; if this process only hears that it did, the log says why."""
        assert self._log is not None
        told = " ".join(str(error).split())[:300]
        if told and "root cause" not in told:
            return f"{type(error).__name__}: {told}"
        return root_cause(self._log.read_text(errors="replace")) or told

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        engine, chat = self._engine, self._chat
        if engine is None or chat is None:
            raise EngineDead("the vLLM backend is not running: start() it first")
        prompt = await chat.render(request)
        name = f"{request.id}-{next(self._numbers)}"  # vLLM silently takes a name twice
        params = _sampling(request, prompt.max_tokens, stream=on_chunk is not None)
        outputs = engine.generate(
            {"type": "token", "prompt_token_ids": prompt.tokens}, params, name, priority=request.priority
        )
        sampled = _Sampled(chat, prompt, request.params.top_logprobs, on_chunk)
        from vllm.exceptions import VLLMClientError, VLLMServerError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            if on_chunk is None:
                await sampled.read(outputs)  # cancelling it aborts the request
            else:
                await self._read_to_the_end(sampled, outputs, name)
        except EngineDeadError as error:
            raise EngineDead(f"vLLM's engine died: {self._reason(error)} (log: {self._log})") from error
        except VLLMClientError as error:
            raise RequestError(f"vLLM refuses the request: {' '.join(str(error).split())}") from error
        except VLLMServerError as error:
            raise TransientError(f"vLLM failed: {' '.join(str(error.__cause__ or error).split())}") from error
        return sampled.completion()

    async def _read_to_the_end(self, sampled: _Sampled, outputs: AsyncIterator[Any], name: str) -> None:
        """Like `sampled.read`, but a cancelled call still takes in the aborted request's last output."""
        reading = asyncio.create_task(sampled.read(outputs))
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            aborting = asyncio.create_task(self._engine.abort(name))
            await asyncio.wait([aborting])
            await asyncio.wait([reading], timeout=10)
            reading.cancel()
            reading.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody awaits it any more
            raise

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            healthy = not engine.errored
            await asyncio.to_thread(engine.shutdown, timeout=0)
            engine.shutdown = lambda *_: None  # its __del__ calls it again when the interpreter exits, and fails
            if self._log is not None and healthy:
                self._log.unlink(missing_ok=True)
        if self._chat is not None:
            self._chat.close()
            self._chat = None


def _sampling(request: Request, max_tokens: int, *, stream: bool = False) -> Any:
    import vllm
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    params = request.params
    return vllm.SamplingParams(
        temperature=params.temperature,
        top_p=params.top_p,
        max_tokens=max_tokens,
        seed=request.seed,
        structured_outputs=StructuredOutputsParams(json=request.schema) if request.schema else None,
        logprobs=params.top_logprobs if params.logprobs else None,
        flat_logprobs=params.logprobs,
        detokenize=stream,  # a whole text is decoded once, at the end
        output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
    )


class _Sampled:
    """The output of a request so far."""

    def __init__(self, chat: Chat, prompt: Rendered, top: int, on_chunk: OnChunk | None) -> None:
        self.chat, self.prompt, self.top, self.on_chunk = chat, prompt, top, on_chunk
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.confidences: list[float] = []
        self.finish_reason, self.cached = "", 0

    async def read(self, outputs: AsyncIterator[Any]) -> None:
        async for output in outputs:
            piece = output.outputs[0]
            self.tokens += piece.token_ids
            self.cached = output.num_cached_tokens or self.cached
            self.finish_reason = piece.finish_reason or ""
            sure: list[float] = []
            if piece.logprobs is not None:
                places, flat = piece.logprobs.start_indices, piece.logprobs.logprobs
                self.logprobs += [flat[i] for i in places]
                if self.top:  # the chosen token, then the likeliest, perhaps with it once more
                    sure = [confidence(flat[i + 1 : i + 1 + self.top]) for i in places]
                    self.confidences += sure
            if self.on_chunk is not None and piece.token_ids:
                self.on_chunk(Chunk(text=piece.text, tokens=len(piece.token_ids), confidences=tuple(sure)))

    def completion(self) -> Completion:
        if self.finish_reason not in ("stop", "length"):
            raise TransientError(f"vLLM gave the request up (finish reason {self.finish_reason!r})")
        mean, windows = mean_and_windows(self.logprobs)
        return Completion(
            content=self.chat.decode(self.tokens[:-1] if self.finish_reason == "stop" else self.tokens),
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.prompt.tokens),
            generated_tokens=len(self.tokens),
            cached_tokens=self.cached,
            max_tokens=self.prompt.max_tokens,
            clamped=self.prompt.clamped,
            mean_logprob=mean,
            window_logprobs=windows,
            confidences=tuple(self.confidences) if self.top else None,
        )
