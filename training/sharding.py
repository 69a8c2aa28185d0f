"""A network over several processes: a copy in each (DDP), or a part of each parameter (FSDP2); the steps are the same.

Where it is in parts, parameters, averages and the optimizer's moments are DTensors. ``whole`` and ``part`` go from one
to the other, so that a checkpoint is the same for any number of processes, and either way.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from models import SiT
from training.processes import Processes

CHOICES: Final = ("ddp", "fsdp")


def shard(model: SiT, processes: Processes) -> None:
    """Leave in each process its part of each parameter; the parameters of a block are gathered where it is called."""
    mesh = _mesh(processes)
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)  # also where no backward pass follows


def replicate(model: SiT, processes: Processes) -> nn.Module:
    """The network with gradients that are the mean over all processes, each with a copy."""
    return DistributedDataParallel(model, gradient_as_bucket_view=True) if processes.count > 1 else model


def sum_gradients(network: nn.Module, last: bool) -> None:
    """Exchange gradients in the last backward pass of a step alone."""
    if isinstance(network, DistributedDataParallel):
        network.require_backward_grad_sync = last
    elif isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(last)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, in every process: they call it together."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(tensor: Tensor, like: Tensor) -> Tensor:
    """What belongs to this process of a tensor that all have, laid out as another of its shape."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, to write to."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _mesh(processes: Processes) -> DeviceMesh:
    return init_device_mesh(processes.device.type, (processes.count,))
