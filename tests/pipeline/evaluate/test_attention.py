"""The command that draws attention maps: its files and their numbers, and what it refuses before any weight is read."""

import json
from pathlib import Path

import pytest

import pipeline.evaluate.attention
from data_prep.checkpoint import FAMILIES
from data_prep.samples import ImageRef, Side
from data_prep.sources.mmeb_eval import EvalRow, EvalSet
from pipeline.evaluate.attention import first_queries, main
from pipeline.evaluate.chorus_maps import chorus_attention, image_maps


@pytest.fixture
def images(picture, tmp_path) -> list[str]:
    """A wide and a tall picture, the second through a link that leads out of its folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "wide one.png").write_bytes(picture(0, 112, 56).data)
    (tmp_path / "tall").write_bytes(picture(1, 56, 84).data)
    (folder / "tall.png").symlink_to(tmp_path / "tall")
    return [str(folder / "wide one.png"), str(folder / "tall.png")]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_image_gets_a_picture_and_its_numbers(checkpoint_of, images, tmp_path, capsys, family) -> None:
    out = tmp_path / "out"
    assert main([str(checkpoint_of(family)), "--images", *images, "--texts", "look", "", "--k", "3", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["00-wide_one.json", "00-wide_one.png", "01-tall.json", "01-tall.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in out.glob("*.png"))
    wide, tall = (json.loads(path.read_text()) for path in sorted(out.glob("*.json")))
    layers = 3 if family == "qwen3_vl" else 2
    assert (wide["image"], wide["text"], wide["grid"], wide["layers"]) == ("wide one.png", "look", [2, 4], f"mean of {layers} layers")
    assert (tall["image"], tall["text"], tall["grid"]) == ("tall.png", "", [3, 2])
    for numbers in (wide, tall):
        assert [token["chorus"] for token in numbers["tokens"]] == [0, 1, 2]
        for name in ("image_mass", "even_mass", "entropy"):
            assert numbers[name] == pytest.approx(sum(token[name] for token in numbers["tokens"]) / 3)
            assert 0 < numbers[name] <= 1 + 1e-6
        assert 0 < numbers["overlap"] <= 1 + 1e-6
    mean = (wide["entropy"] + tall["entropy"]) / 2
    assert f"entropy {mean:.2f}" in capsys.readouterr().out


def test_one_layer_of_one_item_with_two_images(kit_of, images, picture, tmp_path) -> None:
    """The numbers are those of the named layer, with both images in one context."""
    kit = kit_of("qwen2_vl")
    assert main([str(kit.checkpoint), "--images", *images, "--together", "--layer", "1", "--out", str(tmp_path / "out")]) == 0
    written = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*.json"))]
    opened = pipeline.evaluate.attention.open_checkpoint(kit.checkpoint, kit.encoder)
    sequence = kit.encoder.sequence(Side(images=(picture(0, 112, 56), picture(1, 56, 84))))
    expected = image_maps(chorus_attention(opened.model, opened.collator, sequence)[1], sequence, kit.encoder)
    for numbers, maps in zip(written, expected, strict=True):
        assert numbers["layers"] == "layer 1 (of 0 to 1)"
        assert [token["image_mass"] for token in numbers["tokens"]] == pytest.approx(maps.mass_K.tolist(), abs=1e-6)
        assert {name: numbers[name] for name in maps.figures()} == pytest.approx(maps.figures(), abs=1e-6)
    other = image_maps(chorus_attention(opened.model, opened.collator, sequence)[0], sequence, kit.encoder)[0].figures()
    assert written[0]["image_mass"] != pytest.approx(other["image_mass"], abs=1e-6)  # the control: layers differ


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "found no image; expected --images FILE"),
        (["--texts", "a", "b"], "found 2 texts without an image; expected --images FILE"),
        (["--images", "WIDE", "--texts", "a", "b"], "found 2 texts for 1 items with images; expected one text each"),
        (["--images", "WIDE", "WIDE", "--together", "--texts", "a", "b"], "found 2 texts for 1 items"),
        (["--images", "WIDE", "nowhere.png"], "nowhere.png': expected a file at "),
        (["--images", "TEXT"], "format: "),
        (["--images", "WIDE", "--k", "5"], "k = 5: found a checkpoint of 4 chorus tokens; expected 1 to 4"),
        (["--images", "WIDE", "--layer", "2"], "layer = 2: found a checkpoint of 2 decoder layers; expected 0 to 1"),
        (["--images", "WIDE", "--layer", "-1"], "layer = -1: found a checkpoint of 2 decoder layers; expected 0 to 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_weights_are_read(checkpoint, images, tmp_path, capsys, monkeypatch, words, message) -> None:
    monkeypatch.delattr(pipeline.evaluate.attention, "open_checkpoint")
    (tmp_path / "note.png").write_text("no picture")
    words = [{"WIDE": images[0], "TEXT": str(tmp_path / "note.png")}.get(word, word) for word in words]
    assert main([str(checkpoint), *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_chorus_tokens(base_checkpoint, images, tmp_path, capsys) -> None:
    assert main([str(base_checkpoint), "--images", *images, "--out", str(tmp_path / "out")]) == 2
    assert "found a checkpoint without chorus tokens" in capsys.readouterr().err


def test_first_queries() -> None:
    """Of the first set that shows images in queries, those of different images, in order."""
    a, b, c = (ImageRef(name, Path("/")) for name in "abc")
    answer = (Side("yes"),)
    text = EvalSet("A", None, None, [EvalRow(Side("which?"), (Side(images=(a,)),))])
    asked = [Side("which?"), Side("1", (a,)), Side("2", (a,)), Side("3", (b,)), Side("4", (a, b)), Side("5", (c,))]
    shown = EvalSet("B", None, None, [EvalRow(side, answer) for side in asked])
    later = EvalSet("C", None, None, [EvalRow(Side("6", (c,)), answer)])
    assert [side.text for side in first_queries([text, shown, later], 3)] == ["1", "3", "4"]
    assert [side.text for side in first_queries([text, shown, later])] == ["1", "3", "4", "5"]
    assert first_queries([text]) == []
