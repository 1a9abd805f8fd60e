"""Scenes, pillars, tasks and methods of FlatFormer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.errors import BadOutput, MissingPackage, RequestError
from harness.testing import prepared, run_once
from methods.attention.flatformer import baselines, method, pillars, scans, tasks
from methods.attention.flatformer.detector import HEADS
from methods.attention.flatformer.grouping import flat_groups, random_groups
from methods.attention.flatformer.structure import extents
from tests.conftest import needs_data

SMALL = {"extent": 12.8, "width": 16, "heads": 2, "pillars": 90}


class Draws:
    """A generator whose draws are given."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def uniform(self, *_):
        return self.draws.pop(0)


@pytest.mark.parametrize(("angle", "yaw"), [(0.0, 0.0), (2.1, 0.7), (6.2, 3.0)])
def test_rays_end_where_a_march_along_them_enters_the_box(angle, yaw):
    size, far = np.array([4.0, 2.0, 1.6]), 6.0
    kind = scans.Kind(1, 1, tuple(size), (0, 0))
    elevation = np.radians(np.linspace(-30, 2, 9))[:, None]
    azimuth = 2 * np.pi * np.arange(120) / 120
    flat = np.cos(elevation)
    ray = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), np.broadcast_to(np.sin(elevation), (9, 120))]
    )
    distance, label = np.full((9, 120), np.inf), np.zeros((9, 120), np.int64)
    scans._stand(kind, Draws(angle, far, np.ones(3), yaw), ray, distance, label)
    t = np.arange(0, 12, 2e-3)
    x, y, z = ray[..., None] * t
    x, y, z = x - far * np.cos(angle), y - far * np.sin(angle), z + 2
    u, w = np.cos(yaw) * x + np.sin(yaw) * y, -np.sin(yaw) * x + np.cos(yaw) * y
    inside = (abs(u) <= size[0] / 2) & (abs(w) <= size[1] / 2) & (z >= 0) & (z <= size[2])
    entered = np.where(inside.any(-1), t[inside.argmax(-1)], np.inf)
    # A march can miss what it only grazes.
    assert np.array_equal(np.isfinite(distance), label == 1)
    both = np.isfinite(entered)
    assert both.sum() > 20
    assert np.isfinite(distance[both]).all()
    assert abs(distance[both] - entered[both]).max() < 2.1e-3
    assert (np.isfinite(distance) & ~both).sum() < 8


def test_a_made_up_sweep_is_what_its_description_says():
    sweep = scans.raycast(3)
    again, other = scans.raycast(3), scans.raycast(4)
    assert torch.equal(sweep.points, again.points)
    assert not torch.equal(sweep.points[:100], other.points[:100])
    assert 54_000 < len(sweep.points) < 62_000
    assert sweep.labels.unique().tolist() == list(range(6))
    ground = sweep.labels == 0
    assert float(sweep.points[ground, 2].abs().max()) < 0.1
    assert float(sweep.points[sweep.labels == 2, 2].max()) < 1.1 * 1.75 + 0.1
    reach = (sweep.points[:, :3] - torch.tensor([0, 0, 2.0])).norm(dim=1)
    assert float(reach.max()) < 75.2
    grid = tasks.grid_of("generated", 74.88)
    found = pillars.pillarise(sweep.points, torch.zeros(len(sweep.points), dtype=torch.int64), 1, grid)
    assert 6_500 < len(found.coords) < 11_000


