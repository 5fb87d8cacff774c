"""Any server that speaks the OpenAI chat API (vLLM, SGLang, llama.cpp, a hosted one), over one HTTP session.

The payload is the published PaCoRe client's: model, messages, temperature, top_p; whatever else is in it was asked for.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from backends.chat_wire import Answer, message_of, plain, reason_of, seconds_of
from pacore_lab.errors import BackendError, EngineDead, RequestError, TransientError
from pacore_lab.interfaces import Capabilities, OnChunk, Request
from pacore_lab.types import Completion, Model

log = logging.getLogger(__name__)

OWN_FIELDS = {"model", "messages", "temperature", "top_p", "max_tokens", "seed", "logprobs", "n"}
OWN_FIELDS |= {"stream", "stream_options", "chat_template_kwargs"}


@dataclass
class _Live:
    """What `start` opens and finds out."""

    session: aiohttp.ClientSession | None = None
    key: str = ""
    context_length: int | None = None
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class OpenAI:
    """A chat-completions server as a Backend.

    base_url: http://host:port, with or without /v1 or /v1/chat/completions.
    api_key_env: the NAME of the environment variable that holds the key, None for a server without one.
    seed: send each request's seed; False for servers that refuse the field.
    connect_timeout: seconds to connect, and for the server to answer `start`. Generation has no time limit.
    idle_timeout: seconds without a byte after which a stream that has begun counts as broken.
    extra_body: further fields of every request (`{"top_k": 20}`); they are part of the fingerprint.

    Without `usage` from the server, tokens are counted by log-probabilities, else by chunks of a stream, else not at
    all; `counted` is then False.
    """

    model: Model
    base_url: str
    api_key_env: str | None = None
    seed: bool = True
    connect_timeout: float = 10
    idle_timeout: float = 600
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    _live: _Live = field(default_factory=_Live, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _ = self.root
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env):
            raise ValueError("backend.api_key_env takes the NAME of an environment variable, such as OPENAI_API_KEY")
        for name in ("connect_timeout", "idle_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"backend.{name} is {getattr(self, name)}; give seconds, more than 0")
        if taken := sorted(OWN_FIELDS & set(self.extra_body)):
            raise ValueError(f"backend.extra_body sets {', '.join(taken)}, which the lab sets itself: use model.*")

    @property
    def root(self) -> str:
        """base_url as `{root}/chat/completions` wants it."""
        url = self.base_url.strip().rstrip("/").removesuffix("/chat/completions")
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no number
            good = False
        if not good or parts.query or parts.fragment or "@" in parts.netloc or re.search(r"\s", url):
            shown = re.sub(r"//.*@", "//***@", self.base_url)
            raise ValueError(f"backend.base_url is {shown!r}; give a plain URL such as http://127.0.0.1:8000/v1")
        return url if parts.path else f"{url}/v1"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            seeds="request" if self.seed else "none",
            logprobs="chosen",
            partial=True,
            context_length=self._live.context_length or self.model.context_length,
        )

    @property
    def fingerprint(self) -> str:
        revision = f"@{self.model.revision}" if self.model.revision else ""
        extra = f":{json.dumps(self._extra(), sort_keys=True)}" if self._extra() else ""
        return f"openai:{self._live.weights or self.root}:{self.model.name}{revision}{extra}"

    async def start(self) -> None:
        assert self._live.session is None, "started twice"
        headers = {"Content-Type": "application/json"}
        if self.api_key_env:
            self._live.key = os.environ.get(self.api_key_env, "").strip()
            if not self._live.key:
                raise BackendError(f"backend.api_key_env names {self.api_key_env}, which is not set in the environment")
            headers["Authorization"] = f"Bearer {self._live.key}"
        self._live.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),  # a balancer's cookie would tie all requests to one replica
            headers=headers,
        )
        try:
            await self._probe(self._live.session)
        except BaseException:
            await self.close()
            raise

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        session = self._live.session
        assert session is not None, "start() comes first"
        body = io.BytesIO(self._body(request, stream=on_chunk is not None))  # aiohttp warns of bytes above 1 MiB
        answer = Answer()
        try:
            async with session.post(f"{self.root}/chat/completions", data=body, allow_redirects=False) as response:
                if not 200 <= response.status < 300:
                    raise self._refusal(response, await response.read())
                if on_chunk is None or response.content_type == "application/json":  # or it cannot stream
                    chunk = answer.add(await response.read())
                    if on_chunk is not None:
                        on_chunk(chunk)
                else:
                    await self._read_stream(response.content, answer, on_chunk)
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(f"{self.root}: {reason_of(error)}") from error
        completion = answer.completion(request.params.max_tokens)
        text = completion.content or completion.reasoning
        if text and request.params.logprobs and completion.mean_logprob is None:
            raise EngineDead(f"{self.root} returns no log-probabilities; set model.logprobs=false")
        return completion

    async def close(self) -> None:
        session, self._live.session = self._live.session, None
        if session is not None:
            await session.close()

    def _extra(self) -> dict[str, Any]:
        template = self.model.chat_template_kwargs
        return {**self.extra_body, **({"chat_template_kwargs": dict(template)} if template else {})}

    def _body(self, request: Request, stream: bool) -> bytes:
        params = request.params
        payload: dict[str, Any] = {
            "model": self.model.name,
            "messages": request.prompt,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
        if params.max_tokens is not None:
            payload["max_tokens"] = params.max_tokens
        if self.seed:
            payload["seed"] = request.seed
        if params.logprobs:
            payload["logprobs"] = True
        if stream:
            payload |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            return json.dumps(payload | self._extra(), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"the prompt holds a lone surrogate, which is not text: {error}") from error

    async def _read_stream(self, content: aiohttp.StreamReader, answer: Answer, on_chunk: OnChunk) -> None:
        clock, rest = asyncio.get_running_loop().time, b""
        async with asyncio.timeout(None) as idle:  # armed by the first text: until then a request may queue
            async for piece in content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                    if data == b"[DONE]":
                        with suppress(OSError, aiohttp.ClientError):  # read the end: the connection is used again
                            async with asyncio.timeout(1):
                                await content.readany()
                        return
                    if data and (chunk := answer.add(data)).tokens:
                        on_chunk(chunk)
                if answer.tokens:
                    idle.reschedule(clock() + self.idle_timeout)
        if answer.finish_reason is None:
            raise TransientError(f"{self.root}: the stream ended before the answer did")

    async def _probe(self, session: aiohttp.ClientSession) -> None:
        """GET /models: is anybody there, do they know the model, how long is its context? Many servers lack it."""
        timeout = aiohttp.ClientTimeout(total=self.connect_timeout)
        try:
            async with session.get(f"{self.root}/models", timeout=timeout, allow_redirects=False) as response:
                raw = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            silent = f"no server answers at {self.root} (backend.base_url): {reason_of(error)}"
            raise BackendError(f"{silent}; start it or mend the address") from error
        if response.status in (401, 403) or 300 <= response.status < 400:
            raise self._refusal(response, raw)
        if response.status >= 500 and response.status != 501:
            raise BackendError(f"{self._refusal(response, raw)}; is the server still starting?")
        try:
            models = {entry["id"]: entry for entry in json.loads(raw)["data"]}
        except (ValueError, KeyError, TypeError):
            return
        if models and self.model.name not in models:
            there = plain(", ".join(map(str, models)))
            raise BackendError(f"{self.root} does not serve {self.model.name!r}; it has {there}: set model.name=")
        weights, length = (models.get(self.model.name, {}).get(key) for key in ("root", "max_model_len"))
        if isinstance(weights, str) and "/" in weights:  # a path or hub id: the server may move, the samples stay
            self._live.weights = weights
        if isinstance(length, int) and length > 0:
            self._live.context_length = length
            if self.model.context_length not in (None, length):
                log.warning("model.context_length is %s, but %s has %s", self.model.context_length, self.root, length)

    def _refusal(self, response: aiohttp.ClientResponse, raw: bytes) -> BackendError:
        """The error for an answer that is not 2xx."""
        status, said = response.status, plain(message_of(raw))
        said = said.replace(self._live.key or "\0", "***")
        line = f"{self.root} answers {status} {said}".rstrip()
        if status < 400:
            there = plain(response.headers.get("Location", "elsewhere"))
            return EngineDead(f"{self.root} redirects to {there}; set backend.base_url to where the server is")
        if status in (401, 403):
            return EngineDead(f"{line}; is the key right? backend.api_key_env is {self.api_key_env or 'null'}")
        if status in (402, 404, 405):
            return EngineDead(f"{line}; check backend.base_url and model.name={self.model.name}")
        if status >= 500 or status in (408, 409, 425, 429):
            return TransientError(line, retry_after=seconds_of(response.headers.get("Retry-After", "")))
        return RequestError(line)
