"""Forward and backward of an objective as CUDA graphs, one for each shape of a batch.

Where a model is so small that starting kernels takes longer than running them, replaying a recording of them is faster;
the kernels, and so the results, are the same. Method: whole-network capture, PyTorch's documentation of CUDA graphs.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

WARM_UP = 2
"""Runs before a recording, in which libraries set up what they need."""


class Recorded(NamedTuple):
    """A recording, and what it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    losses: Any
    gradients: list[Tensor | None]


class GraphedStep:
    """Losses of a batch, its gradients in the parameters.

    Args:
        objective: see `loop.Objective`, on a CUDA device; reads nothing from the device while it runs.
        autocast: makes the context that its forward runs in.
    """

    def __init__(self, objective: nn.Module, autocast: Callable[..., AbstractContextManager[Any]]):
        self._objective, self._autocast = objective, autocast
        self._parameters = [value for value in objective.parameters() if value.requires_grad]
        self._recorded: dict[torch.Size, Recorded] = {}

    def __call__(self, latents: Tensor, text: Tensor, draws: tuple[Tensor, ...]) -> Any:
        """`Losses`; they stand until the next call."""
        step = self._recorded.get(latents.shape)
        if step is None:
            step = self._recorded[latents.shape] = self._record(latents, text, draws)
        for held, value in zip(step.inputs, (latents, text, *draws), strict=True):
            held.copy_(value)
        step.graph.replay()
        self._put(step.gradients)
        return step.losses

    def _record(self, latents: Tensor, text: Tensor, draws: tuple[Tensor, ...]) -> Recorded:
        inputs = tuple(value.clone() for value in (latents, text, *draws))
        arguments = *inputs[:2], type(draws)(*inputs[2:])  # type: ignore[call-arg]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._run(arguments)
                self._put([None] * len(self._parameters))
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            losses = self._run(arguments)
        return Recorded(graph, inputs, losses, [value.grad for value in self._parameters])

    def _run(self, arguments: tuple[Any, ...]) -> Any:
        """The context closes after the forward: casts of the weights that it keeps are of one run."""
        with self._autocast():
            losses = self._objective(*arguments)
        losses.total.backward()
        return type(losses)(*(losses.total.detach(), {key: value.detach() for key, value in losses.logs.items()}))

    def _put(self, gradients: list[Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
