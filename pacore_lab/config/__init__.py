"""Hydra, and only here.

schema    the root keys, and where Hydra finds the groups
build     from a composed config to a `Run`
calling   `run(...)` and `composed(...)`, called from Python
stored    from the settings of a finished run back to its parts
command   Hydra's main, and one line for a user's mistake
spelling  the words of the command line
"""
