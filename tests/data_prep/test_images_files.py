"""Which files are read for an image: regular ones below the root and no others, and what is said of the rest."""

import ctypes
import os
import sys
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from data_prep.images import ImageError, image_bytes, open_image, resolve
from data_prep.samples import ImageRef

RED = (255, 0, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with one good image, beside a secret image that must never be read."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    picture = BytesIO()
    Image.new("RGB", (1, 1), RED).save(picture, "PNG")
    good = picture.getvalue()
    (root / "images" / "hot dog.png").write_bytes(good)
    (tmp_path / "secret.png").write_bytes(good)
    (tmp_path / "data2").mkdir()
    (tmp_path / "data2" / "secret.png").write_bytes(good)
    return root


def test_files_below_the_root_open(root):
    inside = root / "images" / "hot dog.png"
    (root / "link.png").symlink_to(inside)
    (root.parent / "alias").symlink_to(root)
    names = ("./images//hot dog.png", "images/../images/hot dog.png", "images/hot dog.png/", str(inside), "link.png")
    for name in ("images/hot dog.png", *names):
        assert open_image(ImageRef(name, root)).getpixel((0, 0)) == RED
    assert open_image(ImageRef("link.png", root.parent / "alias")).getpixel((0, 0)) == RED
    assert resolve(ImageRef("link.png", root)) == inside.resolve()
    assert image_bytes(ImageRef("link.png", root)) == inside.read_bytes()
    with pytest.raises(ImageError, match=r"^outside_root"):
        image_bytes(ImageRef("../secret.png", root))


_opened: list[str] | None = None


def _watch(event: str, args: tuple) -> None:
    if _opened is not None and event in ("open", "socket.connect", "socket.getaddrinfo"):
        _opened.append(str(args[0]))


sys.addaudithook(_watch)  # cannot be taken away again; idle while _opened is None


@contextmanager
def watched():
    """What is opened or connected to while the block runs."""
    global _opened
    opened = _opened = []
    try:
        yield opened
    finally:
        _opened = None


ESCAPES = {
    "../secret.png": "outside_root",
    "images/../../secret.png": "outside_root",
    "../data2/secret.png": "outside_root",
    "images/../../data2/secret.png": "outside_root",
    "../../../../../../../../etc/passwd": "outside_root",
    "/etc/passwd": "outside_root",
    "/dev/zero": "outside_root",
    "/proc/self/environ": "outside_root",
    "//etc/passwd": "outside_root",
    "link_out.png": "outside_root",
    "folder_out/secret.png": "outside_root",
    "chain.png": "outside_root",
    "loop.png": "missing",
    "dangling.png": "missing",
    "file:///etc/passwd": "missing",
    "http://169.254.169.254/latest/meta-data": "missing",
    "https://example.com/a.png": "missing",
    "images/hot dog.png\0.txt": "missing",
    "a" * 5000: "missing",
    "..\\secret.png": "missing",
    "%2e%2e/secret.png": "missing",
    "\uff0e\uff0e/secret.png": "missing",
    "\udcff.png": "missing",
    "~/secret.png": "missing",
    "$HOME/secret.png": "missing",
    "images/HOT DOG.PNG": "missing",
    "images/hot dog.png/x": "missing",
    "": "not_a_file",
    ".": "not_a_file",
    "images": "not_a_file",
    "pipe.png": "not_a_file",
}


@pytest.mark.parametrize("name", ESCAPES, ids=lambda name: ascii(name[:30]))
def test_no_path_leads_out_of_the_root(root, name):
    (root / "link_out.png").symlink_to(root.parent / "secret.png")
    (root / "folder_out").symlink_to(root.parent)
    (root / "chain.png").symlink_to("link_out.png")
    (root / "loop.png").symlink_to("loop.png")
    (root / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(root / "pipe.png")
    with watched() as opened, pytest.raises(ImageError) as caught:
        open_image(ImageRef(name, root))
    assert caught.value.code == ESCAPES[name]
    assert opened == []


def test_the_watch_sees_an_image_being_read(root):
    with watched() as opened:
        open_image(ImageRef("images/hot dog.png", root))
    assert opened[0] == str(root / "images" / "hot dog.png")


def test_path_messages_name_path_and_root(root):
    with pytest.raises(ImageError, match=rf"'\.\./secret\.png': found a path that leads to .*, expected one below {root}"):
        open_image(ImageRef("../secret.png", root))
    with pytest.raises(ImageError, match=rf"expected a file at {root}/images/no\.png, found: No such file"):
        open_image(ImageRef("images/no.png", root))
    with pytest.raises(ImageError, match=r"expected a regular file at .*, found a folder"):
        open_image(ImageRef("images", root))


def test_files_are_checked_by_size(root):
    (root / "empty.png").touch()
    with pytest.raises(ImageError, match=r"^broken: 'empty\.png': found 0 bytes"):
        open_image(ImageRef("empty.png", root))
    with open(root / "huge.png", "wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ImageError, match=r"^too_large: 'huge\.png': found 1099511627776 bytes, expected at most 33554432"):
        open_image(ImageRef("huge.png", root))


@contextmanager
def as_anybody():
    """Root reads everything by two capabilities; this thread lays them down while the block runs. Others have none to lay down."""
    capget, capset = (getattr(ctypes.CDLL(None, use_errno=True), name) for name in ("capget", "capset"))
    version_3, this_thread, dac_override, dac_read_search = 0x20080522, 0, 1 << 1, 1 << 2
    header, sets = (ctypes.c_uint32 * 2)(version_3, this_thread), (ctypes.c_uint32 * 6)()
    assert capget(header, sets) == 0
    effective = sets[0]
    sets[0] = effective & ~(dac_override | dac_read_search)
    assert capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = effective
        assert capset(header, sets) == 0


def test_unreadable_file_is_missing(root):
    path = root / "images" / "hot dog.png"
    with as_anybody():
        assert open_image(ImageRef("images/hot dog.png", root)).size == (1, 1)
        path.chmod(0)
        with pytest.raises(ImageError, match=rf"^missing: 'images/hot dog.png': expected a readable file at {path}: Permission denied"):
            open_image(ImageRef("images/hot dog.png", root))
    path.chmod(0o600)
    assert open_image(ImageRef("images/hot dog.png", root)).size == (1, 1)
