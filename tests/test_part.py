"""Parts of images: the pixels of PIL's decoder, and nearly those of its resizing."""

import base64
import hashlib

import numpy as np
import pytest
from cykooz_resizer import CpuExtensions, Resizer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_data import encoded, noise

from shufflenet_jax.data import part
from shufflenet_jax.data.decode import decode, opened


def photograph(width, height, seed=0):
    """Smooth, with an edge, as photographs are."""
    small = Image.fromarray(noise(8, 8, seed))
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    image.paste((250, 5, 20), (0, height // 2, width // 3, height))
    return image


def by_pil(jpeg, box, size):
    """As all images were once cut out."""
    image = decode(jpeg, "")
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


KINDS = {
    **{f"{name}": {"subsampling": code} for name, code in (("444", 0), ("422", 1), ("420", 2))},
    "progressive": {"progressive": True},
    "poor": {"quality": 20},
    "restarts": {"restart_marker_rows": 1},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_pixels_of_a_jpeg_are_those_that_pil_decodes(kind, factor):
    """Bit by bit, at each size that a JPEG can be decoded at; sizes that no block divides."""
    width, height = 173, 131
    jpeg = encoded(photograph(width, height), "JPEG", **KINDS[kind])
    image = opened(jpeg)
    image.draft(None, (width // factor, height // factor))
    pixels = part._decoded(jpeg, (width, height), factor)
    assert pixels.shape == (-(-height // factor), -(-width // factor), 3)
    np.testing.assert_array_equal(pixels, image)


STORED = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV02B@n5)Ta&5)cv>6%-"
    "gAG9exu93DL^E+jHZKuk+VKt@GST61DhRc%&9Mr4R(ZFhTtf`Lw8jhBplmUDiAeE-"
    "`3Lje^R7akfOJ0T%Ed{ahKe0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-"
    "e0=}F01*fP5C9kh0U`hb5di}c0sq7R7ytkR0RaF20000000000000031OWyA!~h`>00II51Ofv900000000000RjL6"
    "1Q8M;F%%*sK|=q;02cuO0|5X40000000000000020|W*C!~h==0RRF500#g700000000000RjU65d{)4fswKC|Jncy"
    "0|5X65d#qbKLBQ6xqclkQ+GW~t1jCD<5gy@Uk*spa%H(!`D};>xa&?gMc2!0!bjY)?jI^N!QNGwLswX3Um=gs;t^EY"
    "n?r12v=7g4gvlKs_FT`h11_hK_pJZf"
)


def test_pixels_are_those_that_they_were():
    """Of a file that is stored here: another version of a decoder must not bring others."""
    for size, digest in {4: "75e4025bae2fc012", 24: "ed1a11c215338c18"}.items():
        pixels = part.cut_out(STORED, lambda _: (1.5, 2.25, 22.0, 15.5), size)
        assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == digest


def test_gray_jpegs():
    gray = photograph(40, 30).convert("L")
    jpeg = encoded(gray, "JPEG")
    pixels = part._decoded(jpeg, (40, 30), 1)
    np.testing.assert_array_equal(pixels, np.repeat(np.asarray(opened(jpeg))[..., None], 3, -1))


@given(
    seed=st.integers(0, 2**16),
    extent=st.tuples(st.integers(40, 300), st.integers(40, 300)),
    part_of=st.tuples(*4 * [st.floats(0, 0.45)]),
    size=st.sampled_from([16, 48, 224]),
)
def test_a_part_is_nearly_pils(seed, extent, part_of, size):
    """Levels differ by one at most in nearly all pixels: integers of other widths are rounded."""
    width, height = extent
    jpeg = encoded(photograph(width, height, seed), "JPEG", quality=95)
    left, top, right, bottom = part_of
    box = left * width, top * height, width - right * width, height - bottom * height
    factor = part._factor(extent, box, size)
    got = part.cut_out(jpeg, lambda found: box if found == extent else None, size)
    assert got.shape == (size, size, 3)
    assert got.dtype == np.uint8
    if factor == 1:
        difference = abs(got.astype(int) - by_pil(jpeg, box, size))
        assert np.mean(difference > 1) < 0.005
        assert difference.mean() < 0.3
        assert difference.max() <= 16


def test_all_instructions_of_a_processor_give_the_same_pixels(monkeypatch):
    """As those of another processor would."""
    jpeg = encoded(photograph(200, 150), "JPEG")

    class Restricted(Resizer):
        extension = CpuExtensions.none

        def __init__(self):
            super().__init__()
            self.cpu_extensions = self.extension
            assert self.cpu_extensions is self.extension

    default = part.cut_out(jpeg, lambda _: (3.3, 7.7, 190.1, 120.9), 64)
    monkeypatch.setattr(part, "Resizer", Restricted)
    tried = 0
    for extension in CpuExtensions:
        Restricted.extension = extension
        try:
            pixels = part.cut_out(jpeg, lambda _: (3.3, 7.7, 190.1, 120.9), 64)
        except (AssertionError, ValueError, RuntimeError):
            continue  # not of this processor
        np.testing.assert_array_equal(pixels, default)
        tried += 1
    assert tried >= 2


def test_an_image_of_the_right_size_is_left_as_it_is():
    for kind in ("JPEG", "PNG"):
        file = encoded(photograph(32, 32), kind)
        pixels = part.cut_out(file, lambda _: (0.0, 0.0, 32.0, 32.0), 32)
        np.testing.assert_array_equal(pixels, decode(file, ""))


def test_what_is_left_to_pil(monkeypatch):
    """By its bytes alone: other kinds, other colours, and what is not quite a JPEG."""
    by_pil, box = [], (1.0, 2.0, 39.0, 28.0)
    cut = part._by_pil
    monkeypatch.setattr(part, "_by_pil", lambda *a: by_pil.append(a) or cut(*a))
    image = photograph(40, 30)
    jpeg = encoded(image, "JPEG")
    # Stray bytes before a marker, of which decoders only warn.
    at = jpeg.index(b"\xff\xdb")
    stray = jpeg[:at] + b"\0\0" + jpeg[at:]
    for file in (encoded(image), encoded(image.convert("CMYK"), "JPEG"), stray):
        chosen = iter([box])  # once, as random numbers are drawn for it
        got = part.cut_out(file, lambda _, chosen=chosen: next(chosen), 16)
        expected = decode(file, "").resize((16, 16), Image.Resampling.BICUBIC, box=box)
        np.testing.assert_array_equal(got, expected)
    assert len(by_pil) == 3
    part.cut_out(jpeg, lambda _: box, 16)
    assert len(by_pil) == 3


def test_large_parts_are_decoded_small():
    def factor(side, seen):
        return part._factor((side, side), (0.0, 0.0, seen, seen), 224)

    assert [factor(500, 500.0), factor(1000, 1000.0), factor(1000, 700.0)] == [1, 2, 1]
    assert [factor(2000, 2000.0), factor(4000, 4000.0), factor(9000, 9000.0)] == [4, 8, 8]
    jpeg = encoded(photograph(2000, 1501), "JPEG")
    seen = part.cut_out(jpeg, lambda _: (0.0, 0.0, 1500.0, 1500.0), 64)
    expected = by_pil(jpeg, (0.0, 0.0, 1500.0, 1500.0), 64)
    assert abs(seen.astype(int) - expected).mean() < 1
