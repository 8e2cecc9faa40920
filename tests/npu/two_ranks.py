"""A program for torchrun: two ranks add over hccl, then train one step with gradients averaged by DDP and by FSDP2."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("npu", rank)
    torch.accelerator.set_device_index(rank)
    dist.init_process_group("hccl")
    total = torch.full((3,), rank + 1.0, device=device)
    dist.all_reduce(total)
    assert total.cpu().tolist() == [3.0, 3.0, 3.0], total.cpu()
    for wrap in (lambda model: DistributedDataParallel(model, device_ids=[rank]), fully_shard):
        torch.manual_seed(0)
        model: Any = wrap(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).to(device))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True, foreach=False)
        model(torch.full((2, 4), rank + 1.0, device=device)).sum().backward()
        optimizer.step()
        after = model(torch.ones(1, 4, device=device)).detach()
        others = [torch.empty_like(after) for _ in range(2)]
        dist.all_gather(others, after)
        assert torch.equal(others[0].cpu(), others[1].cpu()), type(model)
    # One write, line end included: two ranks share one output, and print writes the end by itself.
    os.write(1, f"rank {rank} of {dist.get_world_size()} on {dist.get_backend()}: as expected\n".encode())
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