def test_pillars_are_the_occupied_cells_sample_after_sample():
    grid = pillars.Grid(extent=1.6, low=-1, high=1)
    points = torch.zeros(5, 5)
    points[:, :3] = torch.tensor(
        [[0.1, 0.1, 0.5], [0.2, 0.1, -0.5], [-1.6, 1.59, 0], [1.6, 0, 0], [0.1, 0.1, 1.0]]
    )
    both, sample = pillars.batched([points, points[:1]])
    found = pillars.pillarise(both, sample, 2, grid)
    assert found.coords.tolist() == [[0, 0, 9], [0, 5, 5], [1, 5, 5]]
    assert found.counts == (2, 1)
    assert found.pillar.tolist() == [1, 1, 0, 2]
    assert found.kept.tolist() == [True, True, True, False, False, True]
    assert pillars.mean_height(found).tolist() == pytest.approx([0, 0, 0.5])
    labels = torch.tensor([4, 2, 1, 5])
    assert pillars.majority(found, labels).tolist() == [1, 2, 5]
    features = pillars.point_features(found, grid)
    expected = [0.1, 0.1, 0.5, 0, 0, -0.05, 0, 0.5, 0.1 - 0.16, 0.1 - 0.16, 0.5]
    assert features[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_pillar_encoder_is_its_formula_written_as_a_loop():
    torch.manual_seed(0)
    encoder = pillars.PillarEncoder(8).double()
    features = torch.randn(20, pillars.POINT_FEATURES, dtype=torch.float64)
    pillar = torch.arange(20) % 6
    found = encoder(features, pillar, 6)
    x = torch.relu(encoder.first_norm(encoder.first(features)))
    pooled = torch.stack([x[pillar == i].amax(0) for i in range(6)])
    x = torch.relu(encoder.second_norm(encoder.second(torch.cat([x, pooled[pillar]], 1))))
    assert torch.allclose(found, torch.stack([x[pillar == i].amax(0) for i in range(6)]))


def test_the_context_of_a_pillar_is_a_mean_over_its_neighbours():
    coords = torch.tensor([[0, 0, 0], [0, 4, 4], [0, 5, 0], [1, 0, 1], [0, 9, 9]])
    found = tasks.context(coords, torch.tensor([1.0, 3.0, 5.0, 7.0, 2.0]), 2, 10)
    assert found.tolist() == pytest.approx([3.0, 3.0, 3.0, 0.0, 0.0])


def test_the_probe_finds_what_is_there_and_no_more():
    draws = torch.Generator().manual_seed(0)
    features, noise = torch.randn(600, 5, generator=draws), torch.randn(600, generator=draws)
    train = torch.rand(600, generator=draws) < 0.5
    assert tasks.probe(features, features @ torch.tensor([1.0, 2, 0, 0, 1]), train) > 0.999
    assert abs(tasks.probe(features, noise, train)) < 0.1


@pytest.mark.parametrize("count", [150, 800])
def test_exactly_as_many_pillars_as_asked_for(count):
    task = tasks.PillarEncoding(pillars=count, batch=2, width=8)
    assert task.load(1000).counts == (count, count)


def test_what_cannot_be_had_is_refused():
    with pytest.raises(RequestError, match="ask for fewer"):
        tasks.PillarEncoding(pillars=20, extent=0.64).load(1000)
    with pytest.raises(RequestError, match="one sample"):
        tasks.PillarEncoding(scan="kitti", batch=2).load(1000)
    with pytest.raises(RequestError, match="whole number of pillars"):
        tasks.PillarEncoding(extent=10).load(1000)
    with pytest.raises(RequestError, match="needs a GPU"):
        prepared(method.FlatFormer(kernel="triton"), tasks.PillarEncoding(**SMALL))


ENCODERS = [
    method.FlatFormer(group=20, window=5),
    method.FlatFormer(group=20, axes="x", shift=False),
    baselines.SST(),
    baselines.SST(padding="training"),
    baselines.SST(padding="max"),
    baselines.RandomGroupsAttention(group=20),
    baselines.AllPillars(),
    baselines.PillarMlp(),
    baselines.SparseConvolution(),
    baselines.DenseConvolution(),
]


@pytest.mark.parametrize("contender", ENCODERS, ids=lambda m: m.name)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_encoder_runs(contender, dtype):
    found = run_once(contender, tasks.PillarEncoding(**SMALL, batch=2, dtype=dtype)).metrics
    assert found["context_r2"] <= 1
    assert found["pillars"] == 180
    if "padding_ratio" in found:
        assert found["padding_ratio"] >= 1
        assert 0 < found["attention_mass"] <= 1 + 1e-6


@pytest.mark.parametrize(
    "contender",
    [
        method.FlatFormerClassifier(group=20, window=5),
        baselines.SSTClassifier(),
        baselines.RandomGroupsClassifier(group=20),
        baselines.AllPillarsClassifier(),
        baselines.PillarMlpClassifier(),
        baselines.SparseConvolutionClassifier(),
    ],
    ids=lambda m: m.name,
)
def test_every_classifier_learns(contender):
    task = tasks.PillarClassification(
        train=2, test=1, extent=12.8, beams=16, azimuths=128, width=16, heads=2, layers=2, steps=25, lr=1e-2
    )
    found = run_once(contender, task)
    losses = found.series["loss"].y
    assert len(losses) == 25
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert found.metrics["accuracy"] > 0.4


@pytest.mark.parametrize(
    "contender",
    [
        method.FlatFormerDetector(group=20, window=5, layers=4),
        baselines.SSTDetector(layers=2),
        baselines.SparseConvolutionDetector(layers=2),
    ],
    ids=lambda m: m.name,
)
def test_every_detector_gives_the_maps_of_the_head(contender):
    task = tasks.BirdsEyeDetection(extent=10.24, width=16, heads=2, batch=2, pillars=60)
    ready = prepared(contender, task)
    output = ready.run()
    assert {n: tuple(m.shape) for n, m in output.maps.items()} == {n: (2, c, 64, 64) for n, c in HEADS.items()}
    assert set(ready.measure(output)) == {"context_r2", "pillars"}
    output.maps["heat"][0, 0, 0, 0] = torch.nan
    with pytest.raises(BadOutput, match="not finite"):
        task.score(ready.work, output)


def test_a_batch_of_two_is_two_passes_of_the_detector():
    task = tasks.BirdsEyeDetection(extent=10.24, width=16, heads=2, batch=2, pillars=60)
    ready = prepared(method.FlatFormerDetector(group=20, window=5), task)
    both = ready.run()
    for i in range(2):
        mine = ready.sample == i
        with torch.no_grad():
            _, _, maps = ready.network(ready.points[mine], ready.sample[mine] * 0, 1)
        for name, values in maps.items():
            assert torch.allclose(values[0], both.maps[name][i], atol=1e-4)


def test_without_the_library_its_methods_are_skipped():
    try:
        import spconv  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPackage, match="spconv"):
            prepared(baselines.Spconv(), tasks.PillarEncoding(**SMALL))


