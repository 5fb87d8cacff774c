"""What a run leaves behind: a line per episode, in a folder from which it resumes.

line    an episode's line of results.jsonl
kept    what a round's messages kept of its trajectories
folder  the run folder: settings, versions, results.jsonl as it grows
grades  the lines of a finished run, with its own grades or those of a regrading
disk    files that are written whole or not at all
"""
