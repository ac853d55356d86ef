"""Files from the Hub and from web servers, each verified; the only file that imports huggingface_hub.

A download that was cut off goes on where it stopped, in this process or the next: huggingface_hub's own `hf_hub_download` begins anew
after a kill (seen with 2.4), which hurts with archives of 13 GB; so its `http_get` is given our own unfinished file. What arrives is
compared with what its server promised: size and SHA-256 of large files, the git object's SHA-1 of small ones, md5 where the catalogue
states it. A file that differs is removed.
"""

import hashlib
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers

from data_prep.fetch.catalogue import WebFile
from data_prep.samples import DataError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FAILURES = (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, OSError)
_AGAIN = "Check name, revision, network and access (gated sets need a token: hf auth login), then run the same command again: it goes on"


@dataclass(frozen=True)
class Digest:
    """A file's digest as promised: `kind` is sha256, md5 or git (SHA-1 of git's blob)."""

    kind: str
    value: str


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at one commit."""

    path: str
    bytes: int
    digest: Digest


def commit_of(repo: str, revision: str) -> str:
    """The commit that a branch, tag or commit of a dataset repository names.

    Raises:
        DataError: no such repository or revision, no access, no network.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return HfApi().dataset_info(repo, revision=revision).sha
    except _FAILURES as error:
        raise DataError(_failed(f"{repo} at {revision}", error)) from error


def files_of(repo: str, commit: str) -> list[RemoteFile]:
    """Every file of a dataset repository at a commit.

    Raises:
        DataError: as `commit_of`.
    """
    try:
        tree = HfApi().list_repo_tree(repo, recursive=True, revision=commit, repo_type="dataset")
        found = [entry for entry in tree if isinstance(entry, RepoFile)]
    except _FAILURES as error:
        raise DataError(_failed(f"{repo} at {commit}", error)) from error
    return [RemoteFile(f.path, f.size, Digest("sha256", f.lfs.sha256) if f.lfs else Digest("git", f.blob_id)) for f in found]


def matching(files: list[RemoteFile], pattern: str, where: str) -> list[RemoteFile]:
    """The files whose path fits a shell pattern, macOS leftovers left out.

    Raises:
        DataError: none does.
    """
    found = [file for file in files if fnmatchcase(file.path, pattern) and not file.path.rsplit("/", 1)[-1].startswith("._")]
    if not found:
        raise DataError(
            f"{where}: found no file {pattern} among its {len(files)} files; expected some. The repository's layout has changed: name the "
            "--revision that the catalogue was written for, or mend data_prep/fetch/catalogue.py"
        )
    return found


def from_hub(repo: str, commit: str, file: RemoteFile, folder: Path) -> Path:
    """Download one file of a repository to the same path below `folder`, and verify it.

    Raises:
        DataError: the download failed (what has arrived is kept), or it is not the file that was promised (it is removed).
    """
    path = folder / file.path
    try:
        headers = build_hf_headers()
        _download(hf_hub_url(repo, file.path, repo_type="dataset", revision=commit), path, headers, file.bytes)
    except _FAILURES as error:
        raise DataError(_failed(f"{repo}/{file.path}", error)) from error
    verify(path, file.digest, f"{repo}/{file.path}", file.bytes)
    return path


def from_web(file: WebFile, folder: Path) -> Path:
    """Download one file of a web server into `folder`, and verify it; a file that someone put there is verified all the same.

    Raises:
        DataError: as `from_hub`.
    """
    path = folder / file.name
    try:
        _download(file.url, path)
    except _FAILURES as error:
        raise DataError(f"{_failed(file.url, error)}. Or download it by other means, to {path}") from error
    verify(path, Digest("md5", file.md5), file.url)
    return path


def _download(url: str, path: Path, headers: dict[str, str] | None = None, size: int | None = None) -> None:
    """Bring `path` about, unless it is there: first under another name, where a later call goes on."""
    partial = path.with_name(f".{path.name}.incomplete")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as out:
            if size is not None and out.tell() > size:
                out.truncate(0)
            try:
                http_get(url, out, resume_size=out.tell(), headers=headers, expected_size=size, displayed_filename=path.name)
            except HfHubHTTPError as error:
                if error.response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not out.tell():
                    raise
                # the unfinished file was whole already: its digest will tell
            except OSError as error:
                if error.errno is None:  # not this machine's fault: the answer was whole, and of another length than promised
                    partial.unlink()
                raise
        partial.rename(path)
    partial.unlink(missing_ok=True)


def verify(path: Path, digest: Digest, what: str, size: int | None = None) -> None:
    """Compare a file with what was promised of it.

    Raises:
        DataError: it differs; it has been removed.
    """
    found = digest_of(path, digest.kind)
    if (size is None or path.stat().st_size == size) and found == digest.value:
        return
    length = path.stat().st_size
    path.unlink()
    raise DataError(
        f"{what}: found {length} bytes with {digest.kind} {found}; expected {'' if size is None else f'{size} bytes with '}{digest.value}. "
        "The file is removed: run the same command again; if it happens twice, what is published has changed or is changed on its way"
    )


def digest_of(path: Path, kind: str) -> str:
    """A file's digest of one of `Digest.kind`, in hexadecimal digits."""
    with path.open("rb") as file:
        if kind != "git":
            return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        state = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        while chunk := file.read(2**20):
            state.update(chunk)
        return state.hexdigest()


def _failed(what: str, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{what}: could not be downloaded ({type(error).__name__}: {first}). {_AGAIN} where this one stopped"
