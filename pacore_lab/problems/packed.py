"""LiveCodeBench's test cases: JSON text, or base64 of zlib of a pickle of JSON text. The data are untrusted."""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import pickletools
import zlib
from typing import Any, NoReturn

LIMIT = 2**30
"""Bytes that one problem's tests may take unpacked; the largest in the set take about a tenth of that."""

# The opcodes Python writes for one text. Allowing no others keeps hostile ones (calls, huge memos) from running.
_TEXT_ONLY = frozenset({"PROTO", "FRAME", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINPUT", "MEMOIZE", "STOP"})


def cases_of(text: str, limit: int = LIMIT) -> list[dict[str, str]]:
    """[{"input", "output", "testtype"}, ...] from a column of test cases; testtype is "stdin" or "functional".

    Raises ValueError, one line, for anything else and for more than `limit` bytes unpacked.
    """
    cases = _json(text if text.lstrip().startswith("[") else unpack(text, limit))
    if not isinstance(cases, list):
        raise ValueError(f"the tests are a JSON {type(cases).__name__}, not a list")
    for number, case in enumerate(cases):
        ok = isinstance(case, dict) and all(isinstance(case.get(key), str) for key in ("input", "output"))
        if not ok or case.get("testtype") not in ("stdin", "functional"):
            raise ValueError(f"test {number} lacks input, output or a testtype of stdin or functional")
    return [{key: case[key] for key in ("input", "output", "testtype")} for case in cases]


def unpack(text: str, limit: int = LIMIT) -> str:
    """The text inside base64, zlib and pickle. Raises ValueError if a layer is broken, hostile or too large."""
    try:
        compressed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the tests are neither JSON nor base64 ({error})") from None
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(compressed, limit)
    except zlib.error as error:
        raise ValueError(f"the tests are not zlib data ({error})") from None
    if stream.unconsumed_tail:
        raise ValueError(f"the tests are larger than {limit} bytes unpacked")
    if not stream.eof:
        raise ValueError("the tests are cut off: the zlib data has no end")
    return _unpickled(data)


def _unpickled(data: bytes) -> str:
    try:
        for opcode, _, _ in pickletools.genops(data):
            if opcode.name not in _TEXT_ONLY:
                raise pickle.UnpicklingError(f"it holds {opcode.name}, which a text does not")
        value = _NoGlobals(io.BytesIO(data)).load()
    except Exception as error:  # a broken pickle can raise nearly anything
        raise ValueError(f"the tests are not the pickle of a text ({error})") from None
    if not isinstance(value, str):
        raise ValueError(f"the tests are the pickle of a {type(value).__name__}, not of a text")
    return value


class _NoGlobals(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for a persistent id")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the tests are not JSON ({str(error).partition(';')[0]})") from None
