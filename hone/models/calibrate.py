"""What quantising each layer costs: the error of its weight, the error of its output on real text, and the model's KL divergence.

Shape legend: T tokens of a batch, C tokens of a chunk, I input features, O output features, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.types import Batch
from hone.models.logprob import chunks
from hone.models.policy import Policy
from hone.models.quantise import pack, quantisable
from hone.plan.packed import Scheme, packed_bytes
from hone.tuning.packed import Packed, held


@dataclass(frozen=True, slots=True)
class LayerError:
    """One layer of a model, before anything is decided."""

    path: str
    outputs: int
    inputs: int
    plain_bytes: int
    packed_bytes: int
    weight: float
    """|W - Q(W)| / |W|, Frobenius."""
    output: float
    """|X (W - Q(W))'| / |X W'| on the calibration text."""
    outlier: float
    """Largest input over the median one: what makes a small error of a weight a large one of the output."""

    @property
    def extra(self) -> int:
        """Bytes that keeping it as it was costs."""
        return self.plain_bytes - self.packed_bytes


@dataclass(slots=True)
class _Sums:
    error: float = 0.0
    signal: float = 0.0
    largest: float = 0.0
    median: float = 0.0


@torch.no_grad()
def layer_errors(policy: Policy, batches: Sequence[Batch], scheme: Scheme, *, width: int) -> tuple[list[LayerError], list[Tensor]]:
    """Every layer that the scheme would quantise, measured on a plain model, and the model's last hidden states (T, D) by batch.

    `width` is the bytes of a stored number. One pass; beside the model there is one unpacked layer at a time.
    """
    found = quantisable(policy.model, scheme)
    sums = {path: _Sums() for path in found}
    hooks = [module.register_forward_hook(_watch(sums[path], scheme)) for path, module in found.items()]
    try:
        hidden = hidden_states(policy, batches)
    finally:
        for hook in hooks:
            hook.remove()
    return [_error(path, module, sums[path], scheme, width) for path, module in found.items()], hidden


def _watch(sums: _Sums, scheme: Scheme) -> Callable[[nn.Module, Any, Any], None]:
    def watch(module: nn.Module, inputs: Any, output: Tensor) -> None:
        weight_OI, x_TI = held(module), inputs[0].reshape(-1, inputs[0].shape[-1])
        assert isinstance(weight_OI, Tensor)
        lost_OI = weight_OI - pack(weight_OI, scheme).dense(weight_OI.dtype)
        sums.error += float((x_TI @ lost_OI.t()).float().square().sum())
        sums.signal += float((x_TI @ weight_OI.t()).float().square().sum())
        sums.largest = max(sums.largest, float(x_TI.abs().max()))
        sums.median = max(sums.median, float(x_TI.abs().float().median()))

    return watch


def _error(path: str, module: nn.Module, sums: _Sums, scheme: Scheme, width: int) -> LayerError:
    weight_OI = held(module)
    assert isinstance(weight_OI, Tensor)
    wide_OI = weight_OI.float()
    lost = float((wide_OI - pack(weight_OI, scheme).dense(torch.float32)).norm() / wide_OI.norm().clamp(min=1e-30))
    outputs, inputs = wide_OI.shape
    packed = packed_bytes(scheme.kind, scheme.double, wide_OI.numel(), outputs=outputs)
    output = (sums.error / max(sums.signal, 1e-30)) ** 0.5
    outlier = sums.largest / max(sums.median, 1e-30)
    return LayerError(path, outputs, inputs, width * wide_OI.numel(), packed, lost, output, outlier)


@torch.no_grad()
def hidden_states(policy: Policy, batches: Iterable[Batch]) -> list[Tensor]:
    """Last hidden states (T, D) of each batch, on the CPU."""
    return [policy.hidden(batch.to(policy.device)).cpu() for batch in batches]


@torch.no_grad()
def divergence(policy: Policy, batches: Sequence[Batch], reference: Sequence[Tensor]) -> float:
    """Mean KL(reference || model) of a token in nats, over all tokens. The head is the same in both, so hidden states are enough."""
    head, total, tokens = policy.head(), 0.0, 0
    for batch, known_TD in zip(batches, reference, strict=True):
        hidden_TD = policy.hidden(batch.to(policy.device))
        for rows in chunks(len(hidden_TD), head.chunk()):
            want_CV = head.logits(known_TD[rows].to(policy.device)).log_softmax(-1)
            got_CV = head.logits(hidden_TD[rows]).log_softmax(-1)
            total += float((want_CV.exp() * (want_CV - got_CV)).sum())
        tokens += len(hidden_TD)
    return total / max(1, tokens)


class Bench:
    """A quantised model of which single layers can be given back their weights, to see what that is worth."""

    def __init__(self, policy: Policy, batches: Sequence[Batch], reference: Sequence[Tensor]) -> None:
        self.policy, self.batches, self.reference = policy, batches, reference
        self.packed: Mapping[str, Packed] = {name: m for name, m in policy.model.named_modules() if isinstance(m, Packed)}

    def restore(self, path: str) -> None:
        """Put the plain layer in the place of the packed one; its weight is read from its file."""
        layer = self.packed[path]
        plain = layer.plain()
        assert layer.original is not None
        plain.weight = nn.Parameter(layer.original().to(layer.device, layer.dtype), requires_grad=False)
        self.policy.model.set_submodule(path, plain)

    def divergence_with(self, path: str) -> float:
        """The divergence if this layer were kept as well."""
        self.restore(path)
        found = divergence(self.policy, self.batches, self.reference)
        self.policy.model.set_submodule(path, self.packed[path])
        return found

    def divergence(self) -> float:
        """The divergence as it stands."""
        return divergence(self.policy, self.batches, self.reference)
