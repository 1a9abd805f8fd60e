"""LiDAR sweeps: recorded ones, and a ray-caster that makes labelled ones from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness import data
from harness.seeding import rng

CLASSES = ("ground", "car", "pedestrian", "cyclist", "building", "pole")

Recorded = Literal["nuscenes", "kitti"]
FILES: dict[str, str] = {"nuscenes": "nuscenes_n015_1532402927647951.npz", "kitti": "kitti_000008.npz"}
_FULL_INTENSITY = {"nuscenes": 255.0, "kitti": 1.0}

_HEIGHT = 2.0
_REACH = 75.0
_ELEVATIONS = (-17.6, 2.4)
_NOISE = 0.02
_DROPPED = 0.05


@dataclass(frozen=True)
class Sweep:
    """One turn of the sensor.

    Attributes:
        points: x, y, z in m, intensity in [0, 1], elongation (0 where the sensor has none); float32, (points, 5).
        labels: index into `CLASSES`, int64, (points,); None for a recorded sweep.
    """

    points: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Kind:
    """A class of upright boxes that stand on the ground.

    Attributes:
        label: index into `CLASSES`.
        count: how many a scene has.
        size: length, width and height in m.
        reach: nearest and farthest distance of the centre from the sensor in m.
        jitter: each side is multiplied by a factor uniform in 1 ± jitter.
        any_yaw: whether the yaw is uniform; else 0 or 90 degrees.
    """

    label: int
    count: int
    size: tuple[float, float, float]
    reach: tuple[float, float]
    jitter: float = 0.1
    any_yaw: bool = True


KINDS = (
    Kind(1, 25, (4.5, 1.9, 1.6), (5, 60)),
    Kind(2, 15, (0.7, 0.7, 1.75), (4, 40)),
    Kind(3, 6, (1.8, 0.7, 1.7), (4, 45)),
    Kind(4, 14, (18, 10, 8), (22, 72), jitter=0.4, any_yaw=False),
    Kind(5, 20, (0.3, 0.3, 6), (6, 50), jitter=0.2),
)


def recorded(name: Recorded) -> Sweep:
    """A recorded sweep of the data set ``lidar-scans``.

    Raises:
        MissingData: it is not under ``HARNESS_DATA``.
    """
    raw = data.arrays("lidar-scans", FILES[name])["points"].astype(np.float32)
    points = np.zeros((len(raw), 5), np.float32)
    points[:, :3] = raw[:, :3]
    points[:, 3] = raw[:, 3] / _FULL_INTENSITY[name]
    return Sweep(torch.from_numpy(points))


def raycast(seed: int, beams: int = 64, azimuths: int = 1024) -> Sweep:
    """A made-up street scene as a sensor with `beams` x `azimuths` rays would see it.

    The sensor is 2 m above the plane z = 0; its beams are evenly spaced in elevation. Each ray ends at the nearest
    box or at the ground; hits beyond 75 m are lost, 5 % of the others drop out, and ranges have noise of 2 cm.
    The same seed gives the same boxes at any resolution. Intensity and elongation are 0.
    """
    elevation = np.radians(np.linspace(*_ELEVATIONS, beams))[:, None]
    azimuth = 2 * np.pi * np.arange(azimuths) / azimuths
    ray = np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.broadcast_to(np.sin(elevation), (beams, azimuths)),
        ]
    )
    down = np.minimum(ray[2], -1e-12)
    distance = np.where(ray[2] < 0, -_HEIGHT / down, np.inf)
    label = np.zeros((beams, azimuths), np.int64)
    boxes = rng(seed, "boxes")
    for kind in KINDS:
        for _ in range(kind.count):
            _stand(kind, boxes, ray, distance, label)
    sensor = rng(seed, "sensor", beams, azimuths)
    kept = (distance < _REACH) & (sensor.random(distance.shape) >= _DROPPED)
    noisy = distance[kept] + sensor.normal(0.0, _NOISE, int(kept.sum()))
    points = np.zeros((len(noisy), 5), np.float32)
    points[:, :3] = (ray[:, kept] * noisy).T
    points[:, 2] += _HEIGHT
    return Sweep(torch.from_numpy(points), torch.from_numpy(label[kept]))


def _stand(
    kind: Kind,
    boxes: np.random.Generator,
    ray: NDArray[np.float64],
    distance: NDArray[np.float64],
    label: NDArray[np.int64],
) -> None:
    """Put one box of `kind` into the scene: shorten the rays that hit it, in place."""
    angle, far = boxes.uniform(0, 2 * np.pi), boxes.uniform(*kind.reach)
    length, width, height = np.array(kind.size) * boxes.uniform(1 - kind.jitter, 1 + kind.jitter, 3)
    yaw = boxes.uniform(0, 2 * np.pi) if kind.any_yaw else boxes.integers(2) * np.pi / 2
    # Only columns of rays within the circle around the box can hit it.
    azimuths = ray.shape[2]
    reach = np.hypot(length, width) / 2
    half = np.arcsin(reach / far) if reach < far else np.pi
    middle, wide = angle / (2 * np.pi) * azimuths, half / (2 * np.pi) * azimuths
    first, last = int(np.floor(middle - wide)), int(np.ceil(middle + wide))
    column = np.arange(first, min(last, first + azimuths - 1) + 1) % azimuths
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y, z = ray[:, :, column]
    towards = np.stack([cos * x + sin * y, -sin * x + cos * y, z])
    cx, cy = far * np.cos(angle), far * np.sin(angle)
    start = np.array([-(cos * cx + sin * cy), sin * cx - cos * cy, _HEIGHT - height / 2])[:, None, None]
    side = np.array([length, width, height])[:, None, None] / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (-side - start) / towards, (side - start) / towards
    near = np.minimum(one, two).max(0)
    exit_ = np.maximum(one, two).min(0)
    hit = (near <= exit_) & (near > 0) & (near < distance[:, column])
    distance[:, column] = np.where(hit, near, distance[:, column])
    label[:, column] = np.where(hit, kind.label, label[:, column])


def take(sweep: Sweep, kept: Tensor) -> Sweep:
    """The points `kept` (a mask or an index) of a sweep."""
    labels = None if sweep.labels is None else sweep.labels[kept]
    return replace(sweep, points=sweep.points[kept], labels=labels)
