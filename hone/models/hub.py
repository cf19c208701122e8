"""Downloads from the Hugging Face hub: the small files first, the weights only when those are in order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from huggingface_hub import DryRunFileInfo, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from hone.core.disk import free_bytes, size
from hone.core.errors import HoneError
from hone.models.locate import near
from hone.models.safety import check_weights
from hone.plan.headers import INDEX, shards

SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")
BESIDE = ("adapter_model.safetensors", "golden.safetensors")
"""What an adapter is read from, besides."""
SPARE = 1.02
"""Room to leave: a download is written beside its final name."""


class NoBar(tqdm):
    """A progress bar for work that is too short to be watched."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw | {"disable": True})


class Listing(NamedTuple):
    """A model's files at the top level of its repository, at one commit; sizes in bytes are those still to be downloaded."""

    name: str
    commit: str
    sizes: dict[str, int]


def fetch_small(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> tuple[Path, Listing | None]:
    """Download all but the weights. Returns the folder and the listing, or no listing where only the cache could be asked.

    Raises M006, M008 for weights that cannot be trained or trusted, M009 for an unknown name or revision, M016 where the
    hub cannot be reached, M017 where it refuses.
    """
    listing = _list(name, revision)
    if listing is None:
        return _cached(name, revision), None
    check_weights(listing.sizes, where=f"{name} on the hub")
    suffixes = (*SMALL, ".py") if trust_remote_code else SMALL
    wanted = [file for file in listing.sizes if file.endswith(suffixes)]
    return _download(listing, wanted), listing


def fetch_adapter(name: str) -> Path | None:
    """Download an adapter with its tokenizer and certificate; None where a whole model has this name. Raises M009, M016, M017."""
    listing = _list(name, None)
    if listing is None:
        folder = _cached(name, None)
        return folder if _is_adapter(file.name for file in folder.iterdir()) else None
    if not _is_adapter(listing.sizes):
        return None
    return _download(listing, [file for file in listing.sizes if file.endswith(SMALL) or file in BESIDE])


def _is_adapter(files: Iterable[str]) -> bool:
    names = set(files)
    return "adapter_config.json" in names and "config.json" not in names


def fetch_weights(folder: Path, listing: Listing) -> Path:
    """Download exactly the weight files that will be read. Raises M018 where the disk is too small."""
    one = "model.safetensors"
    wanted = [one] if one in listing.sizes else sorted(set(shards(folder).values()))
    absent = [file for file in wanted if file not in listing.sizes]
    if absent:
        raise HoneError("M005", f"{INDEX} lists {absent[0]}, which is not on the hub", where=listing.name, fix="tell the model's owner")
    needed, free = int(sum(listing.sizes[file] for file in wanted) * SPARE), free_bytes(folder)
    if needed > free:
        what = f"{listing.name} needs {size(needed)} of disk and {size(free)} are free"
        raise HoneError("M018", what, where=str(folder), fix="free some space, or set HF_HOME to a folder on a larger disk")
    return _download(listing, wanted)


def _list(name: str, revision: str | None) -> Listing | None:
    """Ask the hub for the names and sizes of a model's files; None where the hub cannot be reached."""
    try:
        files = snapshot_download(name, revision=revision, dry_run=True, ignore_patterns=["*/*"], tqdm_class=NoBar)
    except DryRunError as error:
        if isinstance(error.__cause__, HfHubHTTPError) and error.__cause__.response.status_code < 429:
            _refused(error.__cause__, name, revision)
        return None
    except HfHubHTTPError as error:
        _refused(error, name, revision)
    commits = {file.commit_hash for file in files}
    assert len(commits) <= 1, "one revision has one commit"
    return Listing(name, next(iter(commits), ""), {file.filename: _to_download(file) for file in files})


def _to_download(file: DryRunFileInfo) -> int:
    return (file.file_size or 0) if file.will_download else 0


def _refused(error: HfHubHTTPError, name: str, revision: str | None) -> NoReturn:
    """What the hub's answer means for the person who asked."""
    if isinstance(error, GatedRepoError):
        fix = f"ask for access at https://huggingface.co/{name}, then run `hf auth login` or set HF_TOKEN"
        raise HoneError("M017", f"the hub gives '{name}' only to people who accepted its terms", where="model.name", fix=fix) from None
    if isinstance(error, RevisionNotFoundError):
        what = f"'{name}' has no revision '{revision}'"
        fix = "use a branch, a tag or a commit hash; main is the usual branch"
        raise HoneError("M009", what, where="model.revision", fix=fix) from None
    if isinstance(error, RepositoryNotFoundError):
        what = f"'{name}' is neither a folder here nor a model on the hub that you may see"
        fix = near(Path(name)) or "check the name; for a private model, run `hf auth login` or set HF_TOKEN"
        raise HoneError("M009", what, where="model.name", fix=fix) from None
    what = f"the hub refused '{name}' (HTTP {error.response.status_code})"
    raise HoneError("M017", what, where="model.name", fix="check the token in HF_TOKEN, or run `hf auth login`") from None


def _cached(name: str, revision: str | None) -> Path:
    """The copy of an earlier download."""
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=["config.json"]))
    except LocalEntryNotFoundError:
        what = f"the hub cannot be reached, and '{name}' is neither a folder here nor downloaded before"
        fix = near(Path(name)) or "check the network, unset HF_HUB_OFFLINE, or give the path of a folder"
        raise HoneError("M016", what, where="model.name", fix=fix) from None


def _download(listing: Listing, names: Iterable[str]) -> Path:
    """Fetch files of one commit into the cache; what is there already is not fetched again."""
    try:
        return Path(snapshot_download(listing.name, revision=listing.commit, allow_patterns=list(names)))
    except HfHubHTTPError as error:
        _refused(error, listing.name, listing.commit)
    except (LocalEntryNotFoundError, ConnectionError) as error:
        what = f"the download of '{listing.name}' broke off ({type(error).__name__})"
        raise HoneError("M016", what, where="model.name", fix="run the same command again; what has arrived is kept") from None
