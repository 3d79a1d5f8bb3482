"""The size of a model on the hub, compared with the free disk before anything is downloaded."""

import shutil
from pathlib import Path

from cai_base.engines import EngineError

READ = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""The files of a model that are downloaded, apart from those in folders and the copies in the authors' own format."""
NOT_READ = ("*/*", "consolidated*")
GIGABYTE = 1e9


def check_download(name: str) -> None:
    """Check that what a hub id's files still lack on this machine has a place on its disk.

    A hub that does not answer says nothing here: loading the model says why, or takes what the cache has.

    Raises:
        EngineError: the files are larger than the free disk.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        files = snapshot_download(name, allow_patterns=[*READ], ignore_patterns=[*NOT_READ], dry_run=True)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, RuntimeError):
        return
    size = sum(file.file_size or 0 for file in files if file.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    place = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if size > free:
        reason = f"{size / GIGABYTE:,.1f} GB are to be downloaded, and {free / GIGABYTE:,.1f} GB are free at {place}"
        raise EngineError("model", name, reason, "make room, set HF_HOME to a larger disk, or give a smaller model")
