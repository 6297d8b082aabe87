"""The Hub: what is in its cache, whether it answers, and fetching a checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from attnbench.errors import UserError
from attnbench.inputs import adapters


def download(
    repository: str,
    patterns: Iterable[str],
    instead: str,
    *,
    weights: Sequence[str] = ("*.safetensors",),
    own_code: bool = False,
) -> str:
    """Return the local folder of a repository, fetching it where it is not there yet.

    Of `weights`, patterns of formats, only the first that the repository has is fetched; `own_code`: its
    Python too. Raises UserError where it cannot be had, naming what can be used `instead`.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with contextlib.suppress(LocalEntryNotFoundError):
            folder = snapshot_download(repository, local_files_only=True)
            if whole(Path(folder), own_code):
                return folder
    except HFValidationError as error:
        raise UserError(f"model '{repository}' is no Hub id: {str(error).splitlines()[0]}") from error
    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        raise UserError(
            f"model '{repository}' is not, or not wholly, in {constants.HF_HUB_CACHE} and the Hub cannot be "
            f"reached. Set HF_HOME to a home that has it, or use {instead}."
        )
    wanted = [*patterns, *(["*.py"] if own_code else [])]
    try:
        folder = snapshot_download(repository, allow_patterns=[*wanted, weights[0]])
        if weights[1:] and not any(Path(folder).glob(weights[0])):  # only then is the Hub asked again
            folder = snapshot_download(repository, allow_patterns=[*wanted, *weights])
        return folder
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"model '{repository}' cannot be downloaded: {str(error).splitlines()[0]}") from error


def whole(folder: Path, own_code: bool = False) -> bool:
    """Tell whether a cached checkpoint has its config and weights: others fetch a tokenizer alone.

    With `own_code` also the Python files that its config and tokenizer name. One with a file
    that cannot be read is not whole.
    """
    names = {file.name for file in folder.iterdir()}
    if adapters.CONFIG in names and names & set(adapters.WEIGHTS):
        return True
    try:
        sharded = [json.loads(index.read_text(encoding="utf-8")) for index in folder.glob("*.index.json")]
        if sharded:
            weights = any(names >= set(index["weight_map"].values()) for index in sharded)
        else:
            weights = any(name.endswith((".safetensors", ".bin")) for name in names)
        return weights and "config.json" in names and (not own_code or names >= _own_files(folder))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # no JSON, or of another shape
        return False


def _own_files(folder: Path) -> set[str]:
    """Name the files of code in `auto_map`, as in {"AutoModel": "own.Model"}; OTHER/REPOSITORY--own.Model is
    in another repository."""
    found: set[str] = set()
    for file in ("config.json", "tokenizer_config.json"):
        if (folder / file).is_file():
            named = json.loads((folder / file).read_text(encoding="utf-8")).get("auto_map") or {}
            values = named.values() if isinstance(named, dict) else [named]
            each = [place for value in values for place in (value if isinstance(value, list) else [value])]
            found |= {f"{place.partition('.')[0]}.py" for place in each if place and "--" not in place}
    return found


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
