"""The child process that reads model text as mathematics. `readers.py` runs it as a script; it imports no lab module.

Each input line is a JSON list of questions. Each question gets an output line, {"reply": ...} or {"error": text}, as
soon as it is answered; the very first line says whether math-verify could be loaded. Questions: ["equal", gold, answer,
mutual] -> bool; ["fingerprint", answer] -> see `_fingerprint`. math-verify's own timeouts use SIGALRM, which does not
stop a long C call, so they are off: the parent kills this process when its time is up.
"""

from __future__ import annotations

import cmath
import fractions
import functools
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
MAX_PARSED = 2048
MAX_EXPONENT = 10_000
MAX_BITS = 13_000
"""Keeps numerator and denominator within the 4,300 digits that Python converts between int and text."""


def confine(memory_mb: int, parent: int) -> None:
    """Die with the parent, ignore its Ctrl-C, and raise MemoryError beyond `memory_mb` of address space (POSIX)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getppid() != parent:  # the parent died before prctl
        sys.exit(0)


class OutOfMemory(BaseException):
    """A MemoryError that `except Exception` does not catch."""


def let_memory_errors_through() -> None:
    """Keep math-verify from turning a MemoryError into "not equal", as each of its `except Exception` would.

    Its parser raises OutOfMemory instead, and its grader sees an `Exception` that excludes MemoryError.
    """
    import math_verify.grader
    import math_verify.parser

    latex2sympy = math_verify.parser.latex2sympy

    def guarded(*arguments: Any, **keywords: Any) -> Any:
        try:
            return latex2sympy(*arguments, **keywords)
        except MemoryError as error:
            raise OutOfMemory from error

    math_verify.parser.latex2sympy = guarded
    math_verify.grader.Exception = tuple(kind for kind in Exception.__subclasses__() if kind is not MemoryError)


@functools.lru_cache(maxsize=MAX_PARSED)
def parsed(answer: str) -> list[Any]:
    """math-verify's reading of an answer, [] if it has none. Only as LaTeX: its other readers guess, or call `eval`."""
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    found = parse(f"\\boxed{{{answer}}}", config, fallback_mode="no_fallback", parsing_timeout=None)
    return [_imaginary(one) for one in found]


def _imaginary(expression: Any) -> Any:
    """The expression with i as the imaginary unit; math-verify takes i for a variable."""
    import sympy  # type: ignore[import-untyped]

    if not isinstance(expression, sympy.Basic) or expression.has(sympy.Sum, sympy.Product, sympy.Function):
        return expression
    return expression.xreplace({symbol: sympy.I for symbol in expression.free_symbols if symbol.name == "i"})


@functools.lru_cache(maxsize=MAX_PARSED)
def value(answer: str) -> complex | None:
    """The numerical value of an answer that is a single number, else None."""
    expressions = parsed(answer)
    if len(expressions) != 1 or not getattr(expressions[0], "is_number", False):
        return None
    try:
        number = complex(expressions[0].evalf(15))
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if cmath.isfinite(number) else None


def far_apart(first: complex, second: complex) -> bool:
    """Whether two values differ by more than math-verify's rounding forgives (six places): no symbolic check needed."""
    return abs(first - second) > 1e-5 * max(1.0, abs(first), abs(second))


def equal(gold: str, answer: str, mutual: bool) -> bool:
    """math-verify's verdict. It is not symmetric; `mutual` asks in both directions."""
    from math_verify import verify

    first, second = value(gold), value(answer)
    if first is not None and second is not None and far_apart(first, second):
        return False
    left, right = parsed(gold), parsed(answer)
    return bool(verify(left, right, timeout_seconds=None) and (not mutual or verify(right, left, timeout_seconds=None)))


def fingerprint(answer: str) -> dict[str, Any] | None:
    """`_fingerprint`, or None if sympy cannot evaluate the answer."""
    try:
        return _fingerprint(answer)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return None


