"""PaCoRe Lab: test-time compute for language models, one swappable part at a time (PaCoRe, arXiv 2601.05593)."""

__version__ = "0.1.0"
