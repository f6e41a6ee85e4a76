"""Ray itself: starting or joining it, placing processes on it, and waiting for their answers."""

from __future__ import annotations

import socket
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from plaudit.awaited import awaiting, beat
from plaudit.config.sections import ComputeSection
from plaudit.errors import ConfigError, MachineError, PlauditError

ANSWERS = 10.0
"""Seconds within which a cluster has to take a connection."""
PLACED = 60.0
"""Seconds within which a cluster has to find room for the workers."""
GONE = 5.0
"""Seconds in which the other ranks notice that one has gone, so that it can be named."""
EACH_SECOND = 1.0
INSTALL = "pip install 'plaudit[ray]'"


def require_ray() -> Any:
    """Ray, if it is installed.

    Raises:
        ConfigError: it is not.
    """
    try:
        import ray
    except ImportError:
        what = "--backend ray needs the package ray, which is not installed"
        raise ConfigError(what, where="--backend", cure=INSTALL) from None
    return ray


def check(compute: ComputeSection) -> None:
    """Make sure that Ray is installed, and that something answers at the address of a cluster.

    Raises:
        ConfigError: it is not installed, or that is no address.
        MachineError: nothing answers there.
    """
    require_ray()
    address = compute.ray_address
    if address in ("", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ConfigError(
            f"{address!r} is no address of a Ray cluster",
            where="--ray-address",
            cure="give host:port, as `ray start --head` prints it (usually port 6379), or auto for one on this machine",
        )
    try:
        # Asked here, because Ray itself would try for minutes.
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS).close()
    except (OSError, OverflowError) as error:
        raise MachineError(
            f"no Ray cluster can be reached at {address}: {error}",
            where="--ray-address",
            cure="start one there with `ray start --head`, or leave --ray-address out to start one here",
        ) from None


