"""transformers' ContinuousBatchingManager as a backend, with our draws as a logits processor. See README.md.

Asked for the contract: PACORE_ENGINES=hf .venv/bin/python -m pytest -p experiments.hf_cpu.manager tests/engines
"""

from __future__ import annotations

import asyncio
import importlib
import time
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler

from backends._chat import Chat
from backends._checkpoint import fingerprint, load, locate, stop_tokens, vocabulary_of
from backends._hf_draw import confidences, draw
from backends._hf_rows import Row
from pacore_lab.errors import EngineDead
from pacore_lab.interfaces import Capabilities, Chunk, OnChunk, Request
from pacore_lab.types import Completion, Model, mean_and_windows


class Drawing(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    """Draws each request's token from its own random numbers, and leaves the manager's argmax no other to take."""

    supported_kwargs = {"row": Row}  # noqa: RUF012
    ignored_kwargs = ()

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        self.rows = [each.state.logit_processor_kwargs["row"] for each in requests_with_new_token]
        return torch.zeros(len(self.rows), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(scores)
        if not self.rows:
            return out
        logits = scores[: len(self.rows)]  # a prompt that is prefilled in part has a line too, behind these
        tokens, logprobs = draw(logits, self.rows)
        sure = confidences(logits, self.rows)
        for i, row in enumerate(self.rows):
            row.tokens.append(tokens[i])
            if logprobs is not None and row.logprobs:
                row.logprob.append(logprobs[i])
            if i in sure:
                row.confidences.append(sure[i])
            out[i, tokens[i]] = 1.0
        return out


class ByPriority(FIFOScheduler):  # type: ignore[misc]
    """First come first served among equals in priority."""

    def _get_waiting_candidates(self) -> list[Any]:
        return sorted(super()._get_waiting_candidates(), key=lambda state: state.logit_processor_kwargs["row"].order)


SCHEDULER_MAPPING["by_priority"] = ByPriority


@dataclass(kw_only=True, eq=False)
class Manager:
    """draws: "ours", by the processor above; "its own", by the manager: one random stream, one do_sample for all.

    pages: tokens of the cache. batch_tokens: most tokens in a forward pass.
    """

    model: Model
    draws: str = "ours"
    max_batch: int = 64
    pages: int = 65536
    page_size: int = 32
    batch_tokens: int = 1024
    scheduler: str = "fifo"
    attention: str = "sdpa"
    capabilities: Capabilities = field(init=False, default=Capabilities())
    fingerprint: str = field(init=False, default="")

    async def start(self) -> None:
        folder = locate(self.model)
        torch.set_num_threads(1)
        self.net, tokenizer = load(self.model, folder, "cpu")
        self.net.set_attn_implementation(self.attention)
        self.fingerprint = fingerprint(self.model, folder, None)
        context = self.model.context_length or int(self.net.config.max_position_embeddings)
        self.chat, self.eos = Chat(self.model, tokenizer, context), stop_tokens(self.net.generation_config, tokenizer)
        ours, self._ids = self.draws == "ours", count()
        config = ContinuousBatchingConfig(
            page_size=self.page_size,
            num_blocks=self.pages // self.page_size,
            max_batch_tokens=self.batch_tokens,
            max_requests_per_batch=self.max_batch,
            scheduler_type=self.scheduler,
            auto_switch_to_flash=False,
            per_request_processors=not ours,
            return_logprobs=not ours,
        )
        # A processor per request exists only for what the defaults change: 0.5 and 0.5 are never used.
        default = {"do_sample": False} if ours else {"do_sample": True, "temperature": 0.5, "top_p": 0.5, "top_k": 0}
        self.manager = self.net.init_continuous_batching(GenerationConfig(eos_token_id=-1, **default), config)
        if ours:  # it takes no processor from its caller
            found = self.manager.logit_processor
            found.logits_processor.append(Drawing())
            found.supported_keys["row"], found.tensors_required, found.do_processing = Row, 1, True
        self.manager.start()
        while self.manager.batch_processor is None:
            time.sleep(0.001)  # noqa: ASYNC251
        found = self.manager.batch_processor.scheduler
        shown = SimpleNamespace(memory=found.active_requests, waiting=found.waiting_requests, dropped=0)
        self._worker = SimpleNamespace(decoder=shown)  # where the contract's tests look what it does
        clear = found.clear_cancelled_requests

        def counting() -> Any:
            cancelled = clear()
            shown.dropped += len(cancelled)
            return cancelled

        found.clear_cancelled_requests = counting
        self.capabilities = Capabilities(
            seeds="request" if ours else "none",
            logprobs="topk" if ours else "chosen",
            most_top_logprobs=vocabulary_of(self.model, self.net.config),
            partial=True,
            prefill=self.chat.prefill,
            priority=self.scheduler == "by_priority",
            context_length=context,
        )

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        prompt, params = await self.chat.render(request), request.params
        name, future = f"{next(self._ids)}", asyncio.get_running_loop().create_future()
        row = Row(
            prompt=prompt.tokens,
            key="",
            order=(request.priority, int(name)),
            max_tokens=prompt.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            seed=request.seed,
            logprobs=params.logprobs,
            top_logprobs=params.top_logprobs,
        )
        shown, text, stream = 0, "", DecodeStream(skip_special_tokens=True)

        def text_of(tokens: list[int]) -> str:
            return self.chat.decode(tokens[:-1] if tokens[-1] in self.eos else tokens)

        def hear(output: Any) -> None:
            nonlocal shown, text
            if future.done():
                return
            if output.error is not None:
                future.set_exception(EngineDead(output.error))
                return
            tokens, finished = output.generated_tokens, output.is_finished()
            if on_chunk is not None:
                if finished:
                    new = text_of(tokens).removeprefix(text)
                else:
                    new = "".join(
                        stream.step(self.chat.tokenizer.backend_tokenizer, each) or "" for each in tokens[shown:]
                    )
                on_chunk(
                    Chunk(text=new, tokens=len(tokens) - shown, confidences=tuple(row.confidences[shown : len(tokens)]))
                )
                shown, text = len(tokens), text + new
            if finished:
                future.set_result(output)

        self.manager.register_result_handler(name, hear)
        how: dict[str, Any] = {"row": row}
        if self.draws != "ours":
            how = {"temperature": float(params.temperature), "top_p": float(params.top_p)}
        asked = self.manager.add_request(
            prompt.tokens, name, prompt.max_tokens, on_chunk is not None, eos_token_id=list(self.eos), **how
        )
        try:
            if asked is None:
                raise EngineDead("the manager takes no more requests")
            output = await future
        finally:
            if not future.done() or future.cancelled():
                self.manager.cancel_request(name)
                self.manager.output_router.result_handlers.pop(name, None)  # the manager keeps it otherwise
        tokens = output.generated_tokens
        mean, windows = mean_and_windows((row.logprob if self.draws == "ours" else output.logprobs) * params.logprobs)
        return Completion(
            content=text_of(tokens),
            finish_reason="stop" if tokens[-1] in self.eos else "length",
            prompt_tokens=len(prompt.tokens),
            generated_tokens=len(tokens),
            max_tokens=prompt.max_tokens,
            clamped=prompt.clamped,
            mean_logprob=mean,
            window_logprobs=windows,
            confidences=tuple(row.confidences) if params.top_logprobs else None,
        )

    async def close(self) -> None:
        if hasattr(self, "manager"):
            await asyncio.to_thread(self.manager.stop, hard_stop=True)
            self.chat.close()


def pytest_configure(config: Any) -> None:
    """The contract's tests, asked of the manager in place of backends.hf."""
    engines = importlib.import_module("tests.engines.conftest").ENGINES
    engines["hf"] = lambda which: Manager(model=which, max_batch=256, pages=131072, scheduler="by_priority")
