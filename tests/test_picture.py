"""The comparison picture: it opens, has the right rows, and leaves nothing behind when it fails."""

import numpy as np
import pytest
from PIL import Image

from inrcodec import comparison, picture
from inrcodec_formats.errors import OutputError, SignalError


def pair(shape):
    generator = np.random.default_rng(0)
    reference = generator.integers(0, 1000, shape).astype(np.int16)
    return reference, reference + generator.integers(-9, 9, shape).astype(np.int16)


@pytest.mark.parametrize(
    "shape", [(1,), (40,), (20, 30), (1, 1, 1), (1, 20, 30), (9, 20, 30), (2, 5, 9, 8), (2, 1, 300)]
)
def test_every_dimension_gives_a_picture(shape, tmp_path):
    path = tmp_path / "out.png"
    picture.save_comparison(path, *pair(shape), title="PSNR 30 dB")
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert max(image.size) < 2500
    assert path.stat().st_size < 1_000_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize("value", [0, 7])
def test_constant_and_identical(value, tmp_path):
    volume = np.full((5, 6, 7), value, np.uint8)
    picture.save_comparison(tmp_path / "out.png", volume, volume)
    assert (tmp_path / "out.png").exists()


def test_middle_slices_and_their_extent():
    reference, decoded = pair((6, 8, 10))
    slices = picture.middle_slices(reference, decoded, "zyx", (2.0, 1.0, 0.5))
    assert [one.name for one in slices] == ["z = 3", "y = 4", "x = 5"]
    assert [(one.height, one.width) for one in slices] == [(8.0, 5.0), (12.0, 5.0), (12.0, 8.0)]
    np.testing.assert_array_equal(slices[1].reference, reference[:, 4, :])
    np.testing.assert_array_equal(slices[2].decoded, decoded[:, :, 5])


def test_series_shows_its_middle_time_point():
    reference, decoded = pair((5, 4, 6, 7))
    slices = picture.middle_slices(reference, decoded, "tzyx", (1.0,) * 4)
    np.testing.assert_array_equal(slices[0].reference, reference[2, 2])


def test_physical_aspect_ratio(tmp_path):
    tall, wide = tmp_path / "tall.png", tmp_path / "wide.png"
    picture.save_comparison(tall, *pair((20, 20)), spacing=(2.0, 1.0))
    picture.save_comparison(wide, *pair((20, 20)), spacing=(1.0, 2.0))
    heights = [Image.open(path).size[1] for path in (tall, wide)]
    assert heights[0] > 2 * heights[1]


def test_no_global_matplotlib_state(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    picture.save_comparison(tmp_path / "out.png", *pair((8, 8)))
    assert dict(matplotlib.rcParams) == before


def test_unwritable_output_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="expected"):
        picture.save_comparison(tmp_path / "missing" / "out.png", *pair((8, 8)))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="expected"):
        picture.save_comparison(tmp_path / "folder.png", *pair((8, 8)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("shapes", [((4, 5), (5, 4)), ((1,) * 5, (1,) * 5)])
def test_refusals(shapes, tmp_path):
    with pytest.raises(SignalError, match="same shape"):
        picture.save_comparison(tmp_path / "out.png", *(np.zeros(shape) for shape in shapes))


def test_title_says_what_is_known():
    reference, decoded = pair((9, 9, 9))
    title = picture.comparison_title(comparison.compare(reference, decoded, compressed_bytes=100))
    assert "PSNR" in title and "SSIM" in title and "bits/voxel" in title
    assert picture.comparison_title(comparison.compare(reference, reference)).startswith("identical")


def test_compare_writes_the_picture(tmp_path):
    report = comparison.compare(*pair((9, 10, 11)), picture=tmp_path / "out.png")
    assert report.picture == str(tmp_path / "out.png")
    assert (tmp_path / "out.png").exists()
