"""Archives: what honest ones become, and that hostile ones write nothing outside and no more than they may."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_prep.fetch.unpack import Unpacked, UnpackLimits, unpack
from data_prep.samples import DataError


def zipped(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def tarred(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.lower().endswith("gz") else "w") as file:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            data = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def mode(name: str, bits: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, bits << 16
    return info


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


HONEST = [("S/", b""), ("S/Train/hot dog.jpg", b"a" * 3000), ("./S/b.png", b""), ("S/Train/\u732b.jpg", b"c")]
JUNK = [("__MACOSX/S/._a.jpg", b"x"), ("S/._a.jpg", b"x"), ("S/.DS_Store", b"x")]
KEPT = {"S/Train/hot dog.jpg": b"a" * 3000, "S/b.png": b"", "S/Train/\u732b.jpg": b"c"}


@pytest.mark.parametrize("name", ["images.zip", "images.tar", "images.tar.gz", "images.TGZ"])
def test_files_come_out_without_macos_leftovers(tmp_path, name):
    path = tmp_path / name
    if name.endswith("zip"):
        zipped(path, HONEST + JUNK)
    else:
        tarred(path, special("S", tarfile.DIRTYPE), *HONEST[1:], *JUNK)
    assert unpack(path, tmp_path / "out") == Unpacked(files=3, bytes=3001)
    assert files(tmp_path / "out") == KEPT
    assert stat.S_IMODE((tmp_path / "out" / "S" / "b.png").stat().st_mode) & 0o111 == 0


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    "name",
    ["/etc/crem", "../out.txt", "a/../../out.txt", "..", "a//b", "a\\..\\..\\b", "C:/x", "a/\x07b", "x" * 256, "a/\u732b" + "y" * 254],
)
def test_names_that_lead_outside_or_are_none_are_refused(tmp_path, kind, name):
    path = tmp_path / f"bad.{kind}"
    (zipped(path, [("ok", b"1"), (name, b"2")]) if kind == "zip" else tarred(path, ("ok", b"1"), (name, b"2")))
    with pytest.raises(DataError, match="which may lead outside or is no file name; expected a data set's archive"):
        unpack(path, tmp_path / "deep" / "out")
    assert files(tmp_path / "deep") == {"out/ok": b"1"}
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, "deep"}


@pytest.mark.parametrize(
    "member",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "../../x"),
        special("link", tarfile.LNKTYPE, "ok"),
        special("null", tarfile.CHRTYPE),
        special("disk", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
    ids=["symlink", "symlink_up", "hardlink", "character", "block", "pipe"],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, member):
    path = tarred(tmp_path / "bad.tar", ("ok", b"1"), member)
    with pytest.raises(DataError, match=r"found (a link|a device, pipe or socket) called"):
        unpack(path, tmp_path / "out")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["ok"]


@pytest.mark.parametrize("bits", [stat.S_IFLNK | 0o777, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, bits):
    path = zipped(tmp_path / "bad.zip", [(mode("link", bits), b"/etc/passwd"), ("link/x", b"1")])
    with pytest.raises(DataError, match=r"found (a symbolic link|a device, pipe or socket) called 'link'"):
        unpack(path, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_an_encrypted_member_is_refused(tmp_path):
    path = zipped(tmp_path / "bad.zip", [("secret", b"1")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the flag of encryption, in the directory
    path.write_bytes(data)
    with pytest.raises(DataError, match="found an encrypted file called 'secret'"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("members", [[("a", b"1"), ("a", b"2")], [("a", b"1"), ("a/b", b"2")], [("a/b", b"1"), ("a", b"2")]])
def test_two_members_of_one_name_are_refused(tmp_path, members):
    with pytest.raises(DataError, match=r"found two members of one name \(.*/a"):
        unpack(tarred(tmp_path / "bad.tar", *members), tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_stops_at_the_limit(tmp_path, kind):
    path = tmp_path / f"bomb.{kind}"
    zeros = [(f"{i}", bytes(2**22)) for i in range(8)]
    zipped(path, zeros) if kind == "zip" else tarred(path, *zeros)
    allowed = 100 * path.stat().st_size + 2**20
    assert allowed < 8 * 2**22
    with pytest.raises(DataError, match=f"found more than {allowed} bytes unpacked"):
        unpack(path, tmp_path / "out")
    assert sum(map(len, files(tmp_path / "out").values())) <= allowed


def test_limits_hold_to_one_member_and_one_byte(tmp_path):
    path = tarred(tmp_path / "three.tar", ("a", b"12"), ("b", b"34"), ("c", b"56"))
    assert unpack(path, tmp_path / "fits", UnpackLimits(members=3, bytes=6)) == Unpacked(3, 6)
    with pytest.raises(DataError, match="found more than 2 members"):
        unpack(path, tmp_path / "members", UnpackLimits(members=2))
    with pytest.raises(DataError, match="found more than 5 bytes unpacked"):
        unpack(path, tmp_path / "bytes", UnpackLimits(bytes=5))


def test_a_header_that_asks_for_much_memory_is_refused(tmp_path):
    header = special("h", tarfile.XHDTYPE)
    header.size = 2**33
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**21)))
    with pytest.raises(DataError, match=r"found a damaged archive .*a header of 8589934592 bytes"):
        unpack(path, tmp_path / "out")


def damaged(kind: str, tmp_path: Path) -> Path:
    good = tmp_path / f"a.{kind}"
    data = bytes(range(256)) * 40
    zipped(good, [("a", data)]) if kind == "zip" else tarred(good, ("a", data), ("b", data))
    return good


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_cut_off_archives_are_refused(tmp_path, kind):
    path = damaged(kind, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="found a damaged archive"):
        unpack(path, tmp_path / "out")


def test_a_changed_byte_is_found(tmp_path):
    path = damaged("zip", tmp_path)
    data = bytearray(path.read_bytes())
    crc = data.index(b"PK\1\2") + 16
    data[crc : crc + 4] = struct.pack("<I", 7)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"found a damaged archive .*CRC"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize(("name", "found"), [("a.zip", "a damaged archive"), ("a.tar.gz", "a damaged archive"), ("a.rar", "unknown kind")])
def test_what_is_no_archive_is_refused(tmp_path, name, found):
    (tmp_path / name).write_text("<html>404</html>")
    with pytest.raises(DataError, match=found):
        unpack(tmp_path / name, tmp_path / "out")
