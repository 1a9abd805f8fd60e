"""The paper's tasks: features of pillars, a class for each pillar, and the whole network of a detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import BadOutput, RequestError
from harness.method import Metric, Task, task
from harness.seeding import derive, torch_generator
from harness.types import NonNegativeInt, PositiveFloat, PositiveInt
from methods.attention.flatformer.pillars import (
    Grid,
    PillarEncoder,
    Pillars,
    batched,
    majority,
    mean_height,
    pillarise,
    point_features,
)
from methods.attention.flatformer.scans import CLASSES, Sweep, raycast, recorded, take

_RADIUS = 4
"""Pillars to each side whose mean height is the context that is asked for."""

_USUAL = 8000
"""Pillars of a scene at the sensor's usual resolution, roughly."""

_FINEST = 20.0
"""Times the sensor's usual number of beams at which a scene is given up on."""


@dataclass(frozen=True)
class PillarWork:
    """Occupied pillars and what is known of them.

    Attributes:
        coords: sample, x and y index, int64, (N, 3), sample after sample.
        counts: pillars of each sample.
        x: features of each pillar by itself, float32, (N, d).
        context: mean height of the other pillars within 4 pillars to each side, in m, float32, (N,).
        train: half of the pillars, drawn at random, to fit the probe on: bool, (N,).
        grid: the pillars that there may be.
        dtype: that methods compute in.
    """

    coords: Tensor
    counts: tuple[int, ...]
    x: Tensor
    context: Tensor
    train: Tensor
    grid: Grid
    dtype: torch.dtype


CONTEXT = Metric(
    "context_r2",
    doc="Variance of the mean height around a pillar that ridge regression on its features explains, held out.",
)


@task(
    "pillar-encoding",
    metrics=(CONTEXT, Metric("pillars", better="neither", doc="N, occupied pillars of all samples.")),
    amount_unit="pillars",
    data=("lidar-scans",),
)
class PillarEncoding(Task[PillarWork, Tensor]):
    """Give the occupied pillars of a LiDAR sweep features that know of their surroundings.

    Weights are random. How much the features know is read out by ridge regression, which needs no labels and
    so works on recorded sweeps as well.
    """

    scan: Literal["generated", "nuscenes", "kitti"] = "generated"
    """A made-up street scene for each seed, or a recorded sweep (the same for every seed)."""
    batch: PositiveInt = 1
    """Sweeps; more than one of a made-up scene only."""
    pillars: NonNegativeInt = 0
    """Pillars of each made-up sweep, exactly: the sensor gets more beams until there are enough, and what is too
    many is dropped at random. 0: as many as there are."""
    extent: PositiveFloat = 74.88
    """x and y are in [-extent, extent) m; a whole number of pillars of 0.32 m."""
    width: PositiveInt = 128
    """d, channels; a multiple of 4 and of heads."""
    heads: PositiveInt = 8
    """Of each attention."""
    layers: PositiveInt = 4
    """Of the network, whichever its kind."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of weights and features."""

    def load(self, seed: int) -> PillarWork:
        grid = grid_of(self.scan, self.extent)
        points, sample = batched([s.points for s in sweeps(self.scan, seed, self.batch, self.pillars, grid)])
        pillars = pillarise(points, sample, self.batch, grid)
        return PillarWork(
            coords=pillars.coords,
            counts=pillars.counts,
            x=_features(pillars, grid, self.width, seed),
            context=context(pillars.coords, mean_height(pillars), self.batch, grid.cells),
            train=torch.rand(len(pillars.coords), generator=torch_generator(seed, "probe")) < 0.5,
            grid=grid,
            dtype=getattr(torch, self.dtype),
        )

    def amount(self, work: PillarWork) -> float:
        return float(len(work.coords))

    def score(self, work: PillarWork, output: Tensor) -> dict[str, float]:
        if output.shape != work.x.shape:
            raise BadOutput(f"the features have shape {tuple(output.shape)}, not {tuple(work.x.shape)}")
        if not bool(output.isfinite().all()):
            raise BadOutput("the features are not finite everywhere")
        return {"context_r2": probe(output, work.context, work.train), "pillars": float(len(work.coords))}


@torch.no_grad()
def _features(pillars: Pillars, grid: Grid, width: int, seed: int) -> Tensor:
    """Features by a pillar encoder with random weights that normalises by this batch."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "pillar encoder"))
        encoder = PillarEncoder(width)
    x: Tensor = encoder(point_features(pillars, grid), pillars.pillar, len(pillars.coords))
    return x


def grid_of(scan: str, extent: float) -> Grid:
    """The grid that a scan's heights fit into: recorded ones count from the sensor, made-up ones from the ground."""
    low, high = (-2.0, 10.0) if scan == "generated" else (-4.0, 4.0)
    grid = Grid(extent=extent, low=low, high=high)
    if abs(grid.cells * grid.pillar - 2 * extent) > 1e-6:
        raise RequestError(f"extent ({extent} m) must be a whole number of pillars of {grid.pillar / 2} m")
    return grid


