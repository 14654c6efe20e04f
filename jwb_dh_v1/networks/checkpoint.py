"""Networks from the tensors of a checkpoint, all of them and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from jwb_dh_v1.errors import SetupError

Net = TypeVar("Net", bound=nn.Module)


def filled(make: Callable[[], Net], state: Mapping[str, torch.Tensor], what: str, name: str = "This") -> Net:
    """A network with a checkpoint's tensors, in eval mode on the CPU in float32, without gradients.

    Args:
        make: builds the network.
        state: its tensors by name; float32 ones become the network's own, others are converted.
        what: that this should be, for the error.
        name: what to call it in the error.

    Raises:
        SetupError: keys or shapes are those of another network.

    """
    # Built without memory and filled by the file's own tensors: no time goes into random numbers.
    with torch.device("meta"):
        net = make()
    try:
        floats = {key: value if key.endswith("num_batches_tracked") else value.float() for key, value in state.items()}
        net.load_state_dict(floats, assign=True)
    except (RuntimeError, AttributeError) as error:  # AttributeError: a value is no tensor
        raise SetupError(f"{name} is no {what}: {str(error).splitlines()[-1].strip()}") from None
    return net.eval().requires_grad_(False)


def load_torch(path: Path) -> dict[str, torch.Tensor]:
    """A verified state dict on the CPU; only tensors are unpickled (`weights_only=True`)."""
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
