"""transformers in this process, on a CPU or one GPU, with continuous batching."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends._chat import Chat, Rendered
from backends._checkpoint import fingerprint, load, locate, stop_tokens, vocabulary_of
from pacore_lab.errors import EngineDead, RequestError
from pacore_lab.interfaces import Capabilities, OnChunk, Request
from pacore_lab.types import Completion, Model

if TYPE_CHECKING:
    from backends._hf_rows import Memory
    from backends._hf_thread import Worker

CPU_CACHE_BYTES = 8_000_000_000


@dataclass(kw_only=True, eq=False)
class HF:
    """Samples with any causal language model of transformers whose layers all attend to the whole text.

    Requests are decoded together, one token each per step: a row joins when there is room, leaves with its result when
    it is finished, and is dropped when its call is cancelled. Samples of one prompt share its prefill. On one machine
    in float32 a request's seed gives its text, whatever else is in the batch (16-bit types round differently with the
    batch, so there the store is the record). Log-probabilities are the model's own, before temperature and top-p.

    max_batch: rows decoded together.
    device: "auto" takes a GPU if there is one; else a torch device.
    threads: CPU threads of a step; None is torch's own choice.
    cache_tokens: tokens whose keys and values may be in memory at once, padding included; None takes 80% of the free
        GPU memory, or 8 GB (at most half of the machine's) on a CPU.
    """

    model: Model
    max_batch: int = 64
    device: str = "auto"
    threads: int | None = None
    cache_tokens: int | None = None

    _capabilities: Capabilities = field(init=False, default=Capabilities())
    _fingerprint: str = field(init=False, default="")
    _worker: Worker | None = field(init=False, default=None)
    _chat: Chat | None = field(init=False, default=None)
    _arrivals: count[int] = field(init=False, default_factory=count)

    def __post_init__(self) -> None:
        for key in ("max_batch", "threads", "cache_tokens"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"backend.{key} is {value}; it must be 1 or more")

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    async def start(self) -> None:
        folder = locate(self.model)
        net, tokenizer, memory = await asyncio.to_thread(self._load, folder)
        from backends._hf_decoder import Decoder
        from backends._hf_thread import Worker

        commit = getattr(net.config, "_commit_hash", None)
        self._fingerprint = await asyncio.to_thread(fingerprint, self.model, folder, commit)
        import torch
        import transformers

        self._chat = Chat(self.model, tokenizer, self._context(net))
        self._capabilities = Capabilities(
            seeds="request",
            logprobs="topk",
            most_top_logprobs=vocabulary_of(self.model, net.config),
            partial=True,
            prefill=self._chat.prefill,
            priority=True,
            context_length=self._context(net),
            evidence={
                "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
                "device": torch.cuda.get_device_name(net.device) if net.device.type == "cuda" else str(net.device),
            },
        )
        self._worker = Worker(Decoder(net, stop_tokens(net.generation_config, tokenizer), memory), tokenizer)

    def _load(self, folder: Path | None) -> tuple[Any, Any, Memory]:
        import torch

        from backends._hf_attention import adopt
        from backends._hf_rows import Memory

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        net, tokenizer = load(self.model, folder, self.device)
        layers = adopt(net)
        context = self._context(net)
        budget = self.cache_tokens
        if budget is None:
            if net.device.type == "cuda":
                room = int(0.8 * torch.cuda.mem_get_info(net.device)[0])
            else:
                room = min(CPU_CACHE_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
            numbers = sum(layer.heads * (layer.key_dim + layer.value_dim) for layer in layers)
            budget = room // (numbers * net.dtype.itemsize)
        memory = Memory(layers, net.dtype, net.device, max_rows=self.max_batch, longest=context, budget=budget)
        return net, tokenizer, memory

    def _context(self, net: Any) -> int:
        return self.model.context_length or int(net.config.get_text_config().max_position_embeddings)

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        worker, chat = self._worker, self._chat
        if worker is None or chat is None:
            raise EngineDead("the HF backend is not running: start() it first")
        prompt = await chat.render(request)
        self._refuse_too_large(prompt, worker.decoder.memory)

        from tokenizers.decoders import DecodeStream

        from backends._hf_thread import Call

        return await worker.finish(
            Call(
                prompt=prompt.tokens,
                key=prompt.text,
                order=(request.priority, next(self._arrivals)),
                max_tokens=prompt.max_tokens,
                temperature=request.params.temperature,
                top_p=request.params.top_p,
                seed=request.seed,
                logprobs=request.params.logprobs,
                top_logprobs=request.params.top_logprobs,
                future=asyncio.get_running_loop().create_future(),
                on_chunk=on_chunk,
                clamped=prompt.clamped,
                stream=DecodeStream(skip_special_tokens=True) if on_chunk else None,
            )
        )

    def _refuse_too_large(self, prompt: Rendered, memory: Memory) -> None:
        if memory.bucket_for(len(prompt.tokens) + prompt.max_tokens - 1).length > memory.budget:
            raise RequestError(
                f"a prompt of {len(prompt.tokens)} tokens with max_tokens {prompt.max_tokens} does not fit into "
                f"backend.cache_tokens={memory.budget}: raise it, or lower model.max_tokens or model.context_length"
            )

    async def close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()
        if self._chat is not None:
            self._chat.close()
            self._chat = None
