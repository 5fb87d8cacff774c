"""What the OpenAI-compatible backend finds out about a server at its start, and what it makes of it."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from backends import _probe
from pacore_lab.errors import BackendError, EngineDead
from pacore_lab.interfaces import Capabilities
from pacore_lab.running.needs import refuse_unsupported
from pacore_lab.types import Model
from tests.asking import answering, asking, client
from tests.outside import invoke, serving, write_jsonl
from tests.servers import Fault, Payload, RecordingServer, default_text
from tests.waiting import until


async def probed(*servers: RecordingServer, **settings: Any) -> Capabilities:
    async with client(servers, **{"probe": True, **settings}) as backend:
        return backend.capabilities


async def test_a_server_that_does_everything(caplog: pytest.LogCaptureFixture) -> None:
    async with RecordingServer() as server:
        found = await probed(server)
    assert (found.seeds, found.logprobs, found.partial) == ("request", "chosen", True)
    assert {key: text for key, text in found.evidence.items() if key != "probed"} == {
        "server": f"{server.base_url}: an engine that does not say which",
        "seeds": "two calls with one seed agreed, another seed differed",
        "logprobs": "given when asked for",
        "usage": "reported",
        "prefill": "not known for this engine",
    }
    assert found.evidence["probed"].startswith("20")
    assert caplog.text == ""
    assert [(p["seed"], p.get("logprobs")) for p in server.requests] == [(1, True), (1, None), (2, None)]
    assert {p["max_tokens"] for p in server.requests} == {16}
    assert {p["temperature"] for p in server.requests} == {1.0}


async def test_the_runs_own_fields_are_probed_too() -> None:
    """A server that refuses top_k or a template option is found out before the run."""
    model = Model(name="m", chat_template_kwargs={"enable_thinking": False})
    async with RecordingServer() as server:
        await probed(server, model=model, extra_body={"top_k": 20})
    assert all(p["top_k"] == 20 and p["chat_template_kwargs"] for p in server.requests)


async def test_seeds_that_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """SGLang ignores them without a word; a store that believes in them promises a replay that nobody can give."""
    async with RecordingServer(reply=lambda payload, n: f"{random.random()}") as server:
        found = await probed(server)
    assert found.seeds == "none"
    assert found.logprobs == "chosen"
    assert found.evidence["seeds"] == "two calls with one seed differed"
    assert "ignores seeds: another store gives other samples; the store is the record" in caplog.text


async def test_one_text_for_all_seeds(caplog: pytest.LogCaptureFixture) -> None:
    """Greedy decoding, or a cache in front of the server: 16 samples would be one."""
    async with RecordingServer(reply=lambda payload, n: "always this") as server:
        found = await probed(server)
    assert found.seeds == "none"
    assert found.evidence["seeds"] == "4 seeds gave one text"
    assert "gives one text for different seeds: is it sampling?" in caplog.text


async def test_a_thought_that_begins_alike_is_still_sampled() -> None:
    """A reasoning model's first sixteen tokens may be the same for two seeds."""
    async with RecordingServer(reply=lambda p, n: "Okay, so" if p["seed"] < 4 else "Okay, I") as server:
        assert (await probed(server)).seeds == "request"


async def test_seeds_that_are_not_sent() -> None:
    async with RecordingServer() as server:
        found = await probed(server, seed=False)
    assert (found.seeds, found.logprobs) == ("none", "chosen")
    assert found.evidence["seeds"] == "not sent (backend.seed=false)"
    assert len(server.requests) == 1
    assert "seed" not in server.requests[0]


