"""The OpenAI chat API's answers and errors, parsed from their bytes; no I/O."""

from __future__ import annotations

import email.utils
import errno
import heapq
import json
import math
import time
from contextlib import suppress
from typing import Any

import aiohttp

from backends._confidence import confidence
from pacore_lab.errors import TransientError
from pacore_lab.interfaces import Chunk
from pacore_lab.types import Completion, mean_and_windows, text_of


class Answer:
    """A chat completion as it arrives, whole ("message") or in pieces ("delta").

    top: how many of the likeliest tokens each confidence averages over. fewest: the fewest of them that the server gave
    for any token; a token with fewer than `top` gets no confidence.
    """

    __slots__ = (
        "begun", "cached_tokens", "confidences", "content", "fewest", "finish_reason", "generated_tokens", "logprobs",
        "prompt_tokens", "reasoning", "tokens", "top",
    )  # fmt: skip

    def __init__(self, top: int = 0) -> None:
        self.top = self.fewest = top
        self.confidences: list[float] = []
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.logprobs: list[float] = []
        self.finish_reason: str | None = None
        self.begun = False
        self.tokens = self.prompt_tokens = self.cached_tokens = 0  # tokens: our own count
        self.generated_tokens: int | None = None  # the server's count

    def add(self, raw: bytes) -> Chunk:
        """Takes in a body or a `data:` line and returns its new text. Raises TransientError."""
        try:
            return self._add(json.loads(raw))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TransientError(f"the server's answer is not a chat completion: {plain(message_of(raw))}") from error

    def _add(self, event: Any) -> Chunk:
        if event.get("error"):
            raise TransientError(f"the server broke off: {plain(message_of(json.dumps(event).encode()))}")
        if usage := event.get("usage"):
            self.prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self.generated_tokens = int(usage.get("completion_tokens") or 0)
            self.cached_tokens = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        if not event.get("choices"):
            return Chunk(text="", tokens=0)  # the last event of a stream holds only the usage
        choice = event["choices"][0]
        part = (choice["delta"] or {}) if "delta" in choice else choice["message"]
        content = text_of(part.get("content"))
        reasoning = text_of(part.get("reasoning_content") or part.get("reasoning"))
        scored = (choice.get("logprobs") or {}).get("content") or ()
        logprobs = [float(token["logprob"]) for token in scored]
        sure = self._confidences(scored) if self.top else []
        self.begun = True
        self.content.append(content)
        self.reasoning.append(reasoning)
        self.logprobs += logprobs
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        guess = 1 if "delta" in choice and (content or reasoning) else 0
        tokens = len(logprobs) or guess or (0 if "delta" in choice else self.generated_tokens or 0)
        if usage and "delta" in choice and not logprobs:  # a busy server puts several tokens into one chunk
            tokens = max(0, (self.generated_tokens or 0) - self.tokens)
        self.tokens += tokens
        return Chunk(text=reasoning + content, tokens=tokens, confidences=tuple(sure))

    def _confidences(self, scored: Any) -> list[float]:
        made: list[float] = []
        for token in scored:
            given = [float(other["logprob"]) for other in token.get("top_logprobs") or ()]
            self.fewest = min(self.fewest, len(given))
            if len(given) >= self.top:  # vLLM lists the chosen token first, whatever its rank
                made.append(confidence(heapq.nlargest(self.top, given)))
        self.confidences += made
        return made

    @property
    def text(self) -> str:
        return "".join([*self.reasoning, *self.content])

    def completion(self, max_tokens: int | None, *, clamped: bool = False) -> Completion:
        """Raises TransientError for an answer that is not a sample of the model."""
        if not self.begun:
            raise TransientError("the server's answer holds no choices")
        if self.finish_reason in ("abort", "error"):  # the engine's own doing: not a sample of the model
            raise TransientError(f"the server gave the request up (finish_reason {self.finish_reason!r})")
        mean, windows = mean_and_windows(self.logprobs)
        return Completion(
            content=_mended("".join(self.content)),
            reasoning=_mended("".join(self.reasoning)),
            finish_reason=self.finish_reason or "unknown",
            prompt_tokens=self.prompt_tokens,
            generated_tokens=self.tokens if self.generated_tokens is None else self.generated_tokens,
            cached_tokens=self.cached_tokens,
            counted=self.generated_tokens is not None,
            max_tokens=max_tokens,
            clamped=clamped,
            mean_logprob=mean,
            window_logprobs=windows,
            confidences=tuple(self.confidences) if self.top else None,
        )


def _mended(text: str) -> str:
    """Joins surrogate pairs that a stream tore apart; a lone surrogate becomes U+FFFD, so that it can be stored."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def message_of(raw: bytes) -> str:
    """The server's own message in an error body."""
    text = raw.decode("utf-8", "replace")
    with suppress(ValueError):
        body = json.loads(text)
        while isinstance(body, dict):
            body = next((body[key] for key in ("error", "message", "detail") if body.get(key)), text)
        return body if isinstance(body, str) else json.dumps(body)
    return text


def plain(text: str) -> str:
    """One line of at most 300 printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:3000]).split())[:300]


def seconds_of(retry_after: str) -> float | None:
    """A Retry-After header (seconds or an HTTP date) in seconds from now; None if it is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def reason_of(error: Exception) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host {error.host} is not known"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connection refused" if error.os_error.errno == errno.ECONNREFUSED else plain(str(error))
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, OSError)):
        return "the connection was lost"
    return plain(str(error)) or type(error).__name__
