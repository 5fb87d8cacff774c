"""What a server is and can do: asked once when a run starts, never taken on trust."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from backends._session import Lost, Session
from backends.chat_wire import Answer, plain
from pacore_lab.errors import BackendError, RequestError, TransientError
from pacore_lab.types import Prompt, SamplingParams

T = TypeVar("T")
log = logging.getLogger(__name__)

QUESTION: Prompt = ({"role": "user", "content": "Write eight random words and eight random numbers, nothing else."},)
PARAMS = SamplingParams(temperature=1.0, max_tokens=16)
LIMIT = 120.0  # seconds for one call: a server that is busy with others' work may take its time
PAUSES = (0.1, 0.3, 1.0)  # seconds between tries after a transient fault
SEEDS = (1, 2, 3, 4)
DIFFERED = "two calls with one seed differed"
FROZEN = f"{len(SEEDS)} seeds gave one text"
WARNINGS = {
    DIFFERED: "ignores seeds: another store gives other samples; the store is the record",
    FROZEN: "gives one text for different seeds: is it sampling?",
}
ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp"}

Ask = Callable[[int, bool], Awaitable[Answer]]
"""(seed, with log-probabilities?) -> the answer to QUESTION. Raises BackendError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What a server says about the model: weights (path or hub id), context in tokens; None if it does not say.

    n_ctx: llama.cpp's context, which is not in its list of models. vllm: whether it, or one of several, is vLLM.
    """

    weights: str | None = None
    max_model_len: int | None = None
    n_ctx: int | None = None
    owner: str = ""
    vllm: bool = False

    @property
    def context_length(self) -> int | None:
        return self.max_model_len or self.n_ctx

    def same(self, other: Listed) -> bool:
        """Compares the lists of models alone."""
        return (self.weights, self.max_model_len) == (other.weights, other.max_model_len)

    def __str__(self) -> str:
        return f"{self.weights or 'unnamed weights'} and a context of {self.context_length or 'unnamed'} tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What chat completions showed, in the terms of `Capabilities`."""

    seeds: Literal["none", "request"]
    logprobs: Literal["none", "chosen", "topk"]
    prefill: Mapping[str, Any] = field(default_factory=dict)  # the fields that ask for it; empty if it cannot
    evidence: Mapping[str, str] = field(default_factory=dict)


class _Unknown(Exception):
    """A probe call without an answer. refused: the server does not take such a request."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


async def listed(session: Session, root: str, model: str) -> Listed:
    """GET /models: is a server there, does it know the model? Many servers lack it. Raises BackendError, Lost."""
    try:
        status, raw, refusal = await session.get(f"{root}/models")
    except Lost as lost:
        line = f"no server answers at {root} (backend.base_url): {lost.reason}; start it or mend the address"
        raise Lost(line, reason=lost.reason) from lost
    if refusal is not None and (status in (401, 403) or status < 400):
        raise refusal
    if refusal is not None and status >= 500 and status != 501:
        raise Lost(f"{refusal}; is the server still starting?", reason=f"it answers {status}")
    try:
        models = {entry["id"]: entry for entry in json.loads(raw)["data"]}
    except (ValueError, KeyError, TypeError):
        return Listed()
    if models and model not in models:
        there = plain(", ".join(map(str, models)))
        raise BackendError(f"{root} does not serve {model!r}; it has {there}: set model.name=")
    weights, length, owner = (models.get(model, {}).get(key) for key in ("root", "max_model_len", "owned_by"))
    return Listed(
        # a path or a hub id: the server may move and keep its samples
        weights=weights if isinstance(weights, str) and "/" in weights else None,
        max_model_len=_count(length),
        owner=owner if isinstance(owner, str) else "",
        vllm=owner == "vllm",
    )


async def identify(session: Session, roots: Sequence[str], model: str, *, engines: bool) -> tuple[Listed, list[str]]:
    """What all servers have in common, and the engine of each (if asked for). Raises BackendError if they differ."""
    every = await all_of([listed(session, root, model) for root in roots])
    names = ["not asked"] * len(roots)
    if engines:
        told = await all_of([_engine_of(session, root, each.owner) for root, each in zip(roots, every, strict=True)])
        names = [name for name, _ in told]
        every = [replace(each, n_ctx=length) for each, (_, length) in zip(every, told, strict=True)]
    for root, each in zip(roots, every, strict=True):
        if (each.weights, each.context_length) != (every[0].weights, every[0].context_length):
            raise BackendError(f"{root} has {each}, but {roots[0]} has {every[0]}; list servers that are started alike")
    return replace(every[0], vllm=any(each.vllm for each in every)), names


async def all_of(jobs: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; if one raises, the others are cancelled and its error is raised."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _engine_of(session: Session, root: str, owner: str) -> tuple[str, int | None]:
    """The engine's name and version, and the context it was started with, as far as it tells; never fails."""
    parts = urlsplit(root)

    async def told(path: str) -> dict[str, Any]:
        with suppress(BackendError, ValueError):
            status, raw, _ = await session.get(f"{parts.scheme}://{parts.netloc}{path}")
            body = json.loads(raw) if status == 200 else None
            return body if isinstance(body, dict) else {}
        return {}

    vllm, old_sglang, sglang, llama = await asyncio.gather(
        *map(told, ("/version", "/get_server_info", "/server_info", "/props"))
    )
    settings = llama.get("default_generation_settings")
    length = settings.get("n_ctx") if isinstance(settings, dict) else None
    versions = {
        "vLLM": vllm.get("version"),
        "SGLang": sglang.get("version") or old_sglang.get("version"),
        "llama.cpp": llama.get("build_info"),
    }
    name, version = next(((name, text) for name, text in versions.items() if isinstance(text, str)), ("", ""))
    told_name = ENGINES.get(owner, name) or "an engine that does not say which"
    return plain(f"{told_name} {version[:80]}"), _count(length)


