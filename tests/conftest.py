"""Fixtures that several test modules share."""

from tests.tiny_hf import folder, net, tokenizer

__all__ = ["folder", "net", "tokenizer"]
