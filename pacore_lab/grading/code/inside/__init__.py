"""Runs inside the sandbox. Imports only the standard library and siblings: nothing else of the lab is visible there."""
