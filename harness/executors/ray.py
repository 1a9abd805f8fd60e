"""Comparisons on a Ray cluster that is running.

The harness, the methods and, unless a cluster file says where it is, the data go to the nodes as the working directory of
Ray's runtime environment. A comparison whose worker or node is lost is placed again, a bounded number of times.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from harness import data, profile
from harness.catalog import Catalog
from harness.errors import HarnessError, RequestError
from harness.executors import Executor, Finished, Work, placed
from harness.executors.cluster import Asks, Model, imported, read
from harness.paper import ProfileName
from harness.suitefile import Size, size_in_bytes

_SHARE = 0.001
"""Part of a custom resource that a comparison asks for that may share its machine."""

_HINT = "start one with 'ray start --head', or name one with --address HOST:PORT"

_PASSED_ON = ("HARNESS_ALLOW_GENERATED_CODE", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")


class RayAsks(Asks):
    """What a comparison of a profile asks a Ray cluster for."""

    resources: dict[str, float] | None = Field(
        default=None,
        description="Custom resources. The default is 1 of harness-<profile>. A node that is measured declares one of"
        " it, and so one comparison runs there at a time. {} asks for none.",
    )


class RayFile(Model):
    """A cluster file for ``--executor ray``."""

    address: str | None = Field(default=None, description="Where it is; --address goes before it.")
    attempts: int = Field(default=3, ge=1, description="How often a comparison is placed at most.")
    wait: bool = Field(
        default=False,
        description="Wait for nodes that are not there yet, as on a cluster that grows, in place of skipping.",
    )
    data: str | None = Field(
        default=None, description="Folder of the data sets on the nodes (default: they are sent along)."
    )
    send_at_most: Size = Field(default="256MB", description="Data sets above this are not sent along.")
    environment: dict[str, str] = Field(default_factory=dict, description="Environment variables on the nodes.")
    profiles: dict[ProfileName, RayAsks] = Field(default_factory=dict)


@dataclass
class Ray(Executor):
    """An existing Ray cluster.

    Args:
        settings: the cluster file, or its defaults.
        address: see ``ray.init``; "auto" is the cluster that this machine is part of.
    """

    settings: RayFile = field(default_factory=RayFile)
    address: str = "auto"

    def carry_out(self, work: Work) -> Finished:
        """See `Executor.carry_out`."""
        ray = imported("ray", "ray")
        waiting = deque(placed.parcels(work))
        with tempfile.TemporaryDirectory(prefix="harness-ray-") as folder:
            orders = self._orders(work, waiting, Path(folder))
            self._connect(ray, folder)
            flying: dict[Any, placed.Parcel] = {}
            try:
                sent = {name: ray.put(order) for name, order in orders.items()}
                task = ray.remote(max_retries=0)(placed.carry_out)
                while waiting or flying:
                    room = 8 + 2 * int(ray.cluster_resources().get("CPU", 0))
                    while waiting and len(flying) < room:
                        if work.should_stop():
                            waiting.clear()
                            break
                        parcel = waiting.popleft()
                        options = self._options(parcel)
                        if not self.settings.wait and (why := _nowhere(ray.nodes(), options)):
                            yield from parcel.skipped("ray", why)
                            continue
                        parcel.attempts += 1
                        for step in parcel.steps:
                            work.progress.start(step)
                        order = sent[parcel.first.comparison.profile]
                        flying[task.options(**options).remote(order, parcel.groups)] = parcel
                    done, _ = ray.wait(list(flying), num_returns=1, timeout=1.0) if flying else ([], [])
                    for reference in done:
                        parcel = flying.pop(reference)
                        texts = self._fetch(ray, reference, parcel)
                        came = parcel.outcome("ray", texts, self.settings.attempts)
                        if came is None:
                            waiting.append(parcel)
                        else:
                            yield from came
            finally:
                for reference in flying:
                    ray.cancel(reference, force=True)
                ray.shutdown()

    def _fetch(self, ray: Any, reference: Any, parcel: placed.Parcel) -> Sequence[Sequence[str]] | None:
        """What came of a parcel; None when it was lost, with why in the parcel."""
        errors = ray.exceptions
        try:
            texts: Sequence[Sequence[str]] = ray.get(reference)
            return texts
        except errors.RuntimeEnvSetupError as error:
            raise HarnessError(f"the nodes of the Ray cluster cannot be set up: {_line(error)}") from error
        except errors.RayTaskError as error:
            parcel.lost.append(_line(error.cause or error))
        except errors.RayError as error:
            parcel.lost.append(f"{type(error).__name__}: {_line(error)}")
        return None

    def _connect(self, ray: Any, folder: str) -> None:
        if ray.is_initialized():
            raise RequestError(
                "this process is connected to a Ray cluster already, without the code that the nodes need",
                hint="call ray.shutdown() first",
            )
        if (why := _unreachable(self.address)) is not None:
            raise RequestError(f"there is no Ray cluster at '{self.address}': {why}", hint=_HINT)
        try:
            ray.init(
                address=self.address,
                runtime_env={"working_dir": folder, "env_vars": dict(self.settings.environment)},
                log_to_driver=False,
                logging_level="error",
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RequestError(
                f"there is no Ray cluster at '{self.address}': {_line(error)}",
                hint=_HINT,
            ) from error

    def _options(self, parcel: placed.Parcel) -> dict[str, Any]:
        """What a comparison asks for, as options of a Ray task."""
        comparison = parcel.first.comparison
        asks = self.settings.profiles.get(comparison.profile, RayAsks())  # type: ignore[call-overload]
        resources = asks.resources
        if resources is None:
            resources = {f"harness-{comparison.profile}": 1.0}
        if comparison.share:
            resources = {name: _SHARE * amount for name, amount in resources.items()}
        options = {
            "num_cpus": asks.cpus or 1,
            "num_gpus": asks.gpus_on(profile.get(comparison.profile).device),
            "resources": {name: amount for name, amount in resources.items() if amount},
        }
        return options | ({} if asks.memory_bytes is None else {"memory": asks.memory_bytes})

    def _orders(self, work: Work, parcels: Sequence[placed.Parcel], folder: Path) -> dict[str, placed.Order]:
        """An order for each profile, with all that the nodes need laid out in `folder`."""
        folders = _lay_out(work.catalog, folder)
        variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if self.settings.data is not None:
            variables[data.VARIABLE] = self.settings.data
        elif _send_data(work, folder, size_in_bytes(self.settings.send_at_most)):
            variables[data.VARIABLE] = "./data"
        by_profile: dict[str, list[Any]] = {}
        for parcel in parcels:
            by_profile.setdefault(parcel.first.comparison.profile, []).extend(parcel.steps)
        return {
            name: placed.Order(
                wanted=placed.representatives(steps),
                folders=folders,
                builtin=work.catalog.builtin,
                entry_point_roots=work.catalog.entry_point_roots,
                variables=variables,
                memory=self.settings.profiles.get(name, RayAsks()).method_memory,  # type: ignore[call-overload]
            )
            for name, steps in by_profile.items()
        }


def _lay_out(catalog: Catalog, folder: Path) -> tuple[str, ...]:
    """Copy the harness, its methods and the user's folders into `folder`. Returns the latter as paths in it."""
    own = Path(__file__).resolve().parent.parent
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    shutil.copytree(own, folder / "harness", ignore=ignore)
    if catalog.builtin:
        shutil.copytree(catalog.home / "methods", folder / "methods", ignore=ignore)
    folders = []
    for i, root in enumerate(catalog.folders):
        path = root.expanduser().resolve()
        shutil.copytree(path, folder / "folders" / str(i) / path.name, ignore=ignore)
        folders.append(f"folders/{i}/{path.name}")
    return tuple(folders)


