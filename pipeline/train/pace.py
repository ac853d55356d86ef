"""How fast this rank computes, free of waiting for others.

A step's time says nothing about a rank: collectives make all of them as slow as the slowest. So one linear layer is timed, the widest of
the first decoder layer: between ZeRO gathering its weight and its output no rank waits for another. It runs in every forward and
recomputation, and costs two clock readings (two events on a GPU) each time.
"""

import time

import torch
from torch import nn


class PaceMeter:
    """Seconds a token that `model`'s sample layer has taken since the last reading. Build it once DeepSpeed has hooked its own on."""

    def __init__(self, model: nn.Module):
        layer = model.backbone.model.language_model.layers[0]
        linears = [part for part in layer.modules() if isinstance(part, nn.Linear)]
        self.sample = max(linears, key=lambda part: part.in_features * part.out_features)
        # after ZeRO-3 has gathered the weight (hooks run in the order they were hung on), before it is released
        self.sample.register_forward_pre_hook(self._before)
        self.sample.register_forward_hook(self._after, prepend=True)
        self._start = None
        self._spans: list[tuple] = []
        self._tokens = 0

    def read(self) -> float:
        """Seconds a token since the last reading; 0.0 where nothing was run."""
        seconds, tokens = sum(_seconds(*span) for span in self._spans), self._tokens
        self._spans, self._tokens = [], 0
        return seconds / tokens if tokens else 0.0

    def _before(self, module: nn.Module, args: tuple) -> None:
        self._start = _mark(args[0])

    def _after(self, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        self._spans.append((self._start, _mark(output)))
        self._tokens += output.numel() // output.shape[-1]


def _mark(tensor: torch.Tensor):
    """Now, by the clock of the tensor's device."""
    if not tensor.is_cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(start, end) -> float:
    if isinstance(start, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1000
