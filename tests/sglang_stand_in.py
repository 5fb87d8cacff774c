"""A stand-in for sglang, for a child process to import; and short ways to ask the SGLang backend something."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from backends.sglang import SGLang
from pacore_lab.interfaces import Request
from pacore_lab.types import Model, SamplingParams

MODEL = "experiments/tiny_models/rlvr-tiny"
ENGINE = """
import asyncio, json, os, subprocess, sys, time
from types import SimpleNamespace

__version__ = "9.9"

class Manager:
    def __init__(self):
        self.aborted, self.names = set(), set()

    def abort_request(self, rid):
        self.aborted |= {name for name in self.names if name.startswith(rid)}  # as SGLang does

class Engine:
    def __init__(self, **settings):
        note(arguments=settings, original=os.environ.get("SGLANG_RETURN_ORIGINAL_LOGPROB"), pid=os.getpid())
        mode = os.environ.get("FAKE", "")
        if mode == "fails":
            print("Traceback (most recent call last):\\n  x\\nValueError: no such\\nOSError: late", flush=True)
            os.kill(os.getpid(), 9)
        self.helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        note(helper=self.helper.pid)
        if mode == "slow":
            print("loading", flush=True)
            time.sleep(600)
        self.tokenizer_manager = Manager()
        self.server_args = SimpleNamespace(device="abacus")
        infos = [{"max_total_num_tokens": 100 if mode == "small" else 10_000}]
        self._scheduler_init_result = SimpleNamespace(scheduler_infos=infos)

    async def async_generate(self, *, stream=False, **asked):
        note(asked=asked)
        pieces = self.pieces(asked)
        if stream:
            return pieces
        async for out in pieces:
            last = out
        return last

    async def pieces(self, asked):
        sampling, rid = asked["sampling_params"], asked["rid"]
        seed, most = sampling["sampling_seed"], sampling["max_new_tokens"]
        if seed == 400:
            raise ValueError("too\\nlong")
        if seed == 500:
            raise RuntimeError("broken")
        if seed == 666:
            print("error: the sky fell", flush=True)
            os.kill(os.getpid(), 9)
        self.tokenizer_manager.names.add(rid)
        words, meta = [], {"prompt_tokens": len(asked["input_ids"]), "cached_tokens": 3, "finish_reason": None}
        if asked["top_logprobs_num"]:
            meta["output_top_logprobs"] = []
        while len(words) < min(most, seed):
            if asked["top_logprobs_num"]:
                place = [(-len(words) - i, i, None) for i in range(asked["top_logprobs_num"])]
                meta["output_top_logprobs"].append(place)
            words.append(f"w{len(words)} ")
            await asyncio.sleep(0.005)
            if rid in self.tokenizer_manager.aborted:
                meta["finish_reason"] = {"type": "abort", "message": "Aborted", "status_code": None}
                break
            if len(words) % 4 == 0:
                yield {"text": "".join(words), "meta_info": {**meta, "completion_tokens": len(words)}}
        end = {"type": "length"} if most <= seed else {"type": "stop", "matched": 445}
        if seed == 503:
            end = {"type": "abort", "message": "no room", "status_code": 503}
        meta["finish_reason"] = meta["finish_reason"] or end
        if asked["return_logprob"]:
            meta["output_token_logprobs"] = [(-i / 8, i, None) for i in range(len(words))]
        yield {"text": "".join(words), "meta_info": {**meta, "completion_tokens": len(words)}}

    def shutdown(self):
        note(shut=True)
        self.helper.kill()

def note(**what):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps(what) + "\\n")
"""
ARGUMENTS = '''
from dataclasses import dataclass, make_dataclass
NAMES = """model_path revision dtype context_length json_model_override_args tp_size dp_size load_format stream_interval
enable_deterministic_inference enable_priority_scheduling disable_priority_preemption mem_fraction_static log_level
kv_cache_dtype"""
ServerArgs = make_dataclass("ServerArgs", NAMES.split())
'''


def installed(folder: Path) -> dict[str, str]:
    """The environment in which `import sglang` finds the stand-in."""
    package = folder / "site" / "sglang"
    (package / "srt").mkdir(parents=True)
    (package / "__init__.py").write_text(ENGINE)
    (package / "srt" / "__init__.py").touch()
    (package / "srt" / "server_args.py").write_text(ARGUMENTS)
    return {"PYTHONPATH": str(folder / "site"), "NOTES": str(folder / "notes")}


def backend(env: dict[str, str], fake: str = "", model: dict[str, Any] | None = None, **options: Any) -> SGLang:
    options = {"start_timeout": 60, **options}
    return SGLang(model=Model(name="tiny", path=MODEL, **(model or {})), env={**env, "FAKE": fake}, **options)


@asynccontextmanager
async def running(env: dict[str, str], **options: Any) -> AsyncIterator[SGLang]:
    made = backend(env, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def asking(seed: int = 10, text: str = "hello", priority: int = 0, **params: Any) -> Request:
    prompt = ({"role": "user", "content": text},)
    return Request(id="a", prompt=prompt, params=SamplingParams(**params), seed=seed, priority=priority)  # type: ignore[arg-type]


def notes(env: dict[str, str], key: str) -> list[Any]:
    lines = [json.loads(line) for line in Path(env["NOTES"]).read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
