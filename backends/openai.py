"""One or several servers that speak the OpenAI chat API (vLLM, SGLang, llama.cpp, a hosted one) and serve one model.

The payload is the published PaCoRe client's (model, messages, temperature, top_p), plus only the requested fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from backends import _probe
from backends._chat import prefix_of
from backends._prefill import continuation
from backends._servers import Server, Servers
from backends._session import Lost, Session, root_of
from backends.chat_wire import Answer
from pacore_lab.errors import BackendError, EngineDead, RequestError, TransientError
from pacore_lab.interfaces import Capabilities, OnChunk, Request
from pacore_lab.types import Completion, Model, Prompt, SamplingParams

OWN_FIELDS = {"model", "messages", "temperature", "top_p", "max_tokens", "seed", "logprobs", "n"}
OWN_FIELDS |= {"stream", "stream_options", "chat_template_kwargs", "top_logprobs"}
OWN_FIELDS |= {"continue_final_message", "add_generation_prompt"}
MOST_TOP_LOGPROBS = 20  # the API's limit; your own server can be started with more
ABOUT_LENGTH = re.compile(r"context|max_(new_|completion_)?tokens|input tokens|n_ctx", re.IGNORECASE)


@dataclass
class _Live:
    """The findings and connections of `start`, and the messages encoded last, which siblings share."""

    session: Session | None = None
    servers: Servers | None = None
    listed: _probe.Listed = field(default_factory=_probe.Listed)
    found: _probe.Found | None = None
    prompt: Prompt | None = None
    messages: bytes = b""
    ranked: Sequence[Server] = ()
    frames: dict[tuple[SamplingParams, str | None, bool, bool], tuple[bytes, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OpenAI:
    """Chat-completions servers as a Backend.

    base_url: http://host:port, with or without /v1 or /v1/chat/completions; or a list of such URLs, all with the same
        weights and context. Requests with one prompt go to one server, unless it is clearly busier than the least busy
        one; a server that fails is left out until it answers again.
    api_key_env: the NAME of the environment variable that holds the key, None for a server without one.
    seed: send each request's seed; False for servers that refuse the field.
    schema: the server holds answers to a JSON schema (`response_format`), as vLLM, SGLang and llama.cpp do; False never
        asks for that. Only judges do.
    probe: ask each server at the start whether it honours seeds and gives log-probabilities (three or more calls of
        16 tokens), and vLLM and SGLang whether they continue an assistant's turn. False, for metered servers, assumes
        seeds and log-probabilities and sends a prompt that ends with such a turn unchanged.
    connect_timeout: seconds to connect, and to answer the short questions of `start`. Generation has no time limit.
    idle_timeout: seconds without a byte after which a stream that has begun counts as broken.
    health_interval: seconds between two checks of a server that is away.
    patience: seconds to wait for a server while all are away; then the run ends.
    extra_body: further fields of every request (`{"top_k": 20}`); they are part of the fingerprint.

    If a server reports no `usage`, tokens are counted from log-probabilities, else from the chunks of a stream, else
    not at all; `counted` is then False. An aborted trajectory is counted from its chunks: by their
    log-probabilities or vLLM's running count, else as one token each, a lower bound, since a busy server puts several
    into one chunk. A max_tokens beyond the rest of the context is clamped to it, and the clamping is recorded.
    For model.top_logprobs=k a vLLM server has to be started with --max-logprobs of k + 1 or more: its list of the
    likeliest tokens starts with the chosen one, whatever its rank.
    """

    model: Model
    base_url: str | Sequence[str]
    api_key_env: str | None = None
    seed: bool = True
    schema: bool = False
    probe: bool = True
    connect_timeout: float = 10
    idle_timeout: float = 600
    health_interval: float = 1
    patience: float = 600
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    _live: _Live = field(default_factory=_Live, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        roots = self.roots
        if not roots or len(set(roots)) < len(roots):
            raise ValueError(f"backend.base_url is {list(roots)}; give one URL or more, each once")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env):
            raise ValueError("backend.api_key_env takes the NAME of an environment variable, such as OPENAI_API_KEY")
        for name in ("connect_timeout", "idle_timeout", "health_interval"):
            if not getattr(self, name) > 0:
                raise ValueError(f"backend.{name} is {getattr(self, name)}; give seconds, more than 0")
        if not self.patience >= 0:
            raise ValueError(f"backend.patience is {self.patience}; give seconds, 0 or more")
        if taken := sorted(OWN_FIELDS & set(self.extra_body)):
            raise ValueError(f"backend.extra_body sets {', '.join(taken)}, which the lab sets itself: use model.*")

    @property
    def roots(self) -> tuple[str, ...]:
        """Each base_url, up to `/chat/completions`."""
        urls = [self.base_url] if isinstance(self.base_url, str) else self.base_url
        return tuple(root_of(url) for url in urls)

    @property
    def capabilities(self) -> Capabilities:
        live = self._live
        top, most = self.model.top_logprobs, None if live.listed.vllm else MOST_TOP_LOGPROBS
        believed = _probe.Found(seeds="request" if self.seed else "none", logprobs="topk" if top else "chosen")
        found = live.found or believed
        return Capabilities(
            seeds=found.seeds,
            logprobs=found.logprobs,
            most_top_logprobs=top if live.found and top else most,
            partial=True,
            prefill=bool(found.prefill),
            schema=self.schema,
            context_length=live.listed.context_length or self.model.context_length,
            evidence=found.evidence,
        )

    @property
    def fingerprint(self) -> str:
        revision = f"@{self.model.revision}" if self.model.revision else ""
        extra = f":{json.dumps(self._extra(), sort_keys=True)}" if self._extra() else ""
        where = self._live.listed.weights or ",".join(sorted(self.roots))
        return f"openai:{where}:{self.model.name}{revision}{extra}"

    async def start(self) -> None:
        live, roots = self._live, self.roots
        assert live.session is None, "started twice"
        live.session = Session(
            roots,
            api_key_env=self.api_key_env,
            model=self.model.name,
            connect_timeout=self.connect_timeout,
            idle_timeout=self.idle_timeout,
        )
        live.servers = Servers(roots, check=self._check, interval=self.health_interval, patience=self.patience)
        try:
            live.listed, engines = await _probe.identify(live.session, roots, self.model.name, engines=self.probe)
            if self.probe:
                trials = [self._find(root, engine) for root, engine in zip(roots, engines, strict=True)]
                live.found = _probe.together(roots, engines, await _probe.all_of(trials))
        except BaseException:
            await self.close()
            raise

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        live, servers = self._live, self._live.servers
        assert servers is not None, "start() comes first"
        if live.prompt is not request.prompt:
            live.messages = _encoded(request.prompt)
            live.prompt, live.ranked = request.prompt, servers.ranked(live.messages)
        messages, ranked = live.messages, live.ranked
        await servers.some()
        tried: list[Server] = []
        faults: list[TransientError] = []
        while (server := servers.pick(ranked, tried)) is not None:
            answer = Answer(request.params.top_logprobs)
            server.in_flight += 1
            try:
                return await self._ask(server.root, messages, request, answer, on_chunk)
            except TransientError as fault:
                faults.append(fault)
                if fault.retry_after is not None:
                    servers.avoid(server, fault.retry_after)
                if isinstance(fault, Lost):
                    servers.lost(server, fault.reason)
                if on_chunk is not None and answer.begun:
                    raise  # the caller has seen a part of it, and has to start over
            finally:
                server.in_flight -= 1
            tried.append(server)
        first = min(faults, key=lambda fault: fault.retry_after or 0.0)  # from the server that can be asked again first
        if first.retry_after is not None:
            first.retry_after = min(first.retry_after, servers.calm_in(tried))
        raise first

    async def close(self) -> None:
        live = self._live
        session, servers, live.session, live.servers = live.session, live.servers, None, None
        live.prompt = None
        if servers is not None:
            await servers.close()
        if session is not None:
            await session.close()

    async def _ask(
        self, root: str, messages: bytes, request: Request, answer: Answer, on_chunk: OnChunk | None
    ) -> Completion:
        session, params = self._live.session, request.params
        assert session is not None, "closed"
        body = self._body(messages, params, request, stream=on_chunk is not None)
        try:
            await session.post(root, body, answer, on_chunk)
            completion = answer.completion(params.max_tokens)
        except RequestError as refusal:
            if params.max_tokens is None or not ABOUT_LENGTH.search(str(refusal)):
                raise
            body = self._body(messages, replace(params, max_tokens=None), request, stream=on_chunk is not None)
            await session.post(root, body, answer, on_chunk)  # the server takes the rest of the context
            completion = self._clamped(answer, params.max_tokens, refusal)
        if params.logprobs and completion.mean_logprob is None and (completion.content or completion.reasoning):
            raise EngineDead(f"{root} returns no log-probabilities; set model.logprobs=false")
        if answer.fewest < params.top_logprobs:
            few = f"{root} gives {answer.fewest} of the {params.top_logprobs} likeliest tokens"
            raise RequestError(few) if answer.fewest else EngineDead(f"{few}; set model.top_logprobs=0")
        return completion

    def _clamped(self, answer: Answer, asked: int, refusal: RequestError) -> Completion:
        length = self.capabilities.context_length
        room = length - answer.prompt_tokens if length and answer.prompt_tokens else 0
        completion = answer.completion(room if 0 < room < asked else None, clamped=True)
        if completion.generated_tokens > asked:  # so the context was not the server's objection
            made = completion.generated_tokens
            raise RequestError(f"{refusal} (without max_tokens={asked} it gave {made} tokens, which is not clamping)")
        return completion

    async def _find(self, root: str, engine: str) -> _probe.Found:
        session, model = self._live.session, self.model
        assert session is not None, "closed"
        found = await _probe.found_by(partial(self._try, root), root, seeded=self.seed, top=model.top_logprobs)
        fields, said = await continuation(session, root, engine, model.name, model.chat_template_kwargs)
        return replace(found, prefill=fields, evidence={**found.evidence, "prefill": said})

    async def _try(self, root: str, seed: int, logprobs: bool) -> Answer:
        """One call of the probe."""
        assert self._live.session is not None, "closed"
        params = replace(_probe.PARAMS, logprobs=logprobs, top_logprobs=self.model.top_logprobs if logprobs else 0)
        answer = Answer(params.top_logprobs)
        request = Request(id="probe", prompt=_probe.QUESTION, params=params, seed=seed)
        body = self._body(_encoded(_probe.QUESTION), params, request, stream=False)
        await self._live.session.post(root, body, answer, None)
        answer.completion(None)  # raises for an answer that is not a sample
        return answer

    async def _check(self, root: str) -> str | None:
        """None if a server that was away is back and unchanged, else what is wrong with it."""
        assert self._live.session is not None, "closed"
        try:
            now = await _probe.listed(self._live.session, root, self.model.name)
        except Lost as lost:
            return lost.reason
        except EngineDead:
            return None  # it is there, and every request will hear this: the run ends
        except BackendError as error:
            return str(error)
        return None if now.same(self._live.listed) else f"it came back with {now}"

    def _open(self, prompt: Prompt) -> dict[str, Any]:
        """The fields that make a server continue a final assistant's turn, if any. Raises RequestError if it cannot."""
        found = self._live.found
        if found is None or prefix_of(prompt) is None:
            return {}
        if not found.prefill:
            raise RequestError(
                "the prompt ends with an assistant's turn, and the server cannot continue one "
                f"({found.evidence['prefill']}); backend.probe=false sends it unchanged"
            )
        return dict(found.prefill)

    def _extra(self) -> dict[str, Any]:
        template = self.model.chat_template_kwargs
        return {**self.extra_body, **({"chat_template_kwargs": dict(template)} if template else {})}

    def _body(self, messages: bytes, params: SamplingParams, request: Request, *, stream: bool) -> bytes:
        """The payload around the encoded messages; the fields that requests share are encoded once."""
        opened = self._open(request.prompt)
        key = (params, request.schema, stream, bool(opened))
        frame = self._live.frames.get(key)
        if frame is None:
            rest: dict[str, Any] = {"temperature": params.temperature, "top_p": params.top_p}
            if params.max_tokens is not None:
                rest["max_tokens"] = params.max_tokens
            if params.logprobs:
                rest["logprobs"] = True
            if params.top_logprobs:  # one more from vLLM: its list includes the chosen token, whatever its rank
                rest["top_logprobs"] = params.top_logprobs + self._live.listed.vllm
            if request.schema is not None:
                form = {"name": "answer", "strict": True, "schema": json.loads(request.schema)}
                rest["response_format"] = {"type": "json_schema", "json_schema": form}
            if stream:
                counts = {"continuous_usage_stats": True} if self._live.listed.vllm else {}
                rest |= {"stream": True, "stream_options": {"include_usage": True, **counts}}
            head, tail = f'{{"model": {json.dumps(self.model.name)}, "messages": ', rest | opened | self._extra()
            frame = self._live.frames[key] = (head.encode(), f", {json.dumps(tail)[1:-1]}".encode())
        end = b', "seed": %d}' % request.seed if self.seed else b"}"
        return b"".join((frame[0], messages, frame[1], end))


def _encoded(prompt: Prompt) -> bytes:
    try:
        return json.dumps(prompt, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"the prompt holds a lone surrogate, which is not text: {error}") from error
