"""Whether what was loaded is what the files hold: nothing missing, nothing left over, every number a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.plan.headers import Stored

ORIGINAL = "use the model's original files; if you made them, save the whole model again"


def check(model: nn.Module, report: Mapping[str, Any], stored: Mapping[str, Stored], *, where: str) -> None:
    """All checks of this file. `report` is what transformers says after loading, `stored` what the files hold. Raises M005."""
    check_report(report, where=where)
    check_tied(model, stored, where=where)
    check_finite(model, stored, where=where)


def check_report(report: Mapping[str, Any], *, where: str) -> None:
    """Refuse weights that do not fit the architecture. Raises M005."""
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing:
        what = f"{_count(missing, 'tensor')} missing: {_some(missing)}. They would be random numbers"
        raise HoneError("M005", what, where=where, fix=ORIGINAL)
    wrong = sorted((str(name), tuple(stored), tuple(wanted)) for name, stored, wanted in report["mismatched_keys"])
    if wrong:
        name, stored, wanted = wrong[0]
        what = f"tensor '{name}' has shape {stored}, config.json asks for {wanted}" + (f" (and {len(wrong) - 1} more)" if wrong[1:] else "")
        raise HoneError("M005", what, where=where, fix="the weights and config.json belong to two models; download both again")
    if unexpected:
        what = f"{_count(unexpected, 'tensor')} not part of this architecture: {_some(unexpected)}. They would be left out silently"
        raise HoneError("M005", what, where=where, fix=ORIGINAL)
    if report["error_msgs"]:
        raise HoneError("M005", f"the weights cannot be loaded ({str(report['error_msgs'][0])[:200]})", where=where, fix=ORIGINAL)


def check_tied(model: nn.Module, stored: Mapping[str, Stored], *, where: str) -> None:
    """Raise M005 where config.json says that head and embedding are one matrix but the files hold two different ones."""
    config: Any = model.config
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    if head is None or not config.get_text_config().tie_word_embeddings or head.weight is embedding.weight:
        return
    names = [name for name, parameter in model.named_parameters() if parameter is head.weight]
    if any(name in stored for name in names):
        what = f"config.json says that the head is the embedding, but '{names[0]}' is stored with other values"
        fix = 'put "tie_word_embeddings": false into config.json if the head is meant; else save the model again without it'
        raise HoneError("M005", what, where=where, fix=fix)


@torch.no_grad()
def check_finite(model: nn.Module, stored: Mapping[str, Stored], *, where: str) -> None:
    """Raise M005 for the first weight that holds NaN or infinity, with its file. One pass, no copies, about 5 GB a second."""
    read = [*model.named_parameters(), *((name, tensor) for name, tensor in model.named_buffers() if name in stored)]
    for name, tensor in read:
        if tensor.is_floating_point() and tensor.numel() and not _finite(tensor):
            file = stored[name].file.name if name in stored else "the weights"
            overflow = tensor.dtype == torch.float16 and name in stored and stored[name].dtype != "F16"
            why = " after rounding to float16, which ends at 65504" if overflow else ""
            bad = int((~torch.isfinite(tensor)).sum())
            what = f"tensor '{name}' in {file} holds {bad:,} of {tensor.numel():,} values that are no finite numbers{why}"
            fix = "load it with hardware.dtype=float32" if overflow else "the model is broken; use another copy or an earlier checkpoint"
            raise HoneError("M005", what, where=where, fix=fix)


def _finite(tensor: Tensor) -> bool:
    """aminmax passes NaN on and is a hundred times as fast as isfinite on bfloat16."""
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _count(names: list[str], noun: str) -> str:
    return f"1 {noun} is" if len(names) == 1 else f"{len(names)} {noun}s are"


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
