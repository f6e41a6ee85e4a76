"""Decoding steps in few fixed shapes, each recorded once as a CUDA graph and then replayed.

With small batches a GPU waits for the processor, which launches some hundred kernels for each token. A graph launches
all of them at once, but only for tensors of one shape at one address. So the rows are rounded up to a half, a quarter
... of all, the columns of the cache to one of `_WIDTHS` widths, and what is read lies in buffers that stay. Rows beyond
the live ones read a made-up token; nobody reads what comes of it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

from plaudit.generation.cache import SlotCache

_WIDTHS = 8
_NARROWEST = 64
_FEWEST_ROWS = 4
_UNRECORDED = 4
"""Steps of a shape that run as they are: a recording costs about as much as these, and some shapes come seldom."""

Run = Callable[[], Tensor]
Record = Callable[[Run], Run]
Read = Callable[[Tensor, Tensor, SlotCache], Tensor]


class FixedShapes:
    """Steps of one generation. Weights must stay where they are meanwhile.

    Args:
        read: `Decoder.read`, tokens [R], positions [R] and the cache to states [R, D].
        cache: of as many slots as there are rows.
        rows: most rows at a time.
        capacity: columns of a slot.
        record: makes of a step on fixed buffers one that does the same again; on a GPU `CudaGraphs`.
    """

    def __init__(
        self,
        read: Read,
        cache: SlotCache,
        rows: int,
        capacity: int,
        device: torch.device,
        record: Record,
    ) -> None:
        self._read, self._cache, self._record = read, cache, record
        self._capacity = capacity
        self._stride = max(_NARROWEST, -(-capacity // _WIDTHS))
        self._tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self._positions = torch.zeros_like(self._tokens)
        self._steps: dict[tuple[int, int], Run] = {}
        self._seen: Counter[tuple[int, int]] = Counter()

    def step(self, tokens: Tensor, lengths: list[int]) -> Tensor:
        """As `Decoder.step`: one more token of each row, ``tokens`` [R] at positions ``lengths``; states [R, D]."""
        live = len(lengths)
        self._tokens[:live] = tokens
        self._positions[:live] = torch.tensor(lengths, device=tokens.device)
        # A row without a response reads column 0 of its own slot only, which is not in use.
        self._positions[live:] = 0
        shape = self.shape(live, max(lengths) + 1)
        self._seen[shape] += 1
        run = self._steps.get(shape) or self._run_of(*shape)
        if self._seen[shape] == _UNRECORDED + 1:
            run = self._steps[shape] = self._record(run)
        return run()[:live].clone()  # the next replay writes where this one did

    def shape(self, live: int, width: int) -> tuple[int, int]:
        """Rows and columns that are computed where ``live`` rows and ``width`` columns are needed."""
        rows = len(self._tokens)
        while rows // 2 >= max(live, _FEWEST_ROWS):
            rows //= 2
        return rows, min(self._capacity, -(-width // self._stride) * self._stride)

    def _run_of(self, rows: int, width: int) -> Run:
        """The step of one shape. It does not hold ``self``: a circle would keep the cache alive."""
        return partial(_step, self._read, self._cache, self._tokens[:rows], self._positions[:rows], width)


def _step(read: Read, cache: SlotCache, tokens: Tensor, positions: Tensor, width: int) -> Tensor:
    cache.aim(positions, width)
    return read(tokens, positions, cache)


class CudaGraphs:
    """Records steps of one generation as CUDA graphs that share their memory.

    Each recording is replayed once beside the step itself; where a model cannot be recorded, or comes out differently,
    a warning says so and steps run unrecorded from then on.

    Args:
        device: where the steps run; it need not be PyTorch's current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self.works = True

    def __call__(self, run: Run) -> Run:
        """A replay of ``run``, or ``run`` itself."""
        if not self.works:
            return run
        try:
            with torch.cuda.device(self._device):
                replay, same = self._recorded(run)
            fault = "" if same else "a replayed step differs from the step itself"
        except RuntimeError as error:
            fault = str(error).splitlines()[0]
        if not fault:
            return replay
        self.works = False
        warnings.warn(
            f"generation goes on without CUDA graphs: {fault}; compute.cuda_graphs = false avoids the attempt",
            stacklevel=2,
        )
        return run

    def _recorded(self, run: Run) -> tuple[Run, bool]:
        """The recording, and whether it gives what ``run`` gives. A step may be run again: it writes the same."""
        graph, aside = torch.cuda.CUDAGraph(), _aside(self._device)
        aside.wait_stream(torch.cuda.current_stream())
        # Held around it all, because `torch.cuda.graph` stays on its stream where a recording fails.
        with torch.cuda.stream(aside):
            run()  # libraries allocate their workspaces before anything is recorded
            with _nothing_waits():
                expected = run().clone()
            with torch.cuda.graph(graph, pool=self._pool, stream=aside):
                states = run()
        torch.cuda.current_stream().wait_stream(aside)

        def replay() -> Tensor:
            graph.replay()
            return states

        states.zero_()  # what is there afterwards was written by the replay
        same = torch.allclose(replay().float(), expected.float(), rtol=1e-2, atol=1e-2, equal_nan=True)
        return replay, same


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """Where steps are recorded: one stream for good, since libraries keep a workspace for every stream they saw."""
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def _nothing_waits() -> Iterator[None]:
    """What makes the processor wait for the GPU is an error here.

    It would be one in a recording too, but that can leave PyTorch's allocator as if it still recorded.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():  # once, that the mode does not find everything
        warnings.simplefilter("ignore", UserWarning)
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
