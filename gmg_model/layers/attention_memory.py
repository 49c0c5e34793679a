"""The self-attention memory of SA-ConvLSTM (Eq. 24 of the GMG paper).

Names as in SA-ConvLSTM (Lin et al., 2020): q, k, v query, key and value; Z what both attentions
found. Axes: b sample, c channel, a channel of queries and keys, h row, w column, s position (all
cells of the grid).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmg_model.layers.convolution import for_this_precision


class AttentionKernels(NamedTuple):
    """The weights of one rollout, merged so that each input is read by one convolution."""

    from_hidden: Tensor
    """Of H: query, key and value."""
    from_hidden_bias: Tensor
    from_memory: Tensor
    """Of M: key and value."""
    from_memory_bias: Tensor
    gates: Tensor
    """Of what the attentions found, and of H, into the three gates."""
    gates_bias: Tensor


class AttentionMemory(nn.Module):
    """`(H, M) -> (H, M)`, both (B, hidden, h, w).

    Unscaled softmax attention over all positions, once on H and once on M, both with the query of
    H. What they find updates M through an input gate; an output gate on the new M gives H.

    Parameters
    ----------
    hidden:
        Channels of H and M.
    attention_hidden:
        Channels of queries and keys.
    """

    def __init__(self, hidden: int, attention_hidden: int):
        super().__init__()
        self.hidden, self.attention_hidden = hidden, attention_hidden
        self.layer_q = nn.Conv2d(hidden, attention_hidden, 1)
        self.layer_k = nn.Conv2d(hidden, attention_hidden, 1)
        self.layer_k2 = nn.Conv2d(hidden, attention_hidden, 1)
        self.layer_v = nn.Conv2d(hidden, hidden, 1)
        self.layer_v2 = nn.Conv2d(hidden, hidden, 1)
        self.layer_z = nn.Conv2d(2 * hidden, 2 * hidden, 1)
        self.layer_m = nn.Conv2d(3 * hidden, 3 * hidden, 1)

    def kernels(self) -> AttentionKernels:
        """Return merged weights: q, k, v in one convolution, and layer_z folded into layer_m.

        No activation stands between layer_z and layer_m, so their product is one linear map.
        """
        from_hidden = (self.layer_q, self.layer_k, self.layer_v)
        from_memory = (self.layer_k2, self.layer_v2)
        z, m = self.layer_z, self.layer_m
        width = 2 * self.hidden
        with torch.autocast(z.weight.device.type, enabled=False):
            m_of_z = m.weight[:, :width, 0, 0]
            gates = torch.cat([m_of_z @ z.weight[:, :, 0, 0], m.weight[:, width:, 0, 0]], dim=1)
            bias = _bias(m) + m_of_z @ _bias(z)
        merged = (
            torch.cat([layer.weight for layer in from_hidden]),
            torch.cat([_bias(layer) for layer in from_hidden]),
            torch.cat([layer.weight for layer in from_memory]),
            torch.cat([_bias(layer) for layer in from_memory]),
            gates[:, :, None, None],
            bias,
        )
        return AttentionKernels(*(for_this_precision(tensor) for tensor in merged))

    def forward(
        self, h_bchw: Tensor, m_bchw: Tensor, kernels: AttentionKernels | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the new H and M; with `kernels` by the merged weights (equal to rounding)."""
        if kernels is None:
            return self._unfused(h_bchw, m_bchw)
        batch, _, height, width = h_bchw.shape
        a, hidden = self.attention_hidden, self.hidden
        of_h = F.conv2d(h_bchw, kernels.from_hidden, kernels.from_hidden_bias).flatten(2)
        of_m = F.conv2d(m_bchw, kernels.from_memory, kernels.from_memory_bias).flatten(2)
        q, k, v = of_h.split([a, a, hidden], dim=1)
        k2, v2 = of_m.split([a, hidden], dim=1)
        z = torch.cat([attend(q, k, v), attend(q, k2, v2)], dim=1).view(batch, -1, height, width)
        gates = F.conv2d(torch.cat([z, h_bchw], dim=1), kernels.gates, kernels.gates_bias)
        return _update(gates, m_bchw)

    def _unfused(self, h_bchw: Tensor, m_bchw: Tensor) -> tuple[Tensor, Tensor]:
        q = self.layer_q(h_bchw).flatten(2)
        z_h = attend(q, self.layer_k(h_bchw).flatten(2), self.layer_v(h_bchw).flatten(2))
        z_m = attend(q, self.layer_k2(m_bchw).flatten(2), self.layer_v2(m_bchw).flatten(2))
        z = self.layer_z(torch.cat([z_h, z_m], dim=1).unflatten(2, h_bchw.shape[-2:]))
        return _update(self.layer_m(torch.cat([z, h_bchw], dim=1)), m_bchw)


def attend(q_bcs: Tensor, k_bcs: Tensor, v_bcs: Tensor) -> Tensor:
    """Compute unscaled attention over positions: (B, a, S), (B, a, S), (B, C, S) -> (B, C, S).

    A GPU runs PyTorch's fused kernel, which never stores the S x S weights. On a CPU that kernel
    requires queries and values of equal width, and takes a third longer than two matrix products
    around a softmax.
    """
    q, v = q_bcs.transpose(1, 2), v_bcs.transpose(1, 2)
    if q.is_cuda:
        # The fused kernels require an axis of heads, and channels that are contiguous in memory.
        heads = [x.contiguous()[:, None] for x in (q, k_bcs.transpose(1, 2), v)]
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], scale=1.0)
        return mixed[:, 0].transpose(1, 2)
    logits = torch.bmm(q.contiguous(), k_bcs)
    wide = torch.promote_types(logits.dtype, torch.float32)
    weights = logits.softmax(-1, dtype=wide).to(logits.dtype)
    return torch.bmm(weights, v.to(weights.dtype)).transpose(1, 2)


def _update(gates_bchw: Tensor, m_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """Return the new H and M: `M' = (1 - i) M + i g` and `H' = o M'`."""
    output, candidate, entered = gates_bchw.chunk(3, dim=1)
    entered = torch.sigmoid(entered)
    m_bchw = (1 - entered) * m_bchw + entered * torch.tanh(candidate)
    return torch.sigmoid(output) * m_bchw, m_bchw


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
