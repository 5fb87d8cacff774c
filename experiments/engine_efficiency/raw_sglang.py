"""SGLang alone: {"arguments": ..., "requests": ...} as JSON on stdin, tokens per second on the last line of stdout."""

import asyncio
import json
import sys
import time
from typing import Any


async def measure(engine: Any, requests: list[dict[str, Any]]) -> float:
    async def one(request: dict[str, Any]) -> int:
        out = await engine.async_generate(input_ids=request["ids"], sampling_params=request["sampling"])
        return int(out["meta_info"]["completion_tokens"])

    await asyncio.gather(*map(one, requests[:4]))  # warm-up
    start = time.perf_counter()
    tokens = sum(await asyncio.gather(*map(one, requests)))
    return tokens / (time.perf_counter() - start)


if __name__ == "__main__":
    import sglang

    given = json.load(sys.stdin)
    engine = sglang.Engine(**given["arguments"])
    rate = asyncio.run(measure(engine, given["requests"]))
    print(rate, flush=True)
    engine.shutdown()
