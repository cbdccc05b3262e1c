"""One way to read a picture: what a run sees of a file is what training and evaluation see of it, and it is the right picture."""

import io

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="needs the export extra")
pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.data import load_camvid, load_folder  # noqa: E402
from percodec.export.data.files import read_rgb, read_size  # noqa: E402
from percodec.export.restore.mirror import decode_picture  # noqa: E402
from percodec.runtime.capture.images import ImageFiles  # noqa: E402
from percodec.runtime.capture.opencv import opencv  # noqa: E402
from percodec.runtime.images import read_image  # noqa: E402
from percodec.sdk.errors import DataError, SourceError  # noqa: E402

H, W = 48, 64
Y, X = np.mgrid[0:H, 0:W]
RGB = np.dstack([X * 4, Y * 5, (X + Y) * 2]).astype(np.uint8)
GREY = (X * 4).astype(np.uint8)
GREY_RGB = np.dstack([GREY] * 3)
GREY_16 = (X * 4 * 257).astype(np.uint16)
TURNED = {
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.transpose(1, 0, 2),
    6: np.rot90(RGB, -1),
    7: np.rot90(RGB, 2).transpose(1, 0, 2),
    8: np.rot90(RGB),
}


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def of(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def by_opencv(suffix, picture):
    return opencv().imencode(suffix, picture)[1].tobytes()


def every():
    """name -> bytes, the picture they hold, the largest difference that the format's loss explains."""
    rgb, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    palette, bits = rgb.quantize(64), grey.point(lambda v: 255 * (v > 128)).convert("1")
    flat = np.asarray(palette.convert("RGB"))
    hard = np.dstack([np.where(GREY > 128, 255, 0)] * 3)
    rgba = Image.fromarray(np.dstack([RGB, GREY]))
    colour_16 = np.dstack([GREY_16] * 3)
    fine = {"quality": 98, "subsampling": 0}
    for k, wanted in TURNED.items():
        yield f"orientation{k}.jpg", of(rgb, "JPEG", exif=exif(k), **fine), wanted, 4
    for k in (3, 6, 8):
        yield f"orientation{k}.png", of(rgb, "PNG", exif=exif(k)), TURNED[k], 0
        yield f"orientation{k}.webp", of(rgb, "WEBP", exif=exif(k), lossless=True), TURNED[k], 0
        yield f"orientation{k}.tif", of(rgb, "TIFF", exif=exif(k)), TURNED[k], 0
    for name, form, more in (
        *(("rgb.png", "PNG", {}), ("rgb.bmp", "BMP", {}), ("rgb.ppm", "PPM", {}), ("rgb.tif", "TIFF", {})),
        *(("lzw.tiff", "TIFF", {"compression": "tiff_lzw"}), ("deflate.tif", "TIFF", {"compression": "tiff_deflate"})),
        *(("rgb.webp", "WEBP", {"lossless": True}), ("key.png", "PNG", {"transparency": (0, 0, 0)})),
    ):
        yield name, of(rgb, form, **more), RGB, 0
    for name, form in (("grey.png", "PNG"), ("grey.bmp", "BMP"), ("grey.pgm", "PPM"), ("grey.tif", "TIFF"), ("grey.jpg", "JPEG")):
        yield name, of(grey, form), GREY_RGB, 8
    for suffix in (".png", ".tif", ".pgm"):
        yield f"grey16{suffix}", by_opencv(suffix, GREY_16), GREY_RGB, 1
    for suffix in (".png", ".tif", ".ppm"):
        yield f"colour16{suffix}", by_opencv(suffix, colour_16), GREY_RGB, 1
    yield "alpha16.png", by_opencv(".png", np.dstack([colour_16, GREY_16])), GREY_RGB, 1
    yield "bits.png", of(bits, "PNG"), hard, 0
    yield "bits.tif", of(bits, "TIFF"), hard, 0
    yield "palette.png", of(palette, "PNG"), flat, 0
    yield "palette.bmp", of(palette, "BMP"), flat, 0
    yield "palette.tif", of(palette, "TIFF"), flat, 0
    yield "palette_alpha.png", of(palette, "PNG", transparency=3), flat, 0
    yield "rgba.png", of(rgba, "PNG"), RGB, 0
    yield "rgba.webp", of(rgba, "WEBP", lossless=True, exact=True), RGB, 0
    yield "grey_alpha.png", of(Image.merge("LA", [grey, grey]), "PNG"), GREY_RGB, 0
    yield "cmyk.jpg", of(rgb.convert("CMYK"), "JPEG", quality=98), RGB, 4
    yield "cmyk.tif", of(rgb.convert("CMYK"), "TIFF"), RGB, 1
    yield "progressive.jpg", of(rgb, "JPEG", progressive=True, **fine), RGB, 4
    yield "subsampled.jpg", of(rgb, "JPEG", quality=98, subsampling=2), RGB, 6
    yield "profile.png", of(rgb, "PNG", icc_profile=bytes(range(128)) * 4), RGB, 0
    yield "two_pages.tif", of(rgb, "TIFF", save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB, 0
    yield "animated.png", of(rgb, "PNG", save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB, 0
    yield "animated.webp", of(rgb, "WEBP", save_all=True, append_images=[Image.fromarray(255 - RGB)], lossless=True), RGB, 0


EVERY = list(every())


@pytest.mark.parametrize(("name", "data", "wanted", "most"), EVERY, ids=[name for name, *_ in EVERY])
def test_a_picture_is_the_same_in_a_run_and_in_training(tmp_path, name, data, wanted, most):
    path = tmp_path / name
    path.write_bytes(data)
    frame = ImageFiles.from_folder(tmp_path).read()
    assert frame is not None
    run = frame.image
    assert run.dtype == np.uint8
    assert run.shape == wanted.shape
    assert np.abs(run.astype(int) - wanted).max() <= most
    assert np.array_equal(read_rgb(path), run)
    assert np.array_equal(load_folder(tmp_path).images[0], run)
    assert np.array_equal(decode_picture(name, data)[0], run)
    assert read_size(path) == run.shape[:2]


@pytest.mark.parametrize("name", ["animated.png", "animated.webp", "rgb.png", "rgba.webp"])
def test_an_animation_says_that_one_frame_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(next(data for n, data, *_ in EVERY if n == name))
    notes = []
    read_image(tmp_path / name, notes)
    assert [n for n in notes if "its first frame is read" in n] == notes
    assert len(notes) == name.startswith("animated")
    assert list(load_folder(tmp_path).notes) == notes


def test_numbers_that_are_no_picture_are_refused_by_all(tmp_path):
    path = tmp_path / "depth.tif"
    path.write_bytes(of(Image.fromarray(X.astype(np.float32)), "TIFF"))
    with pytest.raises(SourceError, match=r"depth\.tif"):
        read_image(path)
    with pytest.raises(DataError, match=r"depth\.tif"):
        read_rgb(path)


def labelled(root, pictures, labels):
    for folder, names in (("train", pictures), ("train_labels", labels)):
        (root / folder).mkdir()
        for name in names:
            Image.fromarray(RGB if folder == "train" else GREY % 11).save(root / folder / name)


def test_hidden_files_are_left_out_with_a_note(tmp_path):
    labelled(tmp_path, ["a.png", "b.jpg"], ["a.png", "b.png"])
    for name in ("._a.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / "train" / name).write_bytes(b"\0\5\26\7")
        (tmp_path / "train_labels" / name).write_bytes(b"\0\5\26\7")
    data = load_camvid(tmp_path, "train")
    assert len(data) == len(load_folder(tmp_path / "train")) == 2
    assert [n for n in data.notes if "3 hidden files such as .DS_Store" in n]


def test_picture_and_label_may_differ_in_suffix(tmp_path):
    labelled(tmp_path, ["a.jpg", "b.bmp", "c.png"], ["a.png", "b.tif", "c.png"])
    data = load_camvid(tmp_path, "train")
    assert all(np.array_equal(label, GREY % 11) for label in data.labels)


def test_a_missing_label_says_which_names_were_looked_for(tmp_path):
    labelled(tmp_path, ["a.jpg"], ["a.jpg"])  # ids in a JPEG are not the ids that were written
    with pytest.raises(DataError, match=r"a\.jpg has no label: .*train_labels holds none of a\.png, a\.tif, a\.tiff, a\.bmp, a\.pgm"):
        load_camvid(tmp_path, "train")
