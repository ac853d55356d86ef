"""Random damage to a checkpoint folder, and its repair."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def files(folder: Path) -> list[Path]:
    """The manifest too."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip_a_bit(folder: Path, rng: random.Random) -> Callable[[], None]:
    path = rng.choice(files(folder))
    place, bit = rng.randrange(path.stat().st_size), 1 << rng.randrange(8)

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ bit]))

    flip()
    return flip


def truncate(folder: Path, rng: random.Random) -> Callable[[], None]:
    path = rng.choice(files(folder))
    whole = path.read_bytes()
    os.truncate(path, rng.randrange(len(whole)))
    return lambda: path.write_bytes(whole) and None


def delete(folder: Path, rng: random.Random) -> Callable[[], None]:
    path = rng.choice(files(folder))
    return _moved(path, folder.with_name("elsewhere"))


def rename(folder: Path, rng: random.Random) -> Callable[[], None]:
    path = rng.choice([*files(folder), folder])
    return _moved(path, path.with_name(path.name + "x"))


def swap(folder: Path, rng: random.Random) -> Callable[[], None]:
    a, b = rng.sample(files(folder), 2)

    def exchange() -> None:
        aside = folder.with_name("aside")
        os.replace(a, aside)
        os.replace(b, a)
        os.replace(aside, b)

    exchange()
    return exchange


def add(folder: Path, rng: random.Random) -> Callable[[], None]:
    """A stray file, or a copy of one that is there."""
    path = rng.choice(files(folder))
    stray = path.with_name(f"{rng.randrange(10**6)}.pt")
    stray.write_bytes(rng.choice([b"", path.read_bytes()]))
    return stray.unlink


def link(folder: Path, rng: random.Random) -> Callable[[], None]:
    """The very bytes, but behind a link: a file, the folder in it, or the whole."""
    path = rng.choice([*files(folder), folder, *(p for p in folder.iterdir() if p.is_dir())])
    place = folder.with_name("elsewhere")
    os.replace(path, place)
    path.symlink_to(place)

    def back() -> None:
        path.unlink()
        os.replace(place, path)

    return back


KINDS = {"bit flip": flip_a_bit, "truncated": truncate, "deleted": delete, "renamed": rename, "swapped": swap, "added": add, "link": link}


@contextmanager
def damaged(folder: Path, kind: str, rng: random.Random) -> Iterator[Path]:
    """The folder with one damage; gives the place where it now lies."""
    repair = KINDS[kind](folder, rng)
    try:
        yield folder if folder.exists() else folder.with_name(folder.name + "x")
    finally:
        repair()


def _moved(path: Path, place: Path) -> Callable[[], None]:
    os.replace(path, place)
    return lambda: os.replace(place, path)