class Cluster:
    """A Ray cluster with room for the workers of one run.

    Args:
        compute: how many workers, and where the cluster is.

    Raises:
        ConfigError, MachineError: with the cure.
    """

    def __init__(self, compute: ComputeSection) -> None:
        self.ray, self.compute = require_ray(), compute
        self._connect()
        self._gpus = int(compute.device.startswith("cuda"))
        self._check_room()
        from ray.util.placement_group import placement_group

        bundles = [{"CPU": 1.0, "GPU": float(self._gpus)} if self._gpus else {"CPU": 1.0}] * compute.workers
        self._group = placement_group(bundles, strategy="PACK")
        # Not when the process ends: Ray frees everything then, and would be started anew to be told so.
        weakref.finalize(self, _free, self.ray, self._group).atexit = False
        with awaiting("room for the workers", PLACED):
            placed, _ = self.ray.wait([self._group.ready()], timeout=PLACED)
        if not placed:
            raise MachineError(
                f"the cluster has no room for {compute.workers} workers: {self._free_now()} are free",
                where="--workers",
                cure="ask for fewer workers, or wait until other work on the cluster has ended",
            )

    def _connect(self) -> None:
        if self.ray.is_initialized():
            return
        # A cluster that Ray starts asks for a token by itself (ray>=2.60): without one it would run code for whoever
        # reaches its port.
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        address = self.compute.ray_address
        if address:
            options["address"] = address
        else:
            options |= {"include_dashboard": False}
        try:
            self.ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            place = f"at {address}" if address else "on this machine"
            raise MachineError(
                f"no Ray cluster can be {'reached' if address else 'started'} {place}: {_first_line(error)}",
                where="--ray-address" if address else "--backend",
                cure="start one with `ray start --head` there, or leave --ray-address out to start one here",
            ) from None

    def _check_room(self) -> None:
        has = self.ray.cluster_resources()
        for name, each in (("CPU", 1), ("GPU", self._gpus)):
            if self.compute.workers * each > has.get(name, 0):
                raise ConfigError(
                    f"{self.compute.workers} workers need {self.compute.workers} {name}s, and the cluster has"
                    f" {has.get(name, 0):g}",
                    where="--workers",
                    cure=f"ask for at most {int(has.get(name, 0))}, or join a larger cluster with --ray-address",
                )

    def _free_now(self) -> str:
        free = self.ray.available_resources()
        return f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs"

    @property
    def threads(self) -> int:
        """Of each process. Fixed and not left to Ray, because they change the last bits."""
        asked = self.compute.threads
        return asked if isinstance(asked, int) else 1

    def workers(self, kind: type) -> list[Any]:
        """One process in each place."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        made = []
        for rank in range(self.compute.workers):
            place = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
            made.append(self._actor(kind, num_cpus=1, num_gpus=self._gpus, scheduling_strategy=place))
        return made

    def helpers(self, kind: type, count: int, *, restarts: int = 0) -> list[Any]:
        """Processes beside the workers, on GPUs of their own where the workers have some.

        Args:
            restarts: how often Ray starts one anew that has died; -1: always.
        """
        return [self._actor(kind, num_cpus=0, num_gpus=self._gpus, max_restarts=restarts) for _ in range(count)]

    def _actor(self, kind: type, **options: Any) -> Any:
        # Not the whole environment of the driver: it may hold secrets, and others can read what a job was started with.
        env = {"OMP_NUM_THREADS": str(self.threads)}
        return self.ray.remote(kind).options(runtime_env={"env_vars": env}, **options).remote()

    def answers(self, refs: Sequence[Any], what: str) -> list[Any]:
        """What some calls give back, in their order.

        Args:
            refs: of calls of processes.
            what: the run waits for, in words.

        Raises:
            PlauditError: a process's own.
            MachineError: a process has died, or failed in a way that is none of its own errors.
        """
        with awaiting(what):
            waiting = list(refs)
            while waiting:
                done, waiting = self.ray.wait(waiting, timeout=EACH_SECOND)
                for ref in done:
                    beat()
                    self._refuse(ref, waiting, what)
            return list(self.ray.get(list(refs)))

    def arrived(self, refs: Sequence[Any], what: str) -> None:
        """Wait until all ranks have answered, and leave what the first gives back where it is in the cluster.

        Raises:
            PlauditError, MachineError: see `answers`.
        """
        first, *others = refs
        self.answers(others, what)
        with awaiting(what):
            while not self.ray.wait([first], timeout=EACH_SECOND, fetch_local=False)[0]:
                pass

    def collect(self, refs: Mapping[int, Any], answers: dict[int, Any], what: str) -> list[int]:
        """Put what calls give back into ``answers``; gives the numbers of those whose process has died.

        Raises:
            PlauditError, MachineError: see `answers`, for anything but a death.
        """
        died = []
        for number, ref in refs.items():
            with awaiting(what):
                while not self.ray.wait([ref], timeout=EACH_SECOND)[0]:
                    pass
                beat()
            error = self._error(ref)
            if isinstance(error, self.ray.exceptions.RayActorError):
                died.append(number)
                continue
            self._refuse(ref, (), what)
            answers[number] = self.ray.get(ref)
        return died

    def alive(self, process: Any) -> None:
        """Wait until a process that has died is there again.

        Raises:
            MachineError: it is not, after a minute.
        """
        with awaiting("a process that is started anew", PLACED):
            for _ in range(int(PLACED / EACH_SECOND)):
                ref = process.ping.remote()
                done, _ = self.ray.wait([ref], timeout=EACH_SECOND)
                if done and self._error(ref) is None:
                    return
                time.sleep(0.0 if not done else EACH_SECOND / 4)
        raise MachineError(
            f"a process that has ended was not started anew within {PLACED:g} s",
            where="--backend ray",
            cure="give the same command again with --resume: it goes on from the last checkpoint",
        )

    def _refuse(self, ref: Any, others: Sequence[Any], what: str) -> None:
        """Raise what a call has raised; where ranks fell one after the other, the first cause."""
        error = self._error(ref)
        if error is None:
            return
        found = [error]
        late, _ = self.ray.wait(list(others), num_returns=len(others), timeout=GONE) if others else ([], [])
        found += [other for one in late if (other := self._error(one)) is not None]
        for one in found:
            cause = getattr(one, "cause", None)
            if isinstance(cause, PlauditError):
                raise cause
        dead = [one for one in found if isinstance(one, self.ray.exceptions.RayActorError)]
        first = dead[0] if dead else found[0]
        how = "a process of the cluster has ended" if dead else "a process of the cluster has failed"
        raise MachineError(
            f"{how} while the run waited for {what}: {_first_line(first)}",
            where="--backend ray",
            cure="give the same command again with --resume: it goes on from the last checkpoint",
        )

    def _error(self, ref: Any) -> Exception | None:
        try:
            self.ray.get(ref)
        except Exception as error:  # noqa: BLE001 - whatever the process raised, or Ray of one that is gone
            return error
        return None


def _free(ray: Any, group: Any) -> None:
    """Give back the room of a run that is over."""
    if ray.is_initialized():
        ray.util.remove_placement_group(group)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
