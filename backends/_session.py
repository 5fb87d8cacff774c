"""HTTP to chat servers: one session for all of them, whose failures become the lab's errors."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import resource
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from backends.chat_wire import Answer, message_of, plain, reason_of, seconds_of
from pacore_lab.errors import BackendError, EngineDead, RequestError, TransientError
from pacore_lab.interfaces import OnChunk

FILES = 65_536  # open files, connections included, to ask of the system: often a process starts with 1,024
KEEP_ALIVE = 2  # seconds an idle connection is kept: far less than the 5 after which vLLM and SGLang drop it
GONE = 120  # seconds of silence from the other machine's kernel (not its server) until a connection counts as lost


class Lost(TransientError):
    """The connection failed or broke, or a gateway found no server: the server may be away. reason: a short form."""

    def __init__(self, message: str, *, reason: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.reason = reason


class Session:
    """Must be opened within a running event loop. Raises BackendError if the key is not in the environment."""

    def __init__(
        self,
        roots: Sequence[str],
        *,
        api_key_env: str | None,
        model: str,
        connect_timeout: float,
        idle_timeout: float,
    ) -> None:
        self._chat = {root: URL(f"{root}/chat/completions") for root in roots}
        self._key_name, self._model, self._key = api_key_env, model, ""
        self._connect_timeout, self._idle_timeout = connect_timeout, idle_timeout
        headers = {"Content-Type": "application/json"}
        if api_key_env:
            self._key = os.environ.get(api_key_env, "").strip()
            if not self._key:
                raise BackendError(f"backend.api_key_env names {api_key_env}, which is not set in the environment")
            headers["Authorization"] = f"Bearer {self._key}"
        _allow_files()
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, socket_factory=watched_socket),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),  # a balancer's cookie would tie all requests to one replica
            headers=headers,
        )

    async def get(self, url: str, ask: bytes | None = None) -> tuple[int, bytes, BackendError | None]:
        """Status, body and, for a status other than 2xx, its error; all within connect_timeout. Raises Lost.

        ask: the body of a POST; None sends a GET.
        """
        timeout = aiohttp.ClientTimeout(total=self._connect_timeout)
        try:
            method = "GET" if ask is None else "POST"
            async with self._http.request(method, url, data=ask, timeout=timeout, allow_redirects=False) as response:
                raw = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(url, error, always_lost=True) from error
        good = 200 <= response.status < 300
        return response.status, raw, None if good else self._refusal(url.removesuffix("/models"), response, raw)

    async def post(self, root: str, body: bytes, answer: Answer, on_chunk: OnChunk | None) -> None:
        """Sends a chat request and reads the reply into `answer`. Raises TransientError, RequestError or EngineDead."""
        data = body if len(body) < 1 << 20 else io.BytesIO(body)  # aiohttp warns of bytes above 1 MiB
        try:
            async with self._http.post(self._chat[root], data=data, allow_redirects=False) as response:
                if not 200 <= response.status < 300:
                    raise self._refusal(root, response, await response.read())
                if on_chunk is None or response.content_type == "application/json":  # or the server cannot stream
                    chunk = answer.add(await response.read())
                    if on_chunk is not None:
                        on_chunk(chunk)
                else:
                    await self._read_stream(root, response.content, answer, on_chunk)
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(root, error) from error

    async def close(self) -> None:
        await self._http.close()

    async def _read_stream(self, root: str, content: aiohttp.StreamReader, answer: Answer, on_chunk: OnChunk) -> None:
        clock, rest = asyncio.get_running_loop().time, b""
        async with asyncio.timeout(None) as idle:  # armed by the first text: until then a request may queue
            async for piece in content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                    if data == b"[DONE]":
                        with suppress(OSError, aiohttp.ClientError):  # read to the end, to reuse the connection
                            async with asyncio.timeout(1):
                                await content.readany()
                        return
                    if data and (chunk := answer.add(data)).tokens:
                        on_chunk(chunk)
                if answer.tokens:
                    idle.reschedule(clock() + self._idle_timeout)
        if answer.finish_reason is None:
            raise TransientError(f"{root}: the stream ended before the answer did")

    def _refusal(self, root: str, response: aiohttp.ClientResponse, raw: bytes) -> BackendError:
        """The error for an answer that is not 2xx."""
        status, said = response.status, plain(message_of(raw))
        said = said.replace(self._key or "\0", "***")
        line = f"{root} answers {status} {said}".rstrip()
        if status < 400:
            there = plain(response.headers.get("Location", "elsewhere"))
            return EngineDead(f"{root} redirects to {there}; set backend.base_url to where the server is")
        if status in (401, 403):
            return EngineDead(f"{line}; is the key right? backend.api_key_env is {self._key_name or 'null'}")
        if status in (402, 404, 405):
            return EngineDead(f"{line}; check backend.base_url and model.name={self._model}")
        wait = seconds_of(response.headers.get("Retry-After", ""))
        if status in (502, 503, 504):  # a gateway whose server restarts, or a server still loading
            return Lost(line, reason=f"it answers {status}", retry_after=wait)
        if status >= 500 or status in (408, 409, 425, 429):
            return TransientError(line, retry_after=wait)
        return RequestError(line)


def root_of(base_url: str) -> str:
    """The URL before `/chat/completions`. Raises ValueError."""
    url = base_url.strip().rstrip("/").removesuffix("/chat/completions")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is not a number
        good = False
    if not good or parts.query or parts.fragment or "@" in parts.netloc or re.search(r"\s", url):
        shown = re.sub(r"//.*@", "//***@", base_url)
        raise ValueError(f"backend.base_url is {shown!r}; give a plain URL such as http://127.0.0.1:8000/v1")
    return url if parts.path else f"{url}/v1"


def watched_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket that notices within about `GONE` seconds that the other machine has vanished without a word.

    A generation may send nothing for hours, so silence alone means nothing: TCP has to ask.
    """
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": GONE // 2, "TCP_KEEPALIVE": GONE // 2, "TCP_KEEPINTVL": GONE // 8, "TCP_KEEPCNT": 4}
    wanted["TCP_USER_TIMEOUT"] = GONE * 1000  # the same for data under way: TCP would retry for 15 minutes
    for name, value in wanted.items():
        with suppress(OSError):
            if hasattr(socket, name):
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def _fault(root: str, error: Exception, always_lost: bool = False) -> BackendError:
    code = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else getattr(error, "errno", None)
    if code in (errno.EMFILE, errno.ENFILE):
        return EngineDead(
            f"this process may open no more than {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} files, and each "
            "trajectory in flight takes one connection; lower concurrency= or raise the limit (ulimit -n)"
        )
    reason = reason_of(error)
    lost = isinstance(error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError))
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError) and error.errno is None:
        lost = False  # our own idle_timeout: the server is there, but its stream has stalled
    if lost or always_lost:
        return Lost(f"{root}: {reason}", reason=reason)
    return TransientError(f"{root}: {reason}")


def _allow_files() -> None:
    """Raise this process's own limit on open files as far as the system allows, up to `FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
