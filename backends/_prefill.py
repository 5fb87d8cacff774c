"""Whether a server can continue an assistant's turn, as if the model had written it, and how to ask for that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from backends._session import Session
from backends.chat_wire import plain
from pacore_lab.errors import BackendError

FIELDS: Mapping[str, Mapping[str, Any]] = {
    "vLLM": {"continue_final_message": True, "add_generation_prompt": False},
    "SGLang": {"continue_final_message": True},
}
"""The extra fields of a request to continue a turn, by engine."""
ASKED = {"role": "user", "content": "1 + 1?"}
BEGUN = "<think>\nHm.\n</think>\n\nIt is "
"""The start of an answer that templates like to rewrite: it has a thought, and a space at its end."""


async def continuation(
    session: Session, root: str, engine: str, model: str, template: Mapping[str, Any]
) -> tuple[Mapping[str, Any], str]:
    """The request fields that make a server continue an assistant's turn (none if it cannot), and how that is known.

    engine: its name and version. The server's own /tokenize shows whether its chat template leaves the turn unchanged:
    many templates add an empty thought to it or remove the thought. Never fails.
    """
    fields = FIELDS.get(engine.partition(" ")[0])
    if fields is None:
        return {}, "not known for this engine"
    common = {"model": model, **({"chat_template_kwargs": dict(template)} if template else {})}
    begun = {**common, "messages": [ASKED, {"role": "assistant", "content": BEGUN}], **fields}
    try:
        opening = await _tokens(session, root, {**common, "messages": [ASKED]})
        text = await _tokens(session, root, {"model": model, "prompt": BEGUN, "add_special_tokens": False})
        whole = await _tokens(session, root, begun)
    except (BackendError, ValueError, KeyError, TypeError) as error:
        return {}, plain(f"not shown by /tokenize: {error}")
    if whole != opening + text:
        return {}, "its chat template rewrites an assistant's turn"
    return fields, "continues an assistant's turn unchanged, by /tokenize"


async def _tokens(session: Session, root: str, ask: Mapping[str, Any]) -> list[int]:
    parts = urlsplit(root)
    _, raw, refusal = await session.get(f"{parts.scheme}://{parts.netloc}/tokenize", json.dumps(ask).encode())
    if refusal is not None:
        raise refusal
    tokens = json.loads(raw)["tokens"]
    if not isinstance(tokens, list) or not tokens:
        raise ValueError("it gives no tokens")
    return tokens
