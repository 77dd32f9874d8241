"""Augmentation changes pictures and keeps picture and depth together."""

import torch

from model.augment import augment

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
        assert (new_images.dtype, new_images.shape) == (torch.uint8, images.shape)
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


def test_groups_of_one_batch_are_drawn_apart():
    apart = 0
    for seed in range(12):
        flipped = [bool(image.float().mean((0, 1))[0] > image.float().mean((0, 1))[-1]) for image in augmented(seed)[0]]
        assert flipped[0] == flipped[1]
        apart += len(set(flipped)) == 2
    assert apart > 6


def test_one_seed_of_torch_gives_one_result():
    one, other, third = augmented(5), augmented(5), augmented(6)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], third[0])
