"""The Hub: what is in its cache, whether it answers, and fetching a checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from attnbench.errors import UserError


def download(repository: str, patterns: Sequence[str], instead: str) -> str:
    """Return the local folder of a repository, fetching it where it is not there yet.

    Raises UserError where it cannot be had, naming what can be used `instead`.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError):
        folder = snapshot_download(repository, local_files_only=True)
        if whole(Path(folder)):
            return folder
    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        raise UserError(
            f"model '{repository}' is not, or not wholly, in {constants.HF_HUB_CACHE} and the Hub cannot be "
            f"reached. Set HF_HOME to a home that has it, or use {instead}."
        )
    try:
        return snapshot_download(repository, allow_patterns=list(patterns))
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"model '{repository}' cannot be downloaded: {str(error).splitlines()[0]}") from error


def whole(folder: Path) -> bool:
    """Tell whether a cached checkpoint has its config and weights: others fetch a tokenizer alone."""
    names = {file.name for file in folder.iterdir()}
    sharded = [json.loads(index.read_text(encoding="utf-8")) for index in folder.glob("*.index.json")]
    if sharded:
        weights = any(names >= set(index["weight_map"].values()) for index in sharded)
    else:
        weights = any(name.endswith((".safetensors", ".bin")) for name in names)
    return weights and "config.json" in names


def reachable(url: str, seconds: float = 3.0) -> bool:
    """Tell whether a host answers at all, so that no library has to find out by retrying."""
    import socket
    from urllib.parse import urlsplit

    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 443), timeout=seconds).close()
    except OSError:
        return False
    return True
