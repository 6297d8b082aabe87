"""Shared fixtures: tiny models that are built, not loaded, and a registry that forgets what a test added."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def fresh_registry():
    """Let a test load plugins that no other test sees."""
    from attnbench import plugins

    before, modules = plugins._registry, set(sys.modules)
    plugins._registry = None
    yield plugins
    plugins._registry = before
    for name in set(sys.modules) - modules:
        if name.startswith("attnbench_plugin_"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and checkpoints, where there is one."""
    folder = Path(os.environ.get("ATTNBENCH_SHARED", ROOT.parent / "shared"))
    if not (folder / "models" / "minilm-sst2").is_dir():
        pytest.skip("no folder of real checkpoints: set ATTNBENCH_SHARED")
    return folder
