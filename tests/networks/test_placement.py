"""Linear layers and self-attention by oneDNN against PyTorch's own modules."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from jwb_dh_v1.networks.placement import Linear, SelfAttention, by_onednn

ORDER = 1e-5  # sums of up to 1,024 products of order 1 in another order: float32 keeps 1e-7 of each; seen 3e-6


@pytest.mark.parametrize("shape", [(64,), (1, 64), (257, 64), (3, 5, 64), (2, 3, 5, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    torch.manual_seed(0)
    given, x = nn.Linear(64, 40, bias=bias), torch.randn(shape)
    fast = Linear(given.weight, given.bias)
    assert torch.allclose(fast(x), given(x), rtol=0, atol=ORDER)
    assert fast.weight.data_ptr() == given.weight.data_ptr()  # no second copy of 300 million numbers
    if len(shape) > 1:
        turned = x.transpose(0, -2)  # not contiguous
        assert torch.allclose(fast(turned), given(turned), rtol=0, atol=ORDER)


def test_self_attention():
    torch.manual_seed(0)
    given = nn.MultiheadAttention(64, 4, batch_first=True).eval()
    nn.init.normal_(given.in_proj_bias)
    x = torch.randn(3, 17, 64)
    with torch.inference_mode():
        expected, _ = given(x, x, x, need_weights=False)
        found, weights = SelfAttention(given)(x, x, x)
    assert weights is None and torch.allclose(found, expected, rtol=0, atol=ORDER)


def test_what_it_does_not_do_is_refused():
    fast, x = SelfAttention(nn.MultiheadAttention(8, 2, batch_first=True)), torch.randn(1, 3, 8)
    for arguments in ((x, x.clone(), x), (x, x, x.clone()), (x, x, x, True), (x, x, x, False, torch.zeros(3, 3))):
        with pytest.raises(ValueError, match="self-attention without masks"):
            fast(*arguments)
    for other in ({"batch_first": False}, {"kdim": 4}, {"add_bias_kv": True}, {"add_zero_attn": True}):
        with pytest.raises(ValueError, match="plain self-attention"):
            SelfAttention(nn.MultiheadAttention(8, 2, **{"batch_first": True, **other}))


def test_a_whole_network_is_the_same_function():
    """Nested modules, heads, and what is no product; the shapes of CLIP's blocks."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(64)
            self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))

        def forward(self, x):
            y = self.norm(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            return x + self.mlp(x)

    torch.manual_seed(0)
    net, x = nn.Sequential(Block(), Block(), nn.Linear(64, 8)).eval(), torch.randn(2, 50, 64)
    with torch.inference_mode():
        expected = net(x)
        assert by_onednn(net) is net
        found = net(x)
    assert not any(isinstance(module, nn.Linear | nn.MultiheadAttention) for module in net.modules())
    assert torch.allclose(found, expected, rtol=0, atol=ORDER)
    assert functional.cosine_similarity(found, expected, dim=-1).min() > 1 - 1e-6
