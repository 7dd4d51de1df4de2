"""How recorded values reach the host without making the device wait."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_streams: dict[torch.device, torch.cuda.Stream] = {}


class HostCopy:
    """A tensor on its way to the host.

    On CUDA it is copied into pinned memory on a stream of its own, behind what the current stream
    has computed so far; an event says when it has arrived. Every copy has a buffer to itself, from
    PyTorch's caching allocator of pinned memory, so nothing is read before it is there and nothing
    is overwritten before it was read. On the CPU nothing is copied.
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
            self._event = stream.record_event()
        # The allocator must not hand the memory out again before the copy has read it.
        tensor.record_stream(stream)

    def arrived(self) -> bool:
        """Whether `numpy` would return at once."""
        return self._event is None or self._event.query()

    def numpy(self) -> np.ndarray:
        """Wait until the values are there and return them."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy()
