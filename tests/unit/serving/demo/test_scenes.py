"""The catalogue pictures: pure, seeded, inside their bounds, readable in one order."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.demo import scenes
from serving.demo.scenes import COLOURS, PATTERNS, PRODUCTS, draw, jpeg, layer, scene
from serving.demo.wardrobe import SHADES

SEEDS = st.integers(min_value=0, max_value=2 * scenes.UNSEEN_SEED)


def test_the_shop_sells_what_the_specification_lists():
    assert PRODUCTS == ("dress", "shirt", "trousers", "bag", "shoe", "hat")
    assert len(COLOURS) == len(set(SHADES.values())) == 8
    assert PATTERNS == ("plain", "striped", "dotted", "floral")


@given(SEEDS, st.sampled_from([None, 1, 2, 3]))
def test_a_seed_always_gives_the_same_scene(seed, products):
    assert scene(seed, products) == scene(seed, products)


@given(SEEDS, st.sampled_from([1, 2, 3]))
def test_as_many_products_are_shown_as_were_asked_for(seed, products):
    assert len(scene(seed, products).items) == products


@given(SEEDS)
def test_sides_boxes_and_quality_keep_their_bounds(seed):
    picture = scene(seed)
    width, height = picture.size
    assert 1 <= len(picture.items) <= 3
    assert 128 <= width <= 512
    assert 128 <= height <= 512
    assert 45 <= picture.jpeg_quality <= 95
    assert all(0 <= channel <= 255 for channel in picture.background)
    for item in picture.items:
        left, top, right, bottom = item.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert abs(item.rotation) <= scenes.MAX_TILT_DEGREES


@given(SEEDS, st.sampled_from([2, 3]))
def test_neighbours_stand_apart_in_reading_order_and_overlap_across_it(seed, products):
    picture = scene(seed, products)
    along = 0 if picture.layout == "row" else 1
    for one, other in zip(picture.items, picture.items[1:], strict=False):
        assert one.box[along + 2] <= other.box[along]
        across = 1 - along
        assert one.box[across] < other.box[across + 2]
        assert other.box[across] < one.box[across + 2]


@pytest.mark.parametrize("products", [0, 4, -1])
def test_an_impossible_number_of_products_is_refused_with_the_way_out(products):
    with pytest.raises(ValueError, match="1 to 3 products"):
        scene(1, products)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_same_scene_gives_the_same_bytes_of_a_jpeg_of_its_size(seed):
    picture = scene(seed)
    one = jpeg(picture)
    layer.cache_clear()
    assert jpeg(picture) == one
    with Image.open(io.BytesIO(one)) as image:
        assert image.format == "JPEG"
        assert image.size == picture.size


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_every_product_is_visible_in_its_colour(seed):
    picture = scene(seed)
    for item in picture.items:
        cut = layer(item)
        assert cut.size == (item.box[2] - item.box[0], item.box[3] - item.box[1])
        pixels = [pixel[:3] for pixel in cut.get_flattened_data() if pixel[3] == 255]
        shade = SHADES[item.colour]
        near = sum(max(abs(a - b) for a, b in zip(pixel, shade, strict=True)) < 48 for pixel in pixels)
        assert len(pixels) > 0.2 * cut.width * cut.height
        assert near > 0.15 * len(pixels)


def test_a_drawn_product_covers_its_box_to_all_sides():
    for seed in range(40):
        for item in scene(seed).items:
            left, top, right, bottom = layer(item).getchannel("A").getbbox()
            width, height = layer(item).size
            assert right - left > 0.6 * width
            assert bottom - top > 0.6 * height


def test_pictures_differ_from_seed_to_seed():
    assert len({jpeg(scene(seed)) for seed in range(30)}) == 30


def test_drawing_leaves_the_background_where_nothing_stands():
    picture = scene(3, 1)
    image = draw(picture)
    left, top, *_ = picture.items[0].box
    if left > 2 and top > 2:
        assert max(abs(a - b) for a, b in zip(image.getpixel((0, 0)), picture.background, strict=True)) < 8
