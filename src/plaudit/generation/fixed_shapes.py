"""Decoding steps in few fixed shapes, each recorded once as a CUDA graph and then replayed.

With small batches a GPU waits for the processor, which launches some hundred kernels for each token. A graph launches
all of them at once, but only for tensors of one shape at one address. So the number of rows is rounded up to the whole,
a half, a quarter ... of all, the columns of the cache to one of `_WIDTHS` widths, and inputs are copied into buffers
that stay. Rows beyond the live ones are computed from token 0, and their states are cut off.
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

# More widths waste less attention over masked columns, but each is a recording: memory, and some steps' time.
_WIDTHS = 8
_NARROWEST = 64
_FEWEST_ROWS = 4
_UNRECORDED = 4
"""Steps of a shape that run unrecorded: a recording costs about as much as these, and some shapes are rare."""

Run = Callable[[], Tensor]
Record = Callable[[Run], Run]
Read = Callable[[Tensor, Tensor, SlotCache], Tensor]


class FixedShapes:
    """Steps of one call of `generate`. The weights must not move in memory meanwhile: a graph holds their addresses.

    Args:
        read: `Decoder.read`, tokens [R], positions [R] and the cache to states [R, D].
        cache: of as many slots as there are rows.
        rows: most rows at a time.
        capacity: columns of a slot.
        record: takes a step on fixed buffers and returns a function that repeats it; on a GPU `CudaGraphs`.
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
        # A row without a response writes to column 0 of its own slot, which is not in use, and attends to nothing else;
        # a position left from before could lie beyond the width of this shape.
        self._positions[live:] = 0
        shape = self.shape(live, max(lengths) + 1)
        self._seen[shape] += 1
        run = self._steps.get(shape) or self._run_of(*shape)
        if self._seen[shape] == _UNRECORDED + 1:
            run = self._steps[shape] = self._record(run)
        # A copy: the next replay writes its states to the same address, while these are still being drawn from.
        return run()[:live].clone()

    def shape(self, live: int, width: int) -> tuple[int, int]:
        """Rows and columns that are computed where ``live`` rows and ``width`` columns are needed."""
        rows = len(self._tokens)
        while rows // 2 >= max(live, _FEWEST_ROWS):
            rows //= 2
        return rows, min(self._capacity, -(-width // self._stride) * self._stride)

    def _run_of(self, rows: int, width: int) -> Run:
        """The step of one shape, on views of the fixed buffers."""
        # A function of its arguments and not a method: kept in self._steps, a bound method would be a reference
        # cycle, and the cache, gigabytes of it, would stay allocated until the garbage collector runs.
        return partial(_step, self._read, self._cache, self._tokens[:rows], self._positions[:rows], width)


def _step(read: Read, cache: SlotCache, tokens: Tensor, positions: Tensor, width: int) -> Tensor:
    cache.aim(positions, width)
    return read(tokens, positions, cache)


class CudaGraphs:
    """Records steps of one call of `generate` as CUDA graphs that share their memory.

    Each recording is replayed once and compared with the step itself. Where a model cannot be recorded, or the replay
    gives other states, there is a warning, and steps run unrecorded from then on.

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
            f"generation goes on without CUDA graphs: {fault}; compute.packing = false avoids the attempt",
            stacklevel=2,
        )
        return run

    def _recorded(self, run: Run) -> tuple[Run, bool]:
        """A replay of ``run``, and whether it gives what ``run`` gives."""
        # Repeating a step is harmless: it writes the same keys and values to the same column.
        graph, aside = torch.cuda.CUDAGraph(), _recording_stream(self._device)
        aside.wait_stream(torch.cuda.current_stream())
        # This context is held around everything, because after a failed recording `torch.cuda.graph` would leave
        # PyTorch on the recording stream.
        with torch.cuda.stream(aside):
            run()  # libraries allocate their workspaces before anything is recorded
            with _synchronisation_forbidden():
                expected = run().clone()
            with torch.cuda.graph(graph, pool=self._pool, stream=aside):
                states = run()
        torch.cuda.current_stream().wait_stream(aside)

        def replay() -> Tensor:
            graph.replay()
            return states

        # Zeroed first, so that what is compared was written by the replay and not left from the recording. The bound is
        # wide: kernels may round otherwise, but an operation that was not recorded changes states altogether.
        states.zero_()
        same = torch.allclose(replay().float(), expected.float(), rtol=1e-2, atol=1e-2, equal_nan=True)
        return replay, same


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream on which steps are recorded; always the same one for a device."""
    # A graph cannot be recorded on the default stream; and libraries such as cuBLAS keep a workspace for every stream
    # they have seen, so a new one for each generation would leak memory.
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def _synchronisation_forbidden() -> Iterator[None]:
    """Within it, an operation that makes the processor wait for the GPU raises a RuntimeError."""
    # Such an operation would fail in the recording too, but a recording that fails can leave PyTorch's allocator in its
    # recording mode; so the step is run once in this mode before.
    before = torch.cuda.get_sync_debug_mode()
    # PyTorch warns that the mode does not find everything; the recording after it finds the rest.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