def _fingerprint(answer: str) -> dict[str, Any] | None:
    """Numbers that equal answers share up to rounding, so that unlike answers need no comparison; None without any.

    {"exact": "p/q"} for a rational number, else {"kind": text, "at": [[real, imaginary], ...]}. "at" holds a constant's
    value twice, an expression's values at two points, an equation's or inequality's ratios between points (free of a
    common factor), or the values of a matrix's entries. Each symbol gets a positive number derived from its name; i is
    the imaginary unit.
    """
    import sympy

    expressions = parsed(answer)
    if not expressions:
        return None
    expression = expressions[0]
    if isinstance(expression, sympy.Expr):
        if _is_too_large(expression):
            return None
        if expression.is_number and (exact := _rational(expression)) is not None:
            return {"exact": exact}
        return _print("value", [_at(expression, 0), _at(expression, 1)])
    if isinstance(expression, sympy.core.relational.Relational):
        difference = expression.lhs - expression.rhs
        if not isinstance(difference, sympy.Expr) or _is_too_large(difference):
            return None
        values = [_at(difference, point) for point in range(3)]
        if None in values or min(abs(value) for value in values) < 1e-6:  # type: ignore[arg-type]
            return None
        return _print("relation", [values[1] / values[0], values[2] / values[0]])  # type: ignore[operator]
    if isinstance(expression, sympy.MatrixBase) and len(expression) <= 64:
        if any(_is_too_large(entry) for entry in expression.flat()):
            return None
        rows, columns = expression.shape
        return _print(
            f"matrix {rows} x {columns}", [_at(entry, point) for entry in expression.flat() for point in (0, 1)]
        )
    return None


def _print(kind: str, values: list[complex | None]) -> dict[str, Any] | None:
    numbers = [[value.real, value.imag] for value in values if value is not None]
    return {"kind": kind, "at": numbers} if len(numbers) == len(values) else None


def _at(expression: Any, point: int) -> complex | None:
    """The expression's value at a point: each symbol is a number between 0.5 and 1.5, another one at each point."""
    places = {symbol: _place(symbol.name, point) for symbol in expression.free_symbols}
    try:
        number = complex(expression.subs(places).evalf(15, maxn=100))
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        return None
    return number if cmath.isfinite(number) else None


def _place(name: str, point: int) -> Any:
    import sympy

    if name == "i":
        return sympy.I
    drawn = int.from_bytes(hashlib.sha256(f"{point} {name}".encode()).digest()[:4], "big")
    return sympy.Rational(drawn, 2**32) + sympy.Rational(1, 2)


def _is_too_large(expression: Any) -> bool:
    """Whether a power, factorial or binomial would take too long to write out. Inner exponents are checked first."""
    import sympy

    for part in sympy.postorder_traversal(expression):
        if isinstance(part, sympy.Pow):
            argument = part.exp
        elif isinstance(part, sympy.factorial | sympy.gamma | sympy.binomial):
            argument = part.args[0]
        else:
            continue
        if argument.is_number:
            size = argument.evalf(5, maxn=50)
            if not (size.is_comparable or size.is_complex) or abs(complex(size)) > MAX_EXPONENT:
                return True
    return False


def _rational(expression: Any) -> str | None:
    """A number's exact value as "p/q" if evaluation, or `equals`, shows that it is rational; else None."""
    import sympy

    found = expression.doit()
    if not found.is_Rational:
        value = _at(found, 0)
        if found.has(sympy.Float) or value is None or abs(value.imag) > 1e-12:
            return None
        near = sympy.Rational(fractions.Fraction(value.real).limit_denominator(10_000))
        if abs(value.real - float(near)) > 1e-12 * max(1.0, abs(value.real)) or not found.equals(near):
            return None
        found = near
    return f"{found.p}/{found.q}" if max(abs(found.p), found.q).bit_length() < MAX_BITS else None


OPERATIONS: dict[str, Callable[..., Any]] = {"equal": equal, "fingerprint": fingerprint}


def reply(question: list[Any]) -> dict[str, Any]:
    operation, *arguments = question
    try:
        return {"reply": OPERATIONS[operation](*arguments)}
    except (MemoryError, OutOfMemory):
        return {"error": "grader ran out of memory"}
    except Exception as error:
        return {"error": f"grader failed: {type(error).__name__}"}


def main() -> None:
    memory_mb, parent = (int(argument) for argument in sys.argv[1:3])
    # A library's printing is discarded; the answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        confine(memory_mb, parent)
        let_memory_errors_through()
        first = reply(["equal", "x", "\\sqrt{2}", True])  # builds the parser's tables
    except Exception as error:
        first = {"error": f"grader cannot start: {error!r}"}
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        for question in json.loads(line):
            print(json.dumps(reply(question)), file=answers, flush=True)


if __name__ == "__main__":
    main()
