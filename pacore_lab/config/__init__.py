"""Hydra, and only here.

schema    the root keys, and where the groups are found
build     from a composed config to a `Run`
stored    from the settings of a finished run back to its parts
command   Hydra's main, and users' mistakes as one line
spelling  the words of the command line
"""
