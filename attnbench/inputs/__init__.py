"""What methods are measured on: models and tasks by name, the Hub, folders, YAML files, settings.

May import `methods`, and neither torch nor a library of data at the top of a file, so that `attnbench
models`, `tasks` and `--dry-run` answer at once. Begin with `models.py` and `tasks.py`, which find one by
its name.
"""
