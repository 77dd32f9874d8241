"""Augmentation changes pictures and keeps picture and depth together."""

import torch
from torchvision.transforms.v2 import functional

from model.data.augment import _flip_at_once, _flip_each, augment, random_resized_crops

SIZE = 32


def batch(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose brightness is their depth: both grow to the right, each from its own level."""
    ramp = torch.linspace(0.1, 0.6, SIZE).expand(count, 1, SIZE, SIZE) + 0.03 * torch.arange(count).reshape(-1, 1, 1, 1)
    images = (ramp * 255).round().to(torch.uint8).expand(count, 3, SIZE, SIZE).contiguous()
    return images, ramp[:, :, ::4, ::4].contiguous()


def augmented(seed: int, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return augment(*batch(count))


def test_types_and_shapes_stay_and_the_batch_that_is_given_too():
    for count in (1, 2, 3, 5, 8):
        images, depth = batch(count)
        before = images.clone(), depth.clone()
        new_images, new_depth = augment(images, depth)
        assert torch.equal(images, before[0])
        assert torch.equal(depth, before[1])
        assert (new_images.dtype, new_images.shape) == (torch.float32, images.shape)
        assert 0.0 <= new_images.min() <= new_images.max() <= 255.0
        assert (new_depth.dtype, new_depth.shape) == (torch.float32, depth.shape)
        assert type(new_images) is type(new_depth) is torch.Tensor


def test_the_depth_is_flipped_where_the_picture_is_and_never_changed_otherwise():
    _, depth = batch()
    flips = set()
    for seed in range(12):
        new_images, new_depth = augmented(seed)
        for number in range(len(depth)):
            brightness = new_images[number].float().mean((0, 1))
            flipped = bool(brightness[0] > brightness[-1])
            assert torch.equal(new_depth[number], depth[number].flip(-1) if flipped else depth[number])
            flips.add(flipped)
    assert flips == {False, True}


def test_upside_down_there_is_nothing():
    torch.manual_seed(0)
    images, depth = (tensor.transpose(2, 3).contiguous() for tensor in batch())
    for _ in range(12):
        new_images, new_depth = augment(images, depth)
        rows = new_images.float().mean((1, 3))
        assert (rows[:, 0] < rows[:, -1]).all()
        assert torch.equal(new_depth, depth)


def test_colours_change():
    images, _ = batch()
    assert any(not torch.equal(augmented(seed)[0], images) for seed in range(3))
    red = torch.zeros(8, 3, SIZE, SIZE, dtype=torch.uint8)
    red[:, 0] = 200
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        new, _ = augment(red, batch()[1])
        seen.update(map(tuple, new[:, :, 0, 0].tolist()))
    assert len(seen) > 12


def test_every_picture_of_a_batch_is_drawn_on_its_own():
    flips = set()
    for seed in range(12):
        images, _ = augmented(seed)
        flips.add(tuple(bool(row[0] > row[-1]) for row in images.mean((1, 2))))
    assert len(flips) == 12
    assert all(len(set(column)) == 2 for column in zip(*flips, strict=True))


def test_colours_are_jittered_as_torchvision_does_each_alone(monkeypatch):
    images = torch.randint(60, 180, (4, 3, SIZE, SIZE), dtype=torch.uint8)
    same = {"_BRIGHTNESS": 0.0, "_CONTRAST": 0.0, "_SATURATION": 0.0, "_HUE": 0.0, "_GREY": 0.0, "_FLIPPED": 0.0}
    for name, value in same.items():
        monkeypatch.setattr(f"model.data.augment.{name}", value)
    plain, _ = augment(images, images[:, :1].float())
    assert torch.allclose(plain, images.float(), atol=0.1)
    kinds = {
        "_BRIGHTNESS": functional.adjust_brightness,
        "_CONTRAST": functional.adjust_contrast,
        "_SATURATION": functional.adjust_saturation,
    }
    for name, adjust in kinds.items():
        monkeypatch.setattr(f"model.data.augment.{name}", 0.25)
        augmented, _ = augment(images, images[:, :1].float())
        for picture, image in zip(augmented, images, strict=True):
            tried = [adjust(image.float() / 255.0, factor) * 255.0 for factor in torch.linspace(0.75, 1.25, 501)]
            assert min((picture - one).abs().max() for one in tried) < 0.5
        monkeypatch.setattr(f"model.data.augment.{name}", 0.0)
    monkeypatch.setattr("model.data.augment._GREY", 1.0)
    augmented, _ = augment(images, images[:, :1].float())
    assert torch.allclose(augmented, functional.rgb_to_grayscale(images.float(), 3), atol=0.1)


def test_hue_turns_and_leaves_grey_and_brightness(monkeypatch):
    for name in ("_BRIGHTNESS", "_CONTRAST", "_SATURATION", "_GREY", "_FLIPPED"):
        monkeypatch.setattr(f"model.data.augment.{name}", 0.0)
    grey = torch.full((8, 3, 4, 4), 90, dtype=torch.uint8)
    assert torch.allclose(augment(grey, grey[:, :1].float())[0], grey.float(), atol=0.1)
    coloured = torch.tensor([120, 90, 80], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(8, 3, 4, 4)
    augmented, _ = augment(coloured, coloured[:, :1].float())
    luma = functional.rgb_to_grayscale(augmented)
    assert torch.allclose(luma, functional.rgb_to_grayscale(coloured.float()), atol=0.5)
    assert len({round(float(value), 2) for value in augmented[:, 0, 0, 0]}) == 8


def test_one_seed_of_torch_gives_one_result():
    one, other, third = augmented(5), augmented(5), augmented(6)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], third[0])


def test_pictures_are_mirrored_alike_one_by_one_and_together():
    images, depth = batch()
    flips = torch.tensor([True, False, True, True, False, False, True, False])
    for planes in (images, depth):
        assert torch.equal(_flip_each(planes, flips), _flip_at_once(planes, flips))
        assert torch.equal(_flip_each(planes, flips)[0], planes[0].flip(-1))


def test_crops_are_parts_of_the_image_of_the_drawn_area_and_shape_at_its_size():
    """Each pixel holds its own coordinates: a crop shows which part of the image it is."""
    size, least = 64, 0.3
    places = (torch.arange(size) + 0.5) / size
    image = torch.stack([places.expand(size, size), places[:, None].expand(size, size)])
    torch.manual_seed(0)
    crops = random_resized_crops(image.repeat(400, 1, 1, 1), least)
    assert crops.shape == (400, 2, size, size)
    x, y = crops[:, 0, 0], crops[:, 1, :, 0]
    assert torch.allclose(crops[:, 0], x[:, None].expand(-1, size, -1), atol=1e-6), "straight"
    widths, heights = ((one[:, -2] - one[:, 1]) * size / (size - 3) for one in (x, y))
    areas, ratios = widths * heights, widths / heights
    assert least - 0.02 < areas.min() < least + 0.05
    assert areas.max() > 0.9
    assert 0.74 < ratios.min() < 0.8
    assert 1.25 < ratios.max() < 1.34
    middles = torch.stack([x.mean(1), y.mean(1)])
    assert (middles.mean(1) - 0.5).abs().max() < 0.02, "anywhere, without preference"
    assert middles.std(1).min() > 0.05
