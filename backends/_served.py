"""An inference server on this machine: started for the run, used through the OpenAI API, stopped with the run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import aiohttp

from backends._checkpoint import context_of, fingerprint, load_tokenizer, locate, vocabulary_of
from backends._child import Child, interpreter
from backends.openai import OpenAI
from pacore_lab.errors import BackendError, EngineDead, require_count
from pacore_lab.interfaces import Capabilities, OnChunk, Request
from pacore_lab.types import Completion, Model

SHAPING_FLAGS = ("--quantization", "--kv-cache-dtype", "--torchao-config")


@dataclass(kw_only=True, eq=False)
class Served:
    """The common part of vLLM's and SGLang's servers (`backends.served`).

    python: the interpreter or virtual environment that has the engine; None is this one.
    port: on 127.0.0.1; None takes a free one.
    tensor_parallel_size: GPUs per copy of the model. data_parallel_size: copies of the model.
    load_format: "dummy" gives random weights of the right shape, to measure speed.
    start_timeout: seconds that the server may take to start.
    extra_body: further fields of every request; they are part of the fingerprint.
    env: environment variables for the server. args: further flags of its command.
    """

    engine: ClassVar[str]
    module: ClassVar[str]
    memory_key: ClassVar[str]
    own_env: ClassVar[Mapping[str, str]]

    model: Model
    python: str | None = None
    port: int | None = None
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    load_format: str = "auto"
    start_timeout: float = 1800
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] = ()

    _capabilities: Capabilities = field(init=False, default=Capabilities())
    _fingerprint: str = field(init=False, default="")
    _child: Child | None = field(init=False, default=None)
    _client: OpenAI | None = field(init=False, default=None)
    _watch: asyncio.Task[None] | None = field(init=False, default=None)
    _calls: set[asyncio.Timeout] = field(init=False, default_factory=set)
    _dead: str = field(init=False, default="")

    def __post_init__(self) -> None:
        for key in ("tensor_parallel_size", "data_parallel_size"):
            require_count(f"backend.{key}", getattr(self, key))
        if self.port is not None and not 0 < self.port < 65536:
            raise ValueError(f"backend.port is {self.port}; give a port, or null for a free one")
        if not self.start_timeout > 0:
            raise ValueError(f"backend.start_timeout is {self.start_timeout}; give seconds, more than 0")
        ours = {word for word in self._flags("", {}, 2) if word.startswith("--")}
        given = {word.partition("=")[0].replace("_", "-") for word in self.args}
        if taken := sorted(given & (ours | {"--host", "--port", "--revision"})):
            raise ValueError(
                f"backend.args has {', '.join(taken)}, which the lab sets itself: use backend.* and model.*"
            )
        self._inner(1)  # refuses bad fields of extra_body

    def _flags(self, model: str, overrides: Mapping[str, Any], context: int) -> list[str]:
        """The engine's own flags of the command."""
        raise NotImplementedError

    def _overrides(self, config: Any) -> dict[str, Any]:
        """YaRN's changes to the checkpoint's config, as this engine reads them."""
        raise NotImplementedError

    def _inner(self, port: int) -> OpenAI:
        url = f"http://127.0.0.1:{port}/v1"
        return OpenAI(model=self.model, base_url=url, schema=True, extra_body=self.extra_body)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    async def start(self) -> None:
        python, folder = interpreter(self.python), locate(self.model)
        config, _ = await asyncio.to_thread(load_tokenizer, self.model, folder)
        context = context_of(self.model, config)
        vocabulary_of(self.model, config)  # refuses too large a top_logprobs
        flags = self._flags(str(folder or self.model.path), self._overrides(config), context)
        digest = await asyncio.to_thread(fingerprint, self.model, folder, getattr(config, "_commit_hash", None))
        self._fingerprint = ":".join([f"{self.engine.lower()}-server", digest, *self._shaping()])
        revision = ["--revision", self.model.revision] if folder is None and self.model.revision else []
        port = _free_port(self.port)
        command = [python, "-m", self.module, "--host", "127.0.0.1", "--port", str(port), *flags, *revision, *self.args]
        self._child = await Child.start(f"{self.engine.lower()}-server", command, env={**self.env, **self.own_env})
        try:
            await self._until_ready(self._child, f"http://127.0.0.1:{port}/health", python)
            client = self._inner(port)
            await client.start()
            self._client = client
            self._child.now_ready()
            found = client.capabilities
            self._capabilities = replace(found, evidence={**found.evidence, "log": str(self._child.log)})
        except BaseException as error:
            await self._stop(keep_log=isinstance(error, BackendError))
            raise
        self._watch = asyncio.create_task(self._die_with_child(self._child))

    def _shaping(self) -> list[str]:
        """The options that decide the distribution of samples, for the fingerprint."""
        words = " ".join(self.args).replace("=", " ").split()
        shaping = [f"{a} {b}" for a, b in pairwise(words) if a in SHAPING_FLAGS]
        shaping += ["random weights"] if self.load_format == "dummy" else []
        return shaping + ([json.dumps(dict(self.extra_body), sort_keys=True)] if self.extra_body else [])

    async def _until_ready(self, child: Child, url: str, python: str) -> None:
        ended = asyncio.create_task(child.wait())
        try:
            async with asyncio.timeout(self.start_timeout), aiohttp.ClientSession() as session:
                while not ended.done():
                    with contextlib.suppress(aiohttp.ClientError, OSError):
                        async with session.get(url, timeout=aiohttp.ClientTimeout(total=10)) as response:
                            if response.status == 200:
                                return
                    await asyncio.wait([ended], timeout=0.2)
        except TimeoutError:
            late = f"{self.engine}'s server was not ready after {self.start_timeout:g} s (backend.start_timeout)"
            raise BackendError(f"{late}: {child.reason(self.memory_key)}") from None
        finally:
            ended.cancel()
        reason, hint = child.reason(self.memory_key), ""
        if re.search(rf"No module named '?{self.module.partition('.')[0]}\b", reason):
            hint = f"; install {self.engine} for {python}, or set backend.python to an environment that has it"
        raise BackendError(f"{self.engine}'s server did not start: {reason}{hint}")

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        if self._dead:
            raise EngineDead(self._dead)
        if self._client is None:
            raise EngineDead(f"{self.engine}'s server is not running: start() it first")
        call = asyncio.timeout(None)  # expires when the server dies
        try:
            async with call:
                self._calls.add(call)
                return await self._client.complete(request, on_chunk)
        except TimeoutError:
            if not call.expired():
                raise
            raise EngineDead(self._dead) from None
        finally:
            self._calls.discard(call)

    async def _die_with_child(self, child: Child) -> None:
        await child.wait()
        self._dead = f"{self.engine}'s server died: {child.reason(self.memory_key)}"
        for call in self._calls:
            call.reschedule(0)

    async def close(self) -> None:
        await self._stop(keep_log=bool(self._dead))
        self._dead = self._dead or f"{self.engine}'s server was closed"

    async def _stop(self, *, keep_log: bool) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        child, self._child = self._child, None
        if child is not None:
            await child.stop()
            if not keep_log:
                child.discard_log()


def _free_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise BackendError(
                f"backend.port={wanted} cannot be used ({error.strerror}); null takes a free one"
            ) from error
        port: int = probe.getsockname()[1]
        return port
