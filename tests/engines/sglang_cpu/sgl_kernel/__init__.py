"""The two kernels that SGLang's CPU platform cannot do without, in plain torch; sgl-kernel itself is built for CUDA.

Slow and only for tests. Whatever else is asked for raises NotImplementedError when it is called.
"""

from typing import Any

import torch


def assign_req_to_token_pool_cpu(
    requests: torch.Tensor, table: torch.Tensor, start: torch.Tensor, end: torch.Tensor, slots: torch.Tensor, _: int
) -> None:
    """Row `requests[i]` of the table gets the next slots in its columns start[i] .. end[i]."""
    rows = zip(requests.tolist(), start.tolist(), end.tolist(), strict=True)
    used = 0
    for row, first, last in rows:
        table[row, first:last] = slots[used : used + last - first].to(table.dtype)
        used += last - first


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"sgl_kernel.{name} has no stand-in on a CPU")

    return missing


def _hash(seed: torch.Tensor, positions: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(requests,), (requests,), (vocabulary,) -> (requests, vocabulary) of uniform 32-bit numbers, one per triple.

    SGLang turns them into Gumbel noise where sampling is seeded. Multiplications wrap, as mixing functions want it.
    """
    bits = (seed.view(torch.int64) * -7046029254386353131 + positions.to(torch.int64) * -4417276706812531889)[:, None]
    bits = bits + columns.to(torch.int64)[None] * 1609587929392839161
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1)):
        bits = (bits ^ ((bits >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return (bits & 0xFFFFFFFF).to(torch.uint32)


_library = torch.library.Library("sgl_kernel", "FRAGMENT")
_library.define("murmur_hash32_cpu(Tensor seed, Tensor positions, Tensor cols) -> Tensor")
_library.impl("murmur_hash32_cpu", _hash, "CPU")
