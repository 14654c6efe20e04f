"""What a network declares of itself.

A new network is one file, with its `Network`, its preprocessing and its features (`clip -> array`), and one row of
the table of weights that names the declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from jwb_dh_v1.networks.weights_table import FILES

T = TypeVar("T")
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, eq=False)
class Network(Generic[T]):
    """A network: how it comes out of its files, and how it is placed on a device.

    Attributes:
        name: of its weight file in `weights_table.FILES`; the row's `network` says where this declaration is.
        load: verified files by name and the device -> the network, in eval mode. What is a `torch.nn.Module` is then
            moved to the device; what is not runs where `load` put it.
        fold_norms: each batch norm becomes part of the convolution before it.
        channels_last: the weights of convolutions have the channels last in memory.
        onednn: matrix products by oneDNN on a CPU (see `placement`).
        half: it follows the precision asked for. Set for networks whose outputs are directions; those whose outputs
            are numbers to be read stay in float32.

    """

    name: str
    load: Callable[[Mapping[str, Path], str], T]
    fold_norms: bool = False
    channels_last: bool = False
    onednn: bool = False
    half: bool = False


def network_of(name: str) -> Network[Any] | None:
    """The network of a weight file, or None for a file that serves another one or a detector."""
    module, _, declaration = FILES[name].network.partition(":")
    if not module:
        return None
    found: Network[Any] = getattr(import_module(f"jwb_dh_v1.networks.{module}"), declaration)
    return found