def test_scores_of_a_classification_are_counts():
    scene = tasks.Scene(
        torch.zeros(0, 11), torch.zeros(0, dtype=torch.int64), torch.zeros(4, 3), torch.tensor([0, 0, 1, 2])
    )
    work = tasks.Scenes((), (scene,), pillars.Grid())
    found = tasks.PillarClassification().score(work, [torch.tensor([0, 1, 1, 0])])
    assert found["accuracy"] == 0.5
    assert found["ground_iou"] == pytest.approx(1 / 3)
    assert found["car_iou"] == 0.5
    assert found["pedestrian_iou"] == 0
    assert found["miou"] == pytest.approx((1 / 3 + 0.5 + 0 + 3) / 6)
    with pytest.raises(BadOutput, match="not one class"):
        tasks.PillarClassification().score(work, [torch.tensor([0])])


@needs_data("lidar-scans")
@pytest.mark.parametrize(("scan", "count"), [("nuscenes", 5886), ("kitti", 1967)])
def test_recorded_sweeps_have_the_pillars_that_they_have(scan, count):
    work = tasks.PillarEncoding(scan=scan, width=8).load(1000)
    assert len(work.coords) == count
    groups = flat_groups(work.coords, work.counts, window=13, group=144, cells=468)
    assert groups.rows.numel() == 144 * -(-count // 144)
    assert groups.rows.numel() / count < 1 + 144 / count


@needs_data("lidar-scans")
def test_groups_on_a_recorded_sweep_are_compact():
    work = tasks.PillarEncoding(scan="nuscenes", width=8).load(1000)
    flat = flat_groups(work.coords, work.counts, window=13, group=144, cells=468)
    random = random_groups(work.coords, work.counts, 144, torch.Generator().manual_seed(0))
    area, chance = (float(extents(g, work.coords).prod(1).mean()) for g in (flat, random))
    assert area < chance / 10


@needs_data("lidar-scans")
def test_padding_of_windows_on_recorded_sweeps():
    for scan, bucketed in (("nuscenes", 2.58), ("kitti", 1.91)):
        work = tasks.PillarEncoding(scan=scan, width=8).load(1000)
        encoder = baselines.SST().encoder(baselines.Shape(1, 8, 1, 468))
        groups = encoder.groups(work.coords, work.counts)
        slots = sum(b.rows.numel() for g in groups for b in g.buckets)
        # Exact arithmetic on a fixed sweep; the figure is the mean of the two shifts or one of them.
        assert slots / (2 * len(work.coords)) == pytest.approx(bucketed, rel=0.1)
