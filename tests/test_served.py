"""Servers started for the run, against stand-ins for vLLM's and SGLang's: their flags, readiness, death, and end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.served import SGLangServer, VLLMServer
from pacore_lab.errors import BackendError, EngineDead
from pacore_lab.interfaces import Request
from pacore_lab.types import Model, SamplingParams
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("logs_of_its_own")
MODEL = "experiments/tiny_models/rlvr-tiny"
SERVER = """
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def option(name):
    return sys.argv[sys.argv.index(name) + 1]

mode, asked = os.environ.get("FAKE", ""), 0
sleep = "" if mode == "lean" else "import time; time.sleep(600)"
helper = subprocess.Popen([sys.executable, "-c", sleep], start_new_session=True)
with open(os.environ["NOTES"], "a") as notes:
    notes.write(json.dumps({"argv": sys.argv[1:], "env": dict(os.environ), "pids": [os.getpid(), helper.pid]}) + "\\n")
if "--foo" in sys.argv:
    sys.exit("usage: x\\nx: error: unrecognized arguments: --foo")
if mode == "fails":
    raise RuntimeError("CUDA out of memory")

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send(self, status, body):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self):
        global asked
        if self.path == "/health":
            asked += 1
            return self.send(503 if asked < 3 or mode == "slow" else 200, {})
        if self.path == "/v1/models":
            name = "somebody-else" if mode == "stranger" else option("--served-model-name")
            return self.send(200, {"data": [{"id": name, "object": "model", "max_model_len": 4096}]})
        self.send(404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["messages"][0]["content"] == "wait":
            with open(os.environ["NOTES"] + ".waiting", "a") as waiting:
                waiting.write("x")
            time.sleep(600)
        if body["messages"][0]["content"] == "die":
            print("error: the sky fell", flush=True)
            os._exit(1)
        text = f"seed {body.get('seed')} top_k {body.get('top_k')}"
        logprobs = {"content": [{"token": "a", "logprob": -1.0}]} if body.get("logprobs") else None
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop", "logprobs": logprobs}
        self.send(200, {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})

ThreadingHTTPServer(("127.0.0.1", int(option("--port"))), Handler).serve_forever()
"""
KINDS = [VLLMServer, SGLangServer]


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """The environment in which `python -m vllm...` and `python -m sglang...` run the stand-in."""
    for module in ("vllm/entrypoints/openai/api_server.py", "sglang/launch_server.py"):
        file = tmp_path / "site" / module
        file.parent.mkdir(parents=True)
        file.write_text(SERVER)
    return {"PYTHONPATH": str(tmp_path / "site"), "NOTES": str(tmp_path / "notes")}


def backend(kind: Any, env: dict[str, str], fake: str = "", model: Model | None = None, **options: Any) -> Any:
    options = {"start_timeout": 60, "env": {**env, "FAKE": fake}, **options}
    return kind(model=model or Model(name="tiny", path=MODEL), **options)


@asynccontextmanager
async def running(kind: Any, env: dict[str, str], **options: Any) -> AsyncIterator[Any]:
    made = backend(kind, env, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def asking(text: str = "hello", seed: int = 5) -> Request:
    return Request(id="a", prompt=({"role": "user", "content": text},), params=SamplingParams(), seed=seed)


def noted(env: dict[str, str]) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(Path(env["NOTES"]).read_text().splitlines()[-1])
    return note


def left(env: dict[str, str]) -> list[int]:
    return [pid for pid in noted(env)["pids"] if Path(f"/proc/{pid}").exists()]


def waiting(env: dict[str, str]) -> int:
    """How many requests the server holds."""
    file = Path(env["NOTES"] + ".waiting")
    return file.stat().st_size if file.exists() else 0


def value(env: dict[str, str], flag: str) -> str:
    argv: list[str] = noted(env)["argv"]
    return argv[argv.index(flag) + 1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_from_start_to_end(kind: Any, stand_in: dict[str, str]) -> None:
    async with running(kind, stand_in, extra_body={"top_k": 3}, args=["--max-num-seqs", "9"]) as made:
        answer = await made.complete(asking(seed=7))
        assert (answer.content, answer.generated_tokens) == ("seed 7 top_k 3", 1)
        assert made.capabilities.seeds == "request"
        assert made.capabilities.context_length == 4096
        assert Path(made.capabilities.evidence["log"]).is_file()
        assert value(stand_in, "--host") == "127.0.0.1"
        assert value(stand_in, "--served-model-name") == "tiny"
        assert noted(stand_in)["argv"][-2:] == ["--max-num-seqs", "9"]
        assert len(left(stand_in)) == 2
        log = made.capabilities.evidence["log"]
    assert not left(stand_in)
    assert not Path(log).exists()
    await made.close()
    with pytest.raises(EngineDead, match="closed"):
        await made.complete(asking())


async def test_vllms_flags(stand_in: dict[str, str]) -> None:
    yarn = Model(name="tiny", path=MODEL, yarn_factor=2.0, yarn_original=4096, dtype="float32")
    async with running(VLLMServer, stand_in, model=yarn, tensor_parallel_size=2):
        argv = noted(stand_in)["argv"]
    assert value(stand_in, "--model").endswith(MODEL)
    assert value(stand_in, "--generation-config") == "vllm"
    assert value(stand_in, "--max-model-len") == "8192"
    assert value(stand_in, "--tensor-parallel-size") == "2"
    assert json.loads(value(stand_in, "--hf-overrides"))["rope_parameters"]["attention_factor"] == 1.0
    assert {"--enable-prompt-tokens-details", "--enable-prefix-caching"} <= set(argv)


async def test_sglangs_flags(stand_in: dict[str, str]) -> None:
    yarn = Model(name="tiny", path=MODEL, yarn_factor=2.0, yarn_original=4096)
    async with running(SGLangServer, stand_in, model=yarn, mem_fraction=0.5):
        argv = noted(stand_in)["argv"]
    assert value(stand_in, "--model-path").endswith(MODEL)
    assert value(stand_in, "--context-length") == "8192"
    assert value(stand_in, "--sampling-defaults") == "openai"
    assert value(stand_in, "--mem-fraction-static") == "0.5"
    assert "attn_factor" in json.loads(value(stand_in, "--json-model-override-args"))["rope_parameters"]
    assert {"--enable-deterministic-inference", "--enable-cache-report", "--enable-metrics"} <= set(argv)
    assert noted(stand_in)["env"]["SGLANG_RETURN_ORIGINAL_LOGPROB"] == "1"
    async with running(SGLangServer, stand_in, seeds=False) as made:
        assert made.capabilities.seeds == "none"
        assert (await made.complete(asking())).content == "seed None top_k None"
    assert "--enable-deterministic-inference" not in noted(stand_in)["argv"]


async def test_the_fingerprint_names_weights_not_ports(stand_in: dict[str, str], tmp_path: Path) -> None:
    async def of(kind: Any, **options: Any) -> str:
        async with running(kind, stand_in, fake="lean", **options) as made:
            return str(made.fingerprint)

    copy = shutil.copytree(MODEL, tmp_path / "copy")
    plain = await of(VLLMServer)
    assert plain == await of(VLLMServer, model=Model(name="tiny", path=str(copy)), args=["--max-num-seqs", "3"])
    assert plain.startswith("vllm-server:")
    others = {
        await of(SGLangServer),
        await of(VLLMServer, extra_body={"top_k": 2}),
        await of(VLLMServer, load_format="dummy"),
        await of(VLLMServer, args=["--quantization=fp8"]),
        await of(VLLMServer, model=Model(name="tiny", path=MODEL, dtype="float16")),
    }
    assert len(others | {plain}) == 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fake", "options", "line"),
    [
        (
            "fails",
            {},
            r".*'s server did not start: RuntimeError: CUDA out of memory; lower backend\.\w+ or model.* \(log.*\)",
        ),
        (
            "slow",
            {"start_timeout": 3},
            r".*'s server was not ready after 3 s \(backend.start_timeout\): .* \(log: .*\)",
        ),
        ("", {"args": ["--foo"]}, r".*'s server did not start: x: error: unrecognized arguments: --foo \(log: .*\)"),
        ("stranger", {}, r".*does not serve 'tiny'.*"),
    ],
)
async def test_a_failed_start_is_one_line_and_leaves_nothing(
    kind: Any, stand_in: dict[str, str], fake: str, options: dict[str, Any], line: str
) -> None:
    made = backend(kind, stand_in, fake, **options)
    with pytest.raises(BackendError, match=f"^{line}$"):
        await made.start()
    assert not left(stand_in)
    await made.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_python_without_the_engine(kind: Any) -> None:
    with pytest.raises(BackendError, match=rf"^{kind.engine}'s server did not start: .*set backend\.python to an env"):
        await backend(kind, {}).start()


async def test_a_taken_port(stand_in: dict[str, str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BackendError, match=rf"^backend\.port={port} cannot be used \(Address already in use\)"):
            await backend(VLLMServer, stand_in, port=port).start()


@pytest.mark.parametrize("how", ["die", "kill"])
async def test_its_death_ends_the_waiting(stand_in: dict[str, str], how: str) -> None:
    """The client of a server that is away waits for it to come back; this one never will."""
    async with running(VLLMServer, stand_in) as made:
        calls = [asyncio.create_task(made.complete(asking("wait"))) for _ in range(20)]
        await until(lambda: waiting(stand_in) == 20)
        if how == "kill":
            os.kill(noted(stand_in)["pids"][0], signal.SIGKILL)
        else:
            calls.append(asyncio.create_task(made.complete(asking("die"))))
        async with asyncio.timeout(20):
            results = await asyncio.gather(*calls, return_exceptions=True)
        reason = "the sky fell" if how == "die" else "it said nothing, exit code 137"
        for result in results:
            if not isinstance(result, EngineDead):  # whoever was told of the broken connection tries again
                with pytest.raises(EngineDead, match=reason):
                    await asyncio.wait_for(made.complete(asking()), 20)
            else:
                assert str(result).startswith(f"vLLM's server died: {reason}")
        with pytest.raises(EngineDead, match=reason):
            await made.complete(asking())
    assert not left(stand_in)


async def test_cancelling_goes_through(stand_in: dict[str, str]) -> None:
    async with running(VLLMServer, stand_in) as made:
        call = asyncio.create_task(made.complete(asking("wait")))
        await until(lambda: waiting(stand_in) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not made._calls


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"args": ["--max_model_len=3", "--host", "0.0.0.0"]},
            r"backend\.args has --host, --max-model-len, which the lab",
        ),
        ({"port": 0}, r"backend\.port is 0"),
        ({"tensor_parallel_size": 0}, r"backend\.tensor_parallel_size is 0"),
        ({"start_timeout": -1}, r"backend\.start_timeout is -1"),
        ({"extra_body": {"seed": 1}}, r"backend\.extra_body sets seed"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        VLLMServer(model=Model(name="tiny"), **options)
