"""Checkpoint folders on disk: flushed, committed by one rename, verified, pruned. File work alone: no ranks, no DeepSpeed.

    .tmp-step-<n>    being written, or left behind by a job that died; never read
    step-<n>         committed: its manifest names every file with its SHA-256, and carries its own
    refused-step-<n> was committed, but no longer holds what its manifest says; set aside, never read

The rename to `step-<n>` is the commit. It comes after every file, the manifest and the folders themselves are flushed to disk, so that
neither a killed process nor a machine that lost power leaves a checkpoint that looks whole and is not. There is no `latest` pointer that
could name a torn one. The digests find accidents, not a forger who can write both files and manifest: loading unpickles, so the folder
must be one's own.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from data_prep.samples import DataError
from data_prep.shards import file_digest, write_json

MANIFEST = "manifest.json"
OWN_DIGEST = "manifest_sha256"
"""The manifest's key for the digest of everything else in it."""


def folder_name(step: int) -> str:
    """Name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def temporary_folder(root: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps is written before its commit."""
    return root / f".tmp-{folder_name(step)}"


def committed(root: Path) -> list[Path]:
    """Every committed checkpoint of a run, from the fewest steps to the most; whether they are still whole, `read` finds out."""
    return sorted(path for path in root.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name))


def newest(root: Path) -> Path | None:
    """The committed checkpoint with the most steps, None where there is none."""
    return max(committed(root), default=None)


def new_temporary(root: Path, step: int) -> Path:
    """An empty folder for the checkpoint after `step` steps; what jobs that died left half-written or half-removed goes.

    Raises:
        OSError: the disk refused.
    """
    for path in root.glob(".tmp-*"):
        shutil.rmtree(path)
    temporary = temporary_folder(root, step)
    temporary.mkdir(parents=True)
    _flush_folder(root.parent)  # it names root, which may be new
    return temporary


def file_names(folder: Path) -> set[str]:
    """Everything in a checkpoint but folders and the manifest, relative to it; links too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()} - {MANIFEST}


def flush(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Flush files to disk; returns their SHA-256 by name.

    Raises:
        OSError: one could not be flushed or read.
    """
    out = {}
    for name in names:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
            out[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return out


def commit(temporary: Path, target: Path, manifest: dict) -> None:
    """Make a folder of flushed files a checkpoint; `manifest["files"]` holds their digests by name.

    Raises:
        OSError: the folder holds other files than these, or the disk refused a write. `target` is then what it was, or the new one.
    """
    if difference := sorted(file_names(temporary) ^ manifest["files"].keys()):
        raise OSError(f"{temporary}: {difference[0]} is there without a digest, or not there")
    write_json(temporary / MANIFEST, manifest | {OWN_DIGEST: _digest(manifest)})
    for path in temporary.rglob("*"):
        if path.is_dir():
            _flush_folder(path)
    _flush_folder(temporary)
    if target.exists():  # the same step once more: what is there goes out of the way whole, and is removed with the next leftovers
        os.replace(target, target.with_name(f".tmp-old-{target.name}"))
    os.replace(temporary, target)
    _flush_folder(target.parent)


def read(folder: Path) -> dict:
    """The manifest of a checkpoint that is, byte for byte, what was committed.

    Raises:
        DataError: a file is missing, altered, a link or not in the manifest, the manifest itself was altered, or the folder renamed.
    """
    manifest = read_manifest(folder)
    files = manifest["files"]
    found = file_names(folder)
    for name in sorted(found | files.keys()):
        path = folder / name
        if name not in files:
            raise _refusal(path, "a file that the manifest does not name")
        if name not in found:
            raise _refusal(path, "that it is missing")
        if _leads_elsewhere(folder, name) or not path.is_file():
            raise _refusal(path, "a link or a special file")
        try:
            same = file_digest(path) == files[name]
        except OSError as error:
            raise _refusal(path, f"that it cannot be read ({error})") from error
        if not same:
            raise _refusal(path, "other bytes than the manifest says")
    return manifest


def set_aside(folder: Path) -> Path:
    """Rename a checkpoint that `read` refuses, so that it is neither read nor counted again; returns its new place."""
    place = folder.with_name(f"refused-{folder.name}")
    if place.exists():
        shutil.rmtree(place)
    os.replace(folder, place)
    return place


def prune(root: Path, keep: int, best: Path | None = None) -> None:
    """Remove all but the newest `keep` checkpoints and `best`. A folder vanishes by one rename, so that none is ever half there."""
    for path in committed(root)[:-keep]:
        if path != best:
            doomed = path.with_name(f".tmp-old-{path.name}")
            with suppress(OSError):  # one checkpoint too many does no harm
                os.replace(path, doomed)
                shutil.rmtree(doomed)


def read_manifest(folder: Path) -> dict:
    """The manifest of a checkpoint whose other files may or may not be whole.

    Raises:
        DataError: it is missing or altered, or the folder was renamed.
    """
    path = folder / MANIFEST
    if folder.is_symlink() or path.is_symlink():
        raise _refusal(path, "a link")
    try:
        text = path.read_text()
        manifest = json.loads(text)
        own = manifest.pop(OWN_DIGEST)
        whole = own == _digest(manifest) and text == _text(manifest | {OWN_DIGEST: own})
        step = manifest["step"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _refusal(path, f"no readable manifest ({type(error).__name__}: {error})") from error
    if not whole:
        raise _refusal(path, "another manifest than the one written (its own digest differs)")
    if folder.name != folder_name(step):
        raise _refusal(folder, f"the checkpoint of step {step} under another name")
    return manifest


def _refusal(path: Path, found: str) -> DataError:
    return DataError(
        f"{path}: found {found}; expected the checkpoint as it was committed, so nothing was loaded. Resume with `--resume auto`, which "
        "sets it aside and takes the one before, or put the right files back"
    )


def _leads_elsewhere(folder: Path, name: str) -> bool:
    """Whether the file or a folder on the way to it is a link."""
    path = folder / name
    return any(part.is_symlink() for part in (path, *path.parents) if part.is_relative_to(folder))


def _text(manifest: dict) -> str:
    """As `write_json` writes it."""
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"


def _digest(manifest: dict) -> str:
    return hashlib.sha256(_text(manifest).encode()).hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
