"""The family's data and models: splits, orders, image files, Python sources."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import MissingData
from harness.testing import run_once
from methods.training.baselines import AdamW
from methods.training.images import ImageFolder, Shuffled, epochs_order, image_set
from methods.training.models import VisionTransformer, initialised, mlp
from methods.training.tasks import ImageClassification, ImageFolderClassification
from methods.training.text import TextWindows, python_sources, window_starts


def test_order_is_whole_permutations_and_depends_on_the_seed():
    order = epochs_order(10, steps=5, batch=4, seed=1)
    assert order.shape == (5, 4)
    assert sorted(order.flatten()[:10].tolist()) == list(range(10))
    assert sorted(order.flatten()[10:].tolist()) == list(range(10))
    assert torch.equal(order, epochs_order(10, 5, 4, 1))
    assert not torch.equal(order, epochs_order(10, 5, 4, 2))
    with pytest.raises(ValueError, match="larger than"):
        epochs_order(10, 1, 11, 1)


def test_equal_epochs_are_equal_numbers_of_images():
    for batch in (32, 256, 1437):
        task = ImageClassification(batch=batch, epochs=8)
        work = task.load(1000)
        assert task.amount(work) == pytest.approx(8 * 1437, abs=batch / 2)


def test_parts_of_a_batch_add_up_to_its_loss_and_gradient():
    work = ImageClassification(batch=1200, steps=1).load(1000)
    images, order = work.batches.images, work.batches.order[0]
    parts = list(work.batches.losses(work.model, 0))
    assert len(parts) == 3
    whole = torch.nn.functional.cross_entropy(
        work.model(images.train_images[order]), images.train_labels[order]
    )
    torch.testing.assert_close(sum(parts), whole)
    weight = work.model[1].weight
    (expected,) = torch.autograd.grad(whole, weight)
    measured = sum(torch.autograd.grad(part, weight)[0] for part in parts)
    torch.testing.assert_close(measured, expected)


def test_digits_are_split_once_and_standardised():
    digits = image_set("digits")
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert float(digits.train_images.mean()) == pytest.approx(0.0, abs=1e-5)
    assert torch.equal(digits.test_labels, image_set("digits").test_labels)


def test_initial_weights_depend_on_the_seed_and_leave_the_global_state():
    before = torch.get_rng_state()
    one, two, other = (initialised(lambda: mlp([4, 3, 2]), seed) for seed in (1, 1, 2))
    assert torch.equal(one[1].weight, two[1].weight)
    assert not torch.equal(one[1].weight, other[1].weight)
    assert torch.equal(before, torch.get_rng_state())


def test_tokens_of_the_vision_transformer_are_patches():
    model = VisionTransformer(image=8, channels=1, patch=2, width=8, depth=1, heads=2, hidden=16, classes=3)
    images = torch.randn(5, 1, 8, 8)
    assert model(images).shape == (5, 3)
    # Without positions a mean over tokens does not see the order of patches.
    model.positions.data.zero_()
    swapped = images.clone()
    swapped[..., :2, :2], swapped[..., 6:, 4:6] = images[..., 6:, 4:6], images[..., :2, :2]
    torch.testing.assert_close(model(images), model(swapped))
    with pytest.raises(ValueError, match="tile"):
        VisionTransformer(image=9, channels=1, patch=2, width=8, depth=1, heads=2, hidden=16, classes=3)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for label, colour in enumerate([(200, 30, 30), (30, 30, 200)]):
            folder = tmp_path / "photos" / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                noise = random.integers(0, 30, (20 + i, 30, 3))
                Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(folder / f"{i}.png")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    return tmp_path / "photos"


def test_crops_depend_on_seed_pass_and_image_alone(photographs):
    images = ImageFolder(photographs / "train", 16, augment_seed=3)
    assert len(images) == 12
    assert torch.equal(images[4][0], images[4][0])
    assert not torch.equal(images[4][0], images[4 + len(images)][0]), "another pass, another crop"
    assert images[7][1] == images[7 + 12][1] == 1
    assert images[0][0].shape == (3, 16, 16)
    plain = ImageFolder(photographs / "val", 16, augment_seed=None)
    assert torch.equal(plain[0][0], plain[6][0])


def test_shuffled_places_are_permutations():
    places = list(Shuffled(5, 12, seed=1))
    assert sorted(places[:5]) == list(range(5))
    assert sorted(places[5:10]) == list(range(5, 10))
    assert all(10 <= p < 15 for p in places[10:])
    assert len(set(places[10:])) == 2


def test_a_folder_of_photographs_is_learned(photographs):
    task = ImageFolderClassification(
        folder="photos",
        image=16,
        patch=8,
        width=16,
        depth=1,
        heads=2,
        batch=6,
        epochs=10,
        workers=0,
        precision="float32",
    )
    measured = run_once(AdamW(learning_rate=0.01), task)
    assert measured.metrics["accuracy"] == 1.0
    with pytest.raises(MissingData):
        ImageFolderClassification(folder="absent").load(1000)


def test_python_sources_are_all_files_in_a_fixed_order(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "a.py").write_bytes(b"a = 1")
    (tmp_path / "package" / "b.py").write_bytes(b"b = 2")
    (tmp_path / "c.txt").write_bytes(b"no")
    text = bytes(python_sources(folders=(tmp_path,)).tolist())
    assert sorted(text.split(b"\n")) == [b"a = 1", b"b = 2"]
    assert bytes(python_sources(folders=(tmp_path / "package", tmp_path)).tolist()).count(b"b = 2") == 1
    assert bytes(python_sources(4, folders=(tmp_path,)).tolist()) == text[:4]
    with pytest.raises(MissingData):
        python_sources(folders=(tmp_path / "package" / "none",))


def test_windows_lie_inside_the_text():
    starts = window_starts(10, steps=200, batch=3, context=8, seed=1)
    assert set(starts.flatten().tolist()) == {0, 1}
    with pytest.raises(ValueError, match="no window"):
        window_starts(8, 1, 1, 8, 1)


def test_loss_of_a_window_is_of_its_next_bytes():
    class Oracle(torch.nn.Module):
        """Sure that the next byte is this one plus one."""

        def forward(self, input_ids, use_cache):
            logits = torch.nn.functional.one_hot(input_ids + 1, 256) * 50.0
            return type("Output", (), {"logits": logits})

    text = torch.arange(100, dtype=torch.uint8)
    batches = TextWindows(text, text, window_starts(100, 2, 4, 10, 1), 10)
    assert float(batches.loss(Oracle(), 1)) == pytest.approx(0.0, abs=1e-6)