async def test_logprobs_that_are_ignored_are_refused_before_the_first_token() -> None:
    body = {"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}]}
    async with RecordingServer(reply=lambda payload, n: body) as server:
        found = await probed(server)
    assert found.logprobs == "none"
    assert found.evidence["logprobs"] == "asked for and not given"
    assert found.evidence["usage"].startswith("not reported: ")
    with pytest.raises(BackendError.__bases__[0], match=r"model\.logprobs=true, but"):
        refuse_unsupported(object(), Model(name="m", logprobs=True), found)


async def test_logprobs_that_are_refused_say_nothing_of_seeds(caplog: pytest.LogCaptureFixture) -> None:
    def reply(payload: Payload, n: int) -> Any:
        return (
            answering(400, "no logprobs \x1b[31m here")(payload, n)
            if payload.get("logprobs")
            else default_text(payload)
        )

    async with RecordingServer(reply=reply) as server:
        found = await probed(server)
    assert (found.seeds, found.logprobs) == ("request", "none")
    assert found.evidence["logprobs"] == f"unknown: {server.base_url} answers 400 no logprobs [31m here"
    assert "backend.probe=false" in caplog.text


async def test_a_server_that_refuses_the_probe(caplog: pytest.LogCaptureFixture) -> None:
    """Metered ones refuse max_tokens or the seed: that is no reason not to run."""
    async with RecordingServer(reply=answering(422, {"error": {"message": "max_tokens: no"}})) as server:
        found = await probed(server)
    assert (found.seeds, found.logprobs) == ("none", "none")
    assert all("answers 422 max_tokens: no" in found.evidence[key] for key in ("seeds", "logprobs", "usage"))
    assert caplog.text.count("answers 422") == 1


@pytest.mark.parametrize("fault", [answering(500), answering(429, Retry_After="0"), lambda p, n: Fault.RESET,
                                   lambda p, n: Fault.CUT, answering(200, "{")])  # fmt: skip
async def test_transient_faults_are_tried_again(fault: Any) -> None:
    async with RecordingServer(reply=lambda p, n: fault(p, n) if n % 2 == 0 else default_text(p)) as server:
        found = await probed(server)
    assert (found.seeds, found.logprobs) == ("request", "chosen")


async def test_faults_that_stay_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probe, "PAUSES", (0.01, 0.01))
    async with RecordingServer(reply=answering(500, "boom")) as server:
        found = await probed(server)
        assert (found.seeds, found.logprobs) == ("none", "none")
        assert found.evidence["seeds"] == f"unknown: {server.base_url} answers 500 boom"
        assert len(server.requests) == 3
        assert (await probed(server, seed=False)).evidence["seeds"] == "not sent (backend.seed=false)"


async def test_a_probe_that_is_never_answered_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server busy with somebody else's night run."""
    monkeypatch.setattr(_probe, "LIMIT", 0.1)
    async with RecordingServer(reply=lambda p, n: Fault.HANG) as server:
        found = await probed(server)
        await server.until(lambda s: s.aborted == 1 and s.in_flight == 0)
    assert found.evidence["logprobs"] == "unknown: no answer within 0.1 s"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405])
async def test_what_no_request_can_survive_ends_the_start(status: int) -> None:
    async with RecordingServer(reply=answering(status, "no")) as server:
        with pytest.raises(EngineDead, match=f"answers {status} no"):
            await probed(server)


async def test_cancelling_the_start() -> None:
    async with RecordingServer(reply=lambda p, n: Fault.HANG) as server:
        task = asyncio.create_task(probed(server))
        await server.until(lambda s: s.in_flight == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda s: s.aborted == 1 and s.in_flight == 0)


