"""The command line: a file for each command, with `add_arguments` and `execute`.

May import every wing but `pocket`; what is heavy only inside `execute`, because `--help` has to answer at
once. Begin with `main.py`, then `run.py`. `parsing.py` and `screen` are what commands share,
`manual.py` writes docs/commands.md.
"""