def sweeps(scan: str, seed: int, batch: int, pillars: int, grid: Grid) -> list[Sweep]:
    """The sweeps of a task's parameters.

    Raises:
        MissingData: the recorded sweep is not here.
        RequestError: `batch` or `pillars` do not go with a recorded sweep, or so many pillars cannot be had.
    """
    if scan == "generated":
        return [made_up(derive(seed, "scene", i), pillars, grid) for i in range(batch)]
    if batch > 1 or pillars:
        raise RequestError(f"the recorded sweep '{scan}' is one sample: leave batch at 1 and pillars at 0")
    return [recorded("nuscenes" if scan == "nuscenes" else "kitti")]


def made_up(seed: int, pillars: int, grid: Grid) -> Sweep:
    """A made-up sweep with exactly `pillars` occupied pillars, or with as many as there are for 0."""
    if not pillars:
        return raycast(seed)
    # Beams fill the ground between their rings; along a ring there are nearly enough points already.
    scale = 0.6 * pillars / _USUAL
    while scale <= _FINEST:
        beams, azimuths = max(4, round(64 * scale)), round(1024 * min(2.0, max(0.5, scale**0.5)))
        sweep = raycast(seed, beams, azimuths)
        found = pillarise(sweep.points, torch.zeros(len(sweep.points), dtype=torch.int64), 1, grid)
        n = len(found.coords)
        if n >= pillars:
            chosen = torch.zeros(n, dtype=torch.bool)
            chosen[torch.randperm(n, generator=torch_generator(seed, "dropped pillars"))[:pillars]] = True
            inside = take(sweep, found.kept)
            return take(inside, chosen[found.pillar])
        scale *= min(2.0, max(1.03, 1.02 * pillars / max(n, 1)))
    raise RequestError(f"no scene has {pillars} pillars within {grid.extent} m: ask for fewer")


def context(coords: Tensor, height: Tensor, samples: int, cells: int) -> Tensor:
    """Mean of `height` over the other occupied pillars within 4 pillars to each side; 0 where there is none."""
    sample, x, y = coords.unbind(1)
    canvas = torch.zeros(2, samples, cells, cells, dtype=torch.float64)
    canvas[0, sample, x, y] = height.double()
    canvas[1, sample, x, y] = 1.0
    side = 2 * _RADIUS + 1
    total = F.avg_pool2d(canvas, side, stride=1, padding=_RADIUS, count_include_pad=True) * side**2
    around = (total - canvas)[:, sample, x, y]
    count = around[1].round()
    return torch.where(count > 0, around[0] / count.clamp(min=1), 0.0).float()


