"""The picture holds what the maps say: one panel per token, one colour scale, text as it is."""

import warnings

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluate.heat_maps import heat_maps

MAPS = np.array([[[0.5, 0.25, 0.25], [0, 0, 0]], [[0, 0, 0], [1, 0, 0]]], np.float32)


def image(width: int = 84, height: int = 56) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 30, 30))


def test_panels_and_their_common_scale() -> None:
    first, *panels, scale = heat_maps(image(), MAPS, ["a", "b"], "two").axes
    (shown,) = first.images
    assert (np.asarray(shown.get_array())[0, 0] == (200, 30, 30)).all()
    assert [axes.get_title() for axes in panels] == ["a", "b"]
    for axes, map_YX in zip(panels, MAPS, strict=True):
        pale, heat = axes.images
        assert (np.asarray(heat.get_array()) == 6 * map_YX).all()
        assert heat.get_clim() == (0, 6)  # of both, though the first reaches 3 only
        assert tuple(heat.get_extent()) == tuple(pale.get_extent()) == (-0.5, 83.5, 55.5, -0.5)
    assert scale.get_xlabel() == "times even attention over the image; one scale for all, 0 to 6"


def test_a_scale_has_a_top_where_nothing_falls_on_the_image() -> None:
    *_, panel, scale = heat_maps(image(), np.zeros((1, 2, 3), np.float32), ["none"], "").axes
    assert panel.images[1].get_clim() == (0, 1) and scale.get_xlabel().endswith("0 to 1")


@pytest.mark.parametrize(("count", "size"), [(1, (84, 56)), (4, (84, 84)), (5, (840, 28)), (16, (56, 112)), (3, (28, 840))])
def test_layout(count, size, tmp_path) -> None:
    """Every panel has its own place on the sheet, below the title and above the scale, and text from data is no formula."""
    name = "a $5 or $6.png\x1b"
    figure = heat_maps(image(*size), np.full((count, 2, 3), 1 / 6, np.float32), [f"{name} {i}" for i in range(count)], name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "maps.png", dpi=50)
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert len(figure.axes) == count + 2
    places = [axes.get_position(original=True) for axes in figure.axes]
    assert all(0 < place.x0 < place.x1 < 1 and 0 < place.y0 < place.y1 < 1 for place in places)
    assert sum(a.overlaps(b) for i, a in enumerate(places) for b in places[:i]) == 0
    assert figure.texts[0].get_text() == r"a \$5 or \$6.png "
    assert figure.axes[1].get_title() == r"a \$5 or \$6.png  0"
