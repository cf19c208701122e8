"""Small heads with weights of their own beside the language-model head: a value at each read, a score of each sequence.

They live in `Policy.heads`, move with everything else that moves, and lie in `heads.safetensors` beside the adapter or model.

Shape legend: D hidden size, W numbers that a head gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.core.types import Needs

FILE = "heads.safetensors"
HEAD_OF = {"value": "value", "score": "score", "step_score": "score"}
"""Signal -> the head that it is read from."""


class Readout(nn.Module):
    """A linear map from a hidden state to one number (...,) or several (..., W), in at least fp32. It starts at zero."""

    def __init__(self, hidden: int, width: int, *, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        wide = torch.promote_types(dtype, torch.float32)
        self.weight = nn.Parameter(torch.zeros(width, hidden, device=device, dtype=wide))
        self.bias = nn.Parameter(torch.zeros(width, device=device, dtype=wide))

    def forward(self, hidden: Tensor) -> Tensor:
        read = torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
        return read[..., 0] if len(self.weight) == 1 else read


def widths(needs: Needs) -> dict[str, int]:
    """The heads that some signals are read from, and how many numbers each gives (parameter `width`, usually 1)."""
    return {HEAD_OF[name]: int(how.get("width", 1)) for name, how in needs.items() if name in HEAD_OF}


def grow(heads: nn.ModuleDict, wanted: Mapping[str, int], *, hidden: int, device: torch.device, dtype: torch.dtype) -> None:
    """Add the heads that are not there yet."""
    for name, width in wanted.items():
        if name not in heads:
            heads[name] = Readout(hidden, width, device=device, dtype=dtype)


def save(heads: nn.ModuleDict, folder: Path) -> None:
    """Write the heads, if there are any, into a folder."""
    if heads:
        save_file({name: tensor.detach().contiguous() for name, tensor in heads.state_dict().items()}, str(folder / FILE))


def load(heads: nn.ModuleDict, folder: Path, *, hidden: int, device: torch.device, dtype: torch.dtype) -> None:
    """Read the heads that a folder holds. Raises M003 where they are of a model of another size."""
    if not (folder / FILE).is_file():
        return
    stored = load_file(str(folder / FILE))
    for name in {key.partition(".")[0] for key in stored}:
        weight = stored[f"{name}.weight"]
        if weight.shape[1] != hidden:
            what = f"the head '{name}' is for hidden states of {weight.shape[1]} numbers, and this model has {hidden}"
            raise HoneError("M003", what, where=str(folder / FILE), fix="load the base that it was trained on")
        grow(heads, {name: len(weight)}, hidden=hidden, device=device, dtype=dtype)
    heads.load_state_dict(stored, strict=False)
