"""Ray itself: starting or joining it, placing processes on it, and waiting for their answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from plaudit.awaited import awaiting, beat
from plaudit.config.sections import ComputeSection
from plaudit.errors import ConfigError, Lost, MachineError, PlauditError

ANSWERS = 10.0
"""Seconds within which a cluster has to take a connection."""
PLACED = 60.0
"""Seconds within which a cluster has to find room for the workers."""
GONE = 5.0
"""Seconds in which the other ranks notice that one has gone, so that it can be named."""
EACH_SECOND = 1.0
INSTALL = "pip install 'plaudit[ray]'"
_OPEN: list[Cluster] = []
"""The one whose room this process has; see `Cluster`."""


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

    A process trains one run at a time. What the run before it had is given back first: its models are no longer asked,
    but Python may not have noticed yet, and there would be no room.

    Args:
        compute: how many workers, and where the cluster is.

    Raises:
        ConfigError, MachineError: with the cure.
    """

    def __init__(self, compute: ComputeSection) -> None:
        self.ray, self.compute = require_ray(), compute
        self._connect()
        self._session = self.ray.get_runtime_context().get_job_id()
        self._gpus = int(compute.device.startswith("cuda"))
        self._check_room()
        while _OPEN:
            _OPEN.pop().close()
        from ray.util.placement_group import placement_group

        bundles = [{"CPU": 1.0, "GPU": float(self._gpus)} if self._gpus else {"CPU": 1.0}] * compute.workers
        self._group = placement_group(bundles, strategy="PACK")
        self._helpers: list[Any] = []
        _OPEN.append(self)
        with awaiting("room for the workers", PLACED):
            placed, _ = self.ray.wait([self._group.ready()], timeout=PLACED)
        if not placed:
            raise MachineError(
                f"the cluster has no room for {compute.workers} workers: {self._free_now()} are free",
                where="--workers",
                cure="ask for fewer workers, or wait until other work on the cluster has ended",
            )

    def close(self) -> None:
        """End the processes of the run, and give their room back."""
        if not self.ray.is_initialized() or self.ray.get_runtime_context().get_job_id() != self._session:
            return  # that cluster has ended, and everything on it
        for helper in self._helpers:
            self.ray.kill(helper)
        self.ray.util.remove_placement_group(self._group)  # the workers end with it

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
        except Exception as error:  # noqa: BLE001 - Ray raises a bare one where the machine is too slow to start it
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

    def workers(self, kind: type, *further: str) -> list[Any]:
        """One process in each place; ``further``: names of threads beside the one that works, for some of its verbs."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        made = []
        for rank in range(self.compute.workers):
            place = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
            made.append(self._actor(kind, num_cpus=1, num_gpus=self._gpus, scheduling_strategy=place, further=further))
        return made

    def helpers(self, kind: type, count: int, *, restarts: int = 0) -> list[Any]:
        """Processes beside the workers, on GPUs of their own where the workers have some.

        Args:
            restarts: how often Ray starts one anew that has died; -1: always.
        """
        made = [self._actor(kind, num_cpus=0, num_gpus=self._gpus, max_restarts=restarts) for _ in range(count)]
        self._helpers += made
        return made

    def _actor(self, kind: type, further: Sequence[str] = (), **options: Any) -> Any:
        # Not the whole environment of the driver: it may hold secrets, and others can read what a job was started with.
        env = {"OMP_NUM_THREADS": str(self.threads)}
        threads = {"concurrency_groups": dict.fromkeys(further, 1)} if further else {}
        made = self.ray.remote(**threads)(kind) if threads else self.ray.remote(kind)
        return made.options(runtime_env={"env_vars": env}, **options).remote()

    def answers(
        self, asked: Mapping[str, Any], what: str, look: Callable[[Collection[str]], None] | None = None
    ) -> list[Any]:
        """What some calls give back, in their order.

        Args:
            asked: who is asked -> the reference of the call.
            what: the run waits for, in words.
            look: called each second in which nobody answers, with those who have not; what it raises ends the waiting.

        Raises:
            PlauditError: a process's own.
            Lost: a process has died.
            MachineError: a process has failed in a way that is none of its own errors.
        """
        names = {ref: name for name, ref in asked.items()}
        with awaiting(what):
            waiting = list(names)
            while waiting:
                done, waiting = self.ray.wait(waiting, timeout=EACH_SECOND)
                for ref in done:
                    beat()
                    self._refuse(ref, waiting, names, what)
                if look is not None and not done:
                    look([names[ref] for ref in waiting])
            return list(self.ray.get(list(names)))

    def arrived(self, asked: Mapping[str, Any], what: str) -> Any:
        """Wait until all have answered, and leave what the first gives back where it is in the cluster.

        Returns:
            Its reference.

        Raises:
            PlauditError, MachineError: see `answers`.
        """
        (_, first), *others = asked.items()
        self.answers(dict(others), what)
        with awaiting(what):
            while not self.ray.wait([first], timeout=EACH_SECOND, fetch_local=False)[0]:
                pass
        return first

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
            self._refuse(ref, (), {ref: f"generator {number}"}, what)
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

    def _refuse(self, ref: Any, others: Sequence[Any], names: Mapping[Any, str], what: str) -> None:
        """Raise what a call has raised; where ranks fell one after the other, the first cause."""
        error = self._error(ref)
        if error is None:
            return
        found = {names[ref]: error}
        late, _ = self.ray.wait(list(others), num_returns=len(others), timeout=GONE) if others else ([], [])
        found |= {names[one]: other for one in late if (other := self._error(one)) is not None}
        for one in found.values():
            cause = getattr(one, "cause", None)
            if isinstance(cause, PlauditError):
                raise cause
        dead = [name for name, one in found.items() if isinstance(one, self.ray.exceptions.RayActorError)]
        again = "give the same command again with --resume: it goes on from the last checkpoint"
        if dead:
            ended = f"{' and '.join(dead)} ended while the run waited for {what}"
            raise Lost(f"{ended}: {_first_line(found[dead[0]])}", where="--backend ray", cure=again)
        name, first = next(iter(found.items()))
        failed = f"{name} failed while the run waited for {what}: {_first_line(first)}"
        raise MachineError(failed, where="--backend ray", cure=again)

    def _error(self, ref: Any) -> Exception | None:
        try:
            self.ray.get(ref)
        except Exception as error:  # noqa: BLE001 - whatever the process raised, or Ray of one that is gone
            return error
        return None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
