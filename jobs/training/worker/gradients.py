"""How gradients travel between workers."""

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Compression = Literal["none", "bf16"]


def distributed(model: nn.Module, compression: Compression) -> DistributedDataParallel:
    """The model whose gradients are averaged over the workers while they are computed.

    Parameters
    ----------
    model:
        On this worker's device.
    compression:
        ``bf16``: gradients are rounded to bfloat16, summed and sent as such, half the bytes; the
        optimiser, its moments and the weights stay as they are.
    """
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    if compression == "bf16":
        wrapped.register_comm_hook(None, average_in_bf16)
    return wrapped


# PyTorch compares these annotations with its types, so they are no strings here.
def average_in_bf16(
    _state: None,
    bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage]
) -> torch.futures.Future[Tensor]:
    """Mean over the workers of a bucket's gradients, which travel as bfloat16.

    PyTorch has a hook that does this, but it refuses to run without CUDA.
    """
    gradients = bucket.buffer()
    # Divided first: of large sums bfloat16 would lose more.
    share = gradients.to(torch.bfloat16).div_(dist.get_world_size())
    summed: Any = dist.all_reduce(share, async_op=True)

    def back(future: torch.futures.Future[list[Tensor]]) -> Tensor:
        return gradients.copy_(future.value()[0])

    return summed.get_future().then(back)
