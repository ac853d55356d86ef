"""Join prepared data sets into one, or deal one out into several, shard by shard: no row is encoded again, no byte of a shard changes.

The order of the shards is by source, then by name, whatever the order of the arguments; so merging what was split gives the same manifest.
Shard files are hard links where the file system allows it, copies elsewhere, and each is digested in its new place.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

from data_prep.disk import disk_errors
from data_prep.samples import DataError
from data_prep.shards import (
    Manifest,
    ShardRecord,
    atomic_folder,
    file_digest,
    load_manifest,
    open_shard,
    record_path,
    write_json,
    write_manifest,
)

Owned = tuple[Path, ShardRecord]


def merge(folders: Sequence[Path], out: Path) -> Manifest:
    """One data set of all rows of several; sources of one name are joined where they are parts of one preparation.

    Raises:
        DataError: `out` is there, the sets were encoded by different rules, share a row, or hold different data under one name; a shard
            is damaged; the disk is full.
    """
    manifests = {folder: load_manifest(folder) for folder in folders}
    if len(manifests) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise DataError(f"found {', '.join(map(str, folders))}; expected two or more different folders of shards to merge")
    fingerprint = _joined(manifests)
    owned = [(folder, shard) for folder, manifest in manifests.items() for shard in manifest.shards]
    _check_rows(owned)
    _check_free(out)
    _check_apart([*folders, out])
    return _write(out, fingerprint, owned)


def split(folder: Path, outs: Sequence[Path]) -> list[Manifest]:
    """Deal the shards of every source out to `outs` in turn, so that each gets its share of every source that has enough of them.

    Raises:
        DataError: fewer shards than folders, one of `outs` is there, a shard is damaged, or the disk is full.
    """
    manifest = load_manifest(folder)
    hands: list[list[Owned]] = [[] for _ in outs]
    for turn, shard in enumerate(sorted(manifest.shards, key=lambda shard: (shard.source, shard.name))):
        hands[turn % len(outs)].append((folder, shard))
    if not all(hands) or len(outs) < 2:
        raise DataError(
            f"{folder}: found {len(manifest.shards)} shards, expected 2 parts or more and a shard at least for each of {len(outs)}; "
            "prepare with smaller --rows-per-shard, or name fewer parts"
        )
    _check_apart([folder, *outs])
    for out in outs:
        _check_free(out)
    return [_write(out, _restricted(manifest, hand), hand) for out, hand in zip(outs, hands, strict=True)]


def _joined(manifests: dict[Path, Manifest]) -> dict:
    """The fingerprint of all together; entries of which there can be only one must agree."""
    (first, reference), *others = manifests.items()
    joined = dict(reference.fingerprint)
    data = dict(joined.get("data", {}))
    for folder, manifest in others:
        own = manifest.fingerprint
        differ = sorted(key for key in {*own, *joined} - {"data", "rows_per_shard"} if own.get(key) != joined.get(key))
        if differ:
            raise DataError(
                f"{folder}: found shards prepared otherwise than those of {first} (different: {', '.join(differ)}); expected the same "
                "checkpoint's rules and settings. Prepare one of the two again with the other's"
            )
        for source, facts in own.get("data", {}).items():
            if data.setdefault(source, facts) != facts:
                raise DataError(
                    f"{folder}: found {source} made from other data than that of the same name in {first}; expected one or the other, "
                    "since their rows would share ids. Rename one set before preparing it"
                )
        if own.get("rows_per_shard") != joined.get("rows_per_shard"):
            joined["rows_per_shard"] = None
    return joined | {"data": data}


def _restricted(manifest: Manifest, hand: list[Owned]) -> dict:
    """The fingerprint of some of the shards: what was read for the sources that are left."""
    sources = {shard.source for _, shard in hand}
    data = manifest.fingerprint.get("data", {})
    return manifest.fingerprint | {"data": {source: facts for source, facts in data.items() if source in sources}}


def _check_rows(owned: list[Owned]) -> None:
    """Refuse a shard or a row that two of the sets hold; only sources that occur in several can have one."""
    folders: dict[str, set[Path]] = {}
    for folder, shard in owned:
        folders.setdefault(shard.source, set()).add(folder)
    for source in (source for source, own in folders.items() if len(own) > 1):
        seen: dict[str, Path] = {}
        for folder, shard in owned:
            for row in _ids(folder / shard.name) if shard.source == source else ():
                if row in seen:
                    raise DataError(f"{folder}: found row {row}, which {seen[row]} holds as well; expected every row once. Leave one out")
                seen[row] = folder
    twice = [name for name, count in Counter(shard.name for _, shard in owned).items() if count > 1]
    if twice:
        raise DataError(f"found {twice[0]} in two of the folders; expected every shard once. Leave one of them out")


def _ids(path: Path) -> list[str]:
    return open_shard(path).read_all()["id"].to_pylist()


def _write(out: Path, fingerprint: dict, owned: list[Owned]) -> Manifest:
    """The folder with shards, records and manifest; it appears when all of it is there."""
    _check_free(out)
    first = {}
    for _, shard in sorted(owned, key=lambda pair: pair[1].name):
        first.setdefault(shard.source, shard.name)
    ordered = sorted(owned, key=lambda pair: (first[pair[1].source], pair[1].name))
    with disk_errors(out), atomic_folder(out) as unfinished:
        for folder, shard in ordered:
            _place(folder / shard.name, unfinished / shard.name, shard)
        return write_manifest(unfinished, fingerprint, [shard for _, shard in ordered])


def _place(source: Path, target: Path, record: ShardRecord) -> None:
    if not source.is_file():
        raise DataError(f"{source}: missing, but the manifest names it; prepare the data again (finished shards are kept)")
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
    if target.stat().st_size != record.bytes or file_digest(target) != record.sha256:
        raise DataError(f"{source}: found other bytes than the manifest's digest; prepare the data again (only this shard is redone)")
    write_json(record_path(target), record.model_dump(mode="json"))


def _check_apart(folders: Sequence[Path]) -> None:
    """Refuse a folder that lies in another of these, or is the same."""
    for one, other in permutations([folder.resolve() for folder in folders], 2):
        if one.is_relative_to(other):
            raise DataError(f"{one}: found it in or at {other}; expected folders apart from each other. Name another")


def _check_free(out: Path) -> None:
    if out.exists():
        raise DataError(f"{out}: found something there; expected the name of a new folder. Name another")
