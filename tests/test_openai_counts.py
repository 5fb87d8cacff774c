"""Tokens of a stream, counted while it runs: what an aborted trajectory is charged."""

from __future__ import annotations

import json

import pytest

from backends.chat_wire import Answer
from tests.asking import asking, client
from tests.servers import RecordingServer


def test_a_chunk_of_several_tokens_counts_them_all() -> None:
    """A busy vLLM coalesces what it has: an aborted trajectory was charged one token per chunk, a quarter too few."""
    answer = Answer()
    deltas = [("", 0), ("a b c", 3), ("", 3), (" d", 4), (" e f", 6)]
    events = [{"choices": [{"delta": {"content": text}}], "usage": {"completion_tokens": n}} for text, n in deltas]
    assert [answer.add(json.dumps(event).encode()).tokens for event in events] == [0, 3, 0, 1, 2]
    assert answer.completion(None).generated_tokens == 6


def test_without_counts_a_chunk_with_text_is_a_token() -> None:
    answer = Answer()
    events = [{"choices": [{"delta": {"content": text}}]} for text in ("", "a b c", " d")]
    assert [answer.add(json.dumps(event).encode()).tokens for event in events] == [0, 1, 1]


@pytest.mark.parametrize("owner", ["vllm", "somebody"])
async def test_a_server_known_to_count_as_it_goes_is_asked_to(owner: str) -> None:
    async with (
        RecordingServer(models=["m"], entry={"owned_by": owner}) as server,
        client(server, probe=True) as backend,
    ):
        await backend.complete(asking(), lambda chunk: None)
    counting = {"continuous_usage_stats": True} if owner == "vllm" else {}
    assert server.requests[-1]["stream_options"] == {"include_usage": True, **counting}
