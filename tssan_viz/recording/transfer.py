"""How recorded values reach the host without making the device wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_streams: dict[torch.device, torch.cuda.Stream] = {}


class HostCopy:
    """A tensor on its way to the host.

    On CUDA it is copied into pinned memory on a stream of its own, behind what the current stream
    has computed so far; an event says when it has arrived. Every copy has a buffer to itself, from
    PyTorch's caching allocator of pinned memory, so nothing is read before it is there and nothing
    is overwritten before it was read. Whoever reads it gets memory of the usual kind: to pin more
    and more of it would make the device wait each time. On the CPU nothing is copied.
    """

    def __init__(self, tensor: Tensor) -> None:
        tensor = tensor.detach()
        self.nbytes = tensor.numel() * tensor.element_size()
        self._event: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._host = tensor.cpu()
            return
        if tensor.device not in _streams:
            _streams[tensor.device] = torch.cuda.Stream(tensor.device)
        stream = _streams[tensor.device]
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            self._host.copy_(tensor, non_blocking=True)
            # The writing thread sleeps until it has happened, and takes no core from the model.
            self._event = stream.record_event(torch.cuda.Event(blocking=True))
        # The allocator must not hand the memory out again before the copy has read it.
        tensor.record_stream(stream)

    def numpy(self) -> np.ndarray:
        """Wait until the values are there and return them."""
        if self._event is None:
            return self._host.numpy()
        self._event.synchronize()
        return self._host.numpy().copy()


class DeviceClock:
    """Measures what a CUDA device spends on a stretch of work, without ever waiting for it."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._open: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Measure the work that is put on the device's current stream in the block."""
        if device.type != "cuda":
            yield
            return
        stream = torch.cuda.current_stream(device)
        began = torch.cuda.Event(enable_timing=True)
        ended = torch.cuda.Event(enable_timing=True)
        began.record(stream)
        try:
            yield
        finally:
            ended.record(stream)
            self._open.append((began, ended))

    @property
    def seconds(self) -> float:
        """Of the work that has come to its end."""
        while self._open and self._open[0][1].query():
            began, ended = self._open.popleft()
            self._seconds += began.elapsed_time(ended) / 1000
        return self._seconds