def probe(features: Tensor, target: Tensor, train: Tensor) -> float:
    """R² on the pillars outside `train` of ridge regression from features (N, d) to target (N,) on those in it."""
    x, y = features.detach().cpu().double(), target.double()
    mean, spread = x[train].mean(0), x[train].std(0).clamp(min=1e-6)
    x = (x - mean) / spread
    middle = y[train].mean()
    a, b = x[train], y[train] - middle
    ridge = 1e-2 * len(a) * torch.eye(a.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(a.T @ a + ridge, a.T @ b)
    left = y[~train] - middle - x[~train] @ weight
    return float(1 - left.square().sum() / (y[~train] - y[~train].mean()).square().sum())


@dataclass(frozen=True)
class Scene:
    """A labelled sweep as a network sees it.

    Attributes:
        features: of its points, (P, 11), see `pillars.point_features`.
        pillar: the pillar of each point, int64, (P,).
        coords: sample 0, x and y index of its pillars, int64, (N, 3).
        label: the commonest class of each pillar's points, int64, (N,).
    """

    features: Tensor
    pillar: Tensor
    coords: Tensor
    label: Tensor

    def to(self, device: str) -> Scene:
        """The same on `device`."""
        return Scene(*(t.to(device) for t in (self.features, self.pillar, self.coords, self.label)))


@dataclass(frozen=True)
class Scenes:
    """Scenes to train with and to test on, in one grid."""

    train: tuple[Scene, ...]
    test: tuple[Scene, ...]
    grid: Grid


@task(
    "pillar-classification",
    metrics=(
        Metric("miou", doc="Mean over the classes of intersection over union on the test scenes."),
        Metric("accuracy", doc="Share of the test pillars that are classified rightly."),
        Metric("ground_iou", doc="Intersection over union of the ground."),
        Metric("car_iou", doc="Of cars."),
        Metric("pedestrian_iou", doc="Of pedestrians."),
        Metric("cyclist_iou", doc="Of cyclists."),
        Metric("building_iou", doc="Of buildings."),
        Metric("pole_iou", doc="Of poles."),
    ),
    repeats="once",
    amount_unit="steps",
)
class PillarClassification(Task[Scenes, list[Tensor]]):
    """Learn to say of each pillar of made-up scenes what most of its points lie on."""

    train: PositiveInt = 40
    """Scenes to train with."""
    test: PositiveInt = 10
    """Scenes to test on."""
    extent: PositiveFloat = 37.44
    """x and y are in [-extent, extent) m."""
    beams: PositiveInt = 64
    """Of the sensor."""
    azimuths: PositiveInt = 512
    """Rays of a turn of each beam."""
    width: PositiveInt = 32
    """d, channels."""
    heads: PositiveInt = 4
    """Of each attention."""
    layers: PositiveInt = 4
    """Of the network."""
    steps: PositiveInt = 300
    """Of training, on one scene each."""
    lr: PositiveFloat = 2e-3
    """Learning rate of AdamW."""

    def load(self, seed: int) -> Scenes:
        grid = grid_of("generated", self.extent)
        parts = (("train", self.train), ("test", self.test))
        train, test = (tuple(self._scene(derive(seed, part, i), grid) for i in range(n)) for part, n in parts)
        return Scenes(train, test, grid)

    def _scene(self, seed: int, grid: Grid) -> Scene:
        sweep = raycast(seed, self.beams, self.azimuths)
        pillars = pillarise(sweep.points, torch.zeros(len(sweep.points), dtype=torch.int64), 1, grid)
        assert sweep.labels is not None
        label = majority(pillars, sweep.labels[pillars.kept])
        return Scene(point_features(pillars, grid), pillars.pillar, pillars.coords, label)

    def amount(self, work: Scenes) -> float:
        return float(self.steps)

    def score(self, work: Scenes, output: list[Tensor]) -> dict[str, float]:
        """`output`: the class of each pillar of each test scene, int64, (N,)."""
        if [len(o) for o in output] != [len(s.label) for s in work.test]:
            raise BadOutput("there is not one class for each pillar of each test scene")
        said, true = torch.cat(output).cpu(), torch.cat([s.label for s in work.test]).cpu()
        both = torch.stack([((said == c) & (true == c)).sum() for c in range(len(CLASSES))]).double()
        either = torch.stack([((said == c) | (true == c)).sum() for c in range(len(CLASSES))]).double()
        # A class that is neither there nor said to be is got right.
        iou = torch.where(either > 0, both / either.clamp(min=1), 1.0)
        scores = {f"{name}_iou": float(v) for name, v in zip(CLASSES, iou, strict=True)}
        return {"miou": float(iou.mean()), "accuracy": float((said == true).double().mean()), **scores}


@dataclass(frozen=True)
class Batch:
    """Points of sweeps: (P, 5) float32, the sample of each (P,) int64, how many samples, and the grid."""

    points: Tensor
    sample: Tensor
    samples: int
    grid: Grid
    dtype: torch.dtype
    seed: int


@dataclass(frozen=True)
class Detected:
    """What a detector computes: its pillars, their features (N, d) and the head's maps by name."""

    pillars: Pillars
    x: Tensor
    maps: dict[str, Tensor]


@task(
    "birds-eye-detection",
    metrics=(
        CONTEXT,
        Metric("pillars", better="neither", doc="Mean number of occupied pillars of a sample."),
    ),
    amount_unit="sweeps",
    data=("lidar-scans",),
)
class BirdsEyeDetection(Task[Batch, Detected]):
    """From the points of a sweep to the maps that a CenterPoint head reads boxes from, with random weights.

    It is about time and memory; boxes would need Waymo's labels.
    """

    scan: Literal["generated", "nuscenes", "kitti"] = "generated"
    """See `PillarEncoding`."""
    batch: PositiveInt = 1
    """Sweeps; more than one of a made-up scene only."""
    pillars: NonNegativeInt = 0
    """See `PillarEncoding`."""
    extent: PositiveFloat = 74.88
    """x and y are in [-extent, extent) m: an even number of pillars of 0.32 m."""
    width: PositiveInt = 128
    """d, channels."""
    heads: PositiveInt = 8
    """Of each attention."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of weights and features; coordinates are float32."""

    def load(self, seed: int) -> Batch:
        grid = grid_of(self.scan, self.extent)
        points, sample = batched([s.points for s in sweeps(self.scan, seed, self.batch, self.pillars, grid)])
        return Batch(points, sample, self.batch, grid, getattr(torch, self.dtype), seed)

    def amount(self, work: Batch) -> float:
        return float(work.samples)

    def score(self, work: Batch, output: Detected) -> dict[str, float]:
        side = work.grid.cells
        for name, values in output.maps.items():
            if values.shape[0] != work.samples or values.shape[2:] != (side, side):
                raise BadOutput(f"the map '{name}' has shape {tuple(values.shape)}")
            if not bool(values.isfinite().all()):
                raise BadOutput(f"the map '{name}' is not finite everywhere")
        pillars = pillarise(work.points, work.sample, work.samples, work.grid)
        if output.x.shape[0] != len(pillars.coords):
            raise BadOutput(f"there are features of {len(output.x)} pillars, not {len(pillars.coords)}")
        around = context(pillars.coords, mean_height(pillars), work.samples, side)
        train = torch.rand(len(around), generator=torch_generator(work.seed, "probe")) < 0.5
        return {
            "context_r2": probe(output.x, around, train),
            "pillars": len(pillars.coords) / work.samples,
        }
