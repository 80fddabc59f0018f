"""Weights spread over the ranks of a team by FSDP2, and the way between parts and wholes.

Every weight is cut along its first axis into one part per rank. A layer's weights are put together when its pass begins
and let go when it ends.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard

from ratchet.core.errors import ConfigError
from ratchet.policy.adapter import Snapshot
from ratchet.policy.policy import FrozenNetwork, Network
from ratchet.train.team import Team


def network_of(team: Team, decoder: Network, device: torch.device) -> Network:
    """Return what a rank trains: the decoder itself, or its part of it.

    Rank 0 keeps the whole decoder beside its part, for it samples and saves; the others' decoders become parts.
    """
    if not team.sharded:
        return decoder
    part = copy.deepcopy(decoder) if team.rank == 0 else decoder
    return _sharded(team, part, device)


def frozen_network_of(team: Team, frozen: FrozenNetwork | None, device: torch.device) -> FrozenNetwork | None:
    """Return a rank's part of a frozen network, which is given up for it. Raises `ConfigError` for an adapter's."""
    if frozen is None or not team.sharded:
        return frozen
    if isinstance(frozen, Snapshot):
        raise ConfigError('cluster.shard = "full" cannot spread an adapter: set cluster.shard = "none".')
    return _sharded(team, frozen, device)


def _sharded(team: Team, decoder: Network, device: torch.device) -> Network:
    mesh = team.mesh(device)
    for layer in _layers(decoder):
        fully_shard(layer, mesh=mesh)
    fully_shard(decoder, mesh=mesh)  # what no layer holds; it stays put together from forward to backward
    for module in decoder.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss is a sum over the whole batch, no mean over ranks
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return decoder


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of the outermost lists of modules: what runs one after the other."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)


def let_go(network: nn.Module) -> None:
    """Forget weights that were put together: the parts are about to change."""
    if isinstance(network, FSDPModule):
        network.reshard()


@torch.no_grad()
def copy_whole(network: nn.Module, into: nn.Module, *, rank: int) -> None:
    """Put the parts of all ranks together into rank 0's whole decoder, weight by weight. Every rank must call it."""
    if not isinstance(network, FSDPModule):
        return
    wholes = dict(into.named_parameters())
    for name, parameter in network.named_parameters():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        if rank == 0:
            wholes[name].copy_(whole)


def first_row(part: DTensor) -> int:
    """Return the number of the whole tensor's row with which this rank's part begins."""
    mesh, rows = part.device_mesh, part.shape[0]
    return int(min(rows, mesh.get_local_rank() * -(-rows // mesh.size())))


def as_part(whole: Tensor, like: nn.Parameter) -> Tensor:
    """Return this rank's part of a tensor, spread as a parameter is; unspread parameters and numbers pass unchanged."""
    if not isinstance(like, DTensor) or whole.shape != like.shape:
        return whole
    rows, at = len(like.to_local()), first_row(like)
    local = whole[at : at + rows].to(like.to_local().device).contiguous()
    return DTensor.from_local(
        local, like.device_mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride()
    )


def places_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Return of each spread tensor the row it begins with here, and the rows of the whole."""
    return {name: (first_row(t), t.shape[0]) for name, t in state.items() if isinstance(t, DTensor)}


def local_parts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as they lie on this rank."""
    return {name: t.to_local() if isinstance(t, DTensor) else t for name, t in state.items()}
