"""The picture sizes of the buckets, and which picture goes where."""

import pytest

from training.pairs.arrangement import bucket_sizes, nearest_size


@pytest.mark.parametrize("resolution", [8, 16, 64, 200, 512, 520, 768, 1024])
def test_a_bucket_holds_no_more_than_the_square_and_fits_the_latents(resolution):
    sizes = bucket_sizes(resolution)
    step = 64 if resolution >= 256 else 8
    assert sizes[0][0] == sizes[0][1] == resolution // step * step
    assert len(set(sizes)) == len(sizes)
    for height, width in sizes:
        assert height * width <= resolution**2
        assert height % step == width % step == 0
        assert resolution / 2 <= min(height, width)
        assert max(height, width) <= 2 * resolution
        assert (width, height) in sizes


def test_small_buckets_are_whole_latents_of_more_pixels_too():
    assert all(side % 16 == 0 for size in bucket_sizes(96, 16) for side in size)
    assert bucket_sizes(512, 16) == bucket_sizes(512)


def test_the_sizes_at_512_by_hand():
    # sd-scripts at 512 with its own limits, 256 to 1024 by 64: for 704, floor(512^2 / 704 / 64) * 64 = 320
    tall = [(1024, 256), (960, 256), (896, 256), (832, 256), (768, 320), (704, 320), (640, 384), (576, 448)]
    assert set(bucket_sizes(512)) == {(512, 512), *tall, *((width, height) for height, width in tall)}


@pytest.mark.parametrize(
    ("picture", "bucket"),
    [
        ((512, 512), (512, 512)),
        ((3000, 3100), (512, 512)),
        ((1080, 1920), (384, 640)),  # 16:9
        ((1920, 1080), (640, 384)),
        ((1000, 100), (1024, 256)),  # nothing is as long
    ],
)
def test_a_picture_goes_where_least_is_cropped(picture, bucket):
    assert nearest_size(bucket_sizes(512), picture) == bucket