async def found_by(ask: Ask, root: str, *, seeded: bool, top: int = 0) -> Found:
    """Three small calls or more, one after the other: in one batch the same seed may well give another text.

    top: how many of the likeliest tokens to ask for along with log-probabilities.
    """
    said = {"seeds": "" if seeded else "not sent (backend.seed=false)"}
    seeds: Literal["none", "request"] = "none"
    logprobs: Literal["none", "chosen", "topk"] = "none"
    scored: Answer | None = None
    refused = False
    try:
        scored = await _patiently(ask, SEEDS[0], True)
        if scored.logprobs:
            logprobs = "topk" if top and scored.fewest == top else "chosen"
        said["logprobs"] = "given when asked for" if scored.logprobs else "asked for and not given"
        if top and scored.logprobs:
            said["logprobs"] += f", with {scored.fewest} of the {top} likeliest tokens"
        said["usage"] = _usage(scored)
    except _Unknown as unknown:
        said["logprobs"] = said["usage"] = f"unknown: {unknown}"
        said["seeds"] = said["seeds"] or said["logprobs"]
        refused = unknown.refused  # perhaps only the log-probabilities
    if seeded and (scored or refused):
        try:
            once = await _patiently(ask, SEEDS[0], False)
            said["usage"] = _usage(once)
            seeds, said["seeds"] = await _compared(ask, once, scored or await _patiently(ask, SEEDS[0], False))
        except _Unknown as unknown:
            said["seeds"] = f"unknown: {unknown}"
    for finding in sorted({text for text in said.values() if text.startswith("unknown")}):
        log.warning("%s: what it can do is %s; backend.probe=false assumes it all the same", root, finding)
    if warning := WARNINGS.get(said["seeds"]):
        log.warning("%s %s", root, warning)
    return Found(seeds=seeds, logprobs=logprobs, evidence=said)


def together(roots: Sequence[str], engines: Sequence[str], found: Sequence[Found]) -> Found:
    """What all of several servers can do."""
    evidence = {"server": "; ".join(f"{root}: {engine}" for root, engine in zip(roots, engines, strict=True))}
    for key in found[0].evidence:
        texts = [each.evidence[key] for each in found]
        alike = len(set(texts)) == 1
        evidence[key] = texts[0] if alike else "; ".join(f"{r}: {t}" for r, t in zip(roots, texts, strict=True))
    weakest = min(found, key=lambda each: ("none", "chosen", "topk").index(each.logprobs))
    return Found(
        seeds="request" if all(each.seeds == "request" for each in found) else "none",
        logprobs=weakest.logprobs,
        prefill=found[0].prefill if all(each.prefill == found[0].prefill for each in found) else {},
        evidence=evidence | {"probed": datetime.now(UTC).isoformat(timespec="seconds")},
    )


def _count(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _usage(answer: Answer) -> str:
    if answer.generated_tokens is not None:
        return "reported"
    return "not reported: tokens are counted by log-probabilities, else by chunks of a stream, else not at all"


async def _compared(ask: Ask, one: Answer, again: Answer) -> tuple[Literal["none", "request"], str]:
    if one.text != again.text:
        return "none", DIFFERED
    for seed in SEEDS[1:]:  # the first words of a thought may be the same for many seeds
        if (await _patiently(ask, seed, False)).text != one.text:
            return "request", "two calls with one seed agreed, another seed differed"
    return "none", FROZEN


async def _patiently(ask: Ask, seed: int, logprobs: bool) -> Answer:
    """Raises _Unknown; EngineDead and the like pass through."""
    reason = ""
    for pause in (*PAUSES, None):
        try:
            async with asyncio.timeout(LIMIT):
                return await ask(seed, logprobs)
        except TimeoutError:
            raise _Unknown(f"no answer within {LIMIT:g} s") from None
        except RequestError as refusal:
            raise _Unknown(plain(str(refusal)), refused=True) from None
        except TransientError as fault:
            reason = plain(str(fault))
            if pause is not None:
                await asyncio.sleep(max(pause, min(fault.retry_after or 0.0, 5.0)))
    raise _Unknown(reason)