async def test_the_weakest_of_several_counts_and_none_waits_for_another() -> None:
    body = {"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}]}
    servers: list[RecordingServer] = []

    async def both_asked(n: int) -> None:  # five calls go to the bad one, three to the other
        await until(lambda: all(len(server.requests) > min(n, 2) for server in servers))

    async def well(payload: Payload, n: int) -> str:
        await both_asked(n)
        return default_text(payload)

    async def badly(payload: Payload, n: int) -> Payload:
        await both_asked(n)
        return body

    async with RecordingServer(reply=well) as good, RecordingServer(reply=badly) as bad:
        servers += [good, bad]
        found = await probed(good, bad)
    assert (found.seeds, found.logprobs) == ("none", "none")
    assert (
        found.evidence["logprobs"] == f"{good.base_url}: given when asked for; {bad.base_url}: asked for and not given"
    )
    assert found.evidence["server"].count("http://") == 2


ENGINES = {
    "vllm": ({"/version": {"version": "0.32.0"}}, {"owned_by": "vllm", "root": "org/m"}, 4096, "vLLM 0.32.0"),
    "sglang": ({"/get_server_info": {"version": "0.5.23", "x": 1}}, {"owned_by": "sglang"}, 4096, "SGLang 0.5.23"),
    "sglang, newer": ({"/server_info": {"version": "0.6"}}, {"owned_by": "sglang"}, 4096, "SGLang 0.6"),
    "llama.cpp": (
        {"/props": {"build_info": "b6000-abc", "default_generation_settings": {"n_ctx": 2048}}},
        {"owned_by": "llamacpp", "meta": {"n_ctx_train": 131072}}, None, "llama.cpp b6000-abc",
    ),
    "one that lies": ({"/version": {"version": "\x1b[31m" + "9" * 500}}, {"owned_by": 7}, 4096, "vLLM [31m" + "9" * 75),
    "pages of HTML": ({"/version": web.Response(text="<html>"), "/props": [1], "/server_info": {"version": 7}},
                      {}, 4096, "an engine that does not say which"),
}  # fmt: skip


@pytest.mark.parametrize(("pages", "entry", "length", "name"), ENGINES.values(), ids=ENGINES)
async def test_which_engine_it_is(pages: Any, entry: Any, length: int | None, name: str) -> None:
    async with RecordingServer(models=["m"], max_model_len=length, entry=entry, pages=pages) as server:
        found = await probed(server)
    assert found.evidence["server"] == f"{server.base_url}: {name}"
    assert found.context_length == (length or 2048)


async def test_without_the_probe_it_is_believed() -> None:
    async with RecordingServer() as server:
        found = await probed(server, probe=False)
        assert (found.seeds, found.logprobs, found.evidence) == ("request", "chosen", {})
        assert (await probed(server, probe=False, seed=False)).seeds == "none"
    assert server.requests == []


def test_a_run_writes_the_evidence_down(tmp_path: Path) -> None:
    """Six months later: which server was it, and did it honour seeds?"""
    problems = write_jsonl(tmp_path / "p.jsonl", [{"question": "1 + 1?", "answer": "2"}])
    pages = {"/version": {"version": "0.32.0"}}
    entry = {"owned_by": "vllm", "root": "org/m"}
    with serving(lambda p, n: default_text(p), models=["m"], max_model_len=4096, entry=entry, pages=pages) as server:
        said = invoke(
            "backend=openai", f"backend.base_url=[{server.base_url}]", "model.name=m", "model.logprobs=true",
            "problems=jsonl", f"problems.path={problems}", "strategy=single",
            f"out={tmp_path / 'out'}", f"store={tmp_path / 's.sqlite'}",
        )  # fmt: skip
    assert said.code == 0, said.err
    backend = json.loads((tmp_path / "out" / "versions.json").read_text())["backend"]
    assert backend["fingerprint"] == "openai:org/m:m"
    assert (backend["seeds"], backend["logprobs"], backend["context_length"]) == ("request", "chosen", 4096)
    assert backend["evidence"]["server"] == f"{server.base_url}: vLLM 0.32.0"
    assert backend["evidence"]["seeds"] == "two calls with one seed agreed, another seed differed"
    assert "boxed" not in json.dumps(backend)


async def test_what_was_probed_is_not_sampled() -> None:
    """The probe's seeds and question are its own; the first request after it is the run's."""
    async with RecordingServer() as server, client(server, probe=True) as backend:
        await backend.complete(asking(seed=99))
    assert [payload["seed"] for payload in server.requests].count(99) == 1
    assert "max_tokens" not in server.requests[-1]