def _send_data(work: Work, folder: Path, at_most: int) -> bool:
    """Copy the data sets that the run may need and this machine has; whether there are any.

    Raises:
        RequestError: they are larger than what is sent along.
    """
    tasks = {step.comparison.task for group in work.groups for step in group}
    names = sorted({name for task in tasks for name in work.catalog.task(task).data if data.available(name)})
    sizes = {name: sum(p.stat().st_size for p in data.folder(name).rglob("*") if p.is_file()) for name in names}
    if (total := sum(sizes.values())) > at_most:
        largest = max(sizes, key=lambda name: sizes[name])
        raise RequestError(
            f"the data sets of this run have {total / 1e6:.0f} MB ('{largest}' alone {sizes[largest] / 1e6:.0f} MB), and"
            f" at most {at_most / 1e6:.0f} MB are sent to the nodes",
            hint="put them where all nodes see them and name the folder in the cluster file: data: /where/they/are",
        )
    for name in names:
        shutil.copytree(data.folder(name), folder / "data" / name)
    return bool(names)


def _nowhere(nodes: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str | None:
    """Why no node of the cluster can ever carry out what asks for `options`; None when one can."""
    asked = {
        "CPU": options["num_cpus"],
        "GPU": options["num_gpus"],
        "memory": options.get("memory", 0),
        **options["resources"],
    }
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(there.get(name, 0) >= amount for name, amount in asked.items()) for there in alive):
        return None
    lacking = [
        name
        for name, amount in asked.items()
        if amount and not any(there.get(name, 0) >= amount for there in alive)
    ]
    what = ", ".join(f"{asked[name]:g} {name}" for name in lacking or [n for n, a in asked.items() if a])
    together = "" if lacking else " together"
    return f"no node of the Ray cluster has {what}{together}; see docs/clusters.md on what nodes declare"


def _unreachable(address: str) -> str | None:
    """Why nothing listens at an address that names host and port; None where something does, or it names none.

    Ray itself tries for minutes.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return None
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]


def make(address: str | None, cluster: Path | None) -> Ray:
    """See `harness.executors.make`."""
    imported("ray", "ray")
    settings = RayFile() if cluster is None else read(RayFile, cluster)
    return Ray(settings, address or settings.address or os.environ.get("RAY_ADDRESS") or "auto")
