"""A language model and its tuning, answering one question: what does it say at the reads of a batch?

Shape legend: T tokens, N reads, D hidden size, R padded rows, L their length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.core.types import Batch, Needs, Segment, Signals
from hone.models import attention, heads, prologue, readouts, vocabulary
from hone.models.logprob import Head, token_logprobs
from hone.models.teacher import Say, teacher_reading
from hone.objectives.base import asked
from hone.tuning.base import Tuning, trainable


@dataclass(slots=True)
class Policy:
    """The one object that the loop asks.

    `packed` says whether the model's attention can read a forest of segments; `stock` is the attention it came with,
    which the padded layout uses. `heads` have weights of their own and are trained with the rest (`grow`); `teacher` is what
    a divergence is measured from, unless the batch brings what it said; `reference` is a second copy of what the model was, for
    methods that move the base itself.
    """

    model: nn.Module
    tuning: Tuning
    packed: bool = True
    stock: str = "sdpa"
    heads: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    teacher: Policy | Say | None = None
    reference: Policy | None = None
    words: int | None = None
    """Only the first rows of the head count: some models pad their vocabulary further than their relatives do."""

    @classmethod
    def of(cls, model: nn.Module, tuning: Tuning) -> Policy:
        """Find the head and the fastest layout that this model computes correctly, by trying both on a few tokens."""
        config: Any = model.config
        stock = str(config._attn_implementation)
        heads.check(model)
        packed = _packable(model, stock)
        if packed:
            model.set_attn_implementation(attention.NAME)  # type: ignore[operator]
        return cls(model, tuning, packed, stock)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def grow(self, needs: str | Needs) -> Policy:
        """Add the heads that these signals are read from, where they are missing. Returns the policy itself."""
        readouts.grow(self.heads, readouts.widths(asked(needs)), **self._shape())
        return self

    @property
    def hidden_size(self) -> int:
        return int(heads.text_config(self.model).hidden_size)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name to parameter of all that moves, in a stable order: the tuning's weights, then the heads'."""
        return trainable(self.model) | {f"heads.{name}": p for name, p in trainable(self.heads).items()}

    def save(self, folder: Path, *, base: Mapping[str, str]) -> None:
        """Write what was learned, and the heads beside it."""
        self.tuning.save(self.model, folder, base=base)
        readouts.save(self.heads, folder)

    def load(self, folder: Path, *, base: Mapping[str, str]) -> None:
        """Read back what `save` wrote."""
        self.tuning.load(self.model, folder, base=base)
        self.load_heads(folder)

    def load_heads(self, folder: Path) -> None:
        """Read the heads that lie in a folder, if there are any."""
        readouts.load(self.heads, folder, **self._shape())

    def _shape(self) -> dict[str, Any]:
        first = next(self.model.parameters())
        return {"hidden": heads.text_config(self.model).hidden_size, "device": first.device, "dtype": first.dtype}

    def signals(self, batch: Batch, needs: str | Needs) -> Signals:
        """What the objective asked for, at the batch's reads; differentiable in whatever moves.

        Parameters: `temperature` of logp, ref_logp, entropy and divergence; `beta` and `top_k` of divergence (see
        `hone.objectives.divergence`); `width` of score and step_score.
        """
        needs = asked(needs)
        hidden_TD = self.hidden(batch)
        hidden_ND = hidden_TD[batch.read_N]
        out = Signals(batch)
        if "logp" in needs:
            out.logp_N = token_logprobs(hidden_ND, self.head(**needs["logp"]), batch.target_N)
        if "ref_logp" in needs:
            out.ref_logp_N = self._reference(batch, **needs["ref_logp"])
        self._read_vocabulary(out, hidden_ND, needs)
        if "value" in needs:
            out.value_N = self.heads["value"](hidden_ND)
        if "score" in needs:
            out.score_S = self.heads["score"](hidden_TD[batch.last_S])
        if "step_score" in needs:
            out.step_score_N = self.heads["score"](hidden_ND)
        return out

    def _read_vocabulary(self, out: Signals, hidden_ND: Tensor, needs: Needs) -> None:
        """The signals that are functions of the whole next-token distribution; those of one temperature share its logits."""
        wanted: dict[float, dict[str, vocabulary.Reading]] = defaultdict(dict)
        if "entropy" in needs:
            wanted[needs["entropy"].get("temperature", 1.0)]["entropy_N"] = vocabulary.entropy
        if "mean_logp" in needs:
            wanted[1.0]["mean_logp_N"] = vocabulary.mean_logp
        if "divergence" in needs:
            how = needs["divergence"]
            wanted[how.get("temperature", 1.0)]["divergence_N"] = teacher_reading(self.teacher, out.batch, how)
        for temperature, readings in wanted.items():
            values = vocabulary.per_read(hidden_ND, self.head(temperature), tuple(readings.values()))
            for name, value_N in zip(readings, values, strict=True):
                setattr(out, name, value_N)

    @torch.no_grad()
    def _reference(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """Log-probabilities under the base, without dropout: those that the batch brings, or of its copy, or the adapter steps aside."""
        if "ref_logp" in batch.facts:
            assert temperature == 1.0, "the reference is cached at temperature 1"
            return batch.facts["ref_logp"]
        if self.reference is not None:
            return self.reference.signals(batch, {"logp": {"temperature": temperature}}).logp
        with self.tuning.disabled(self.model), evaluating(self.model):
            return token_logprobs(self.hidden(batch)[batch.read_N], self.head(temperature), batch.target_N)

    def head(self, temperature: float = 1.0) -> Head:
        """The language-model head as it stands now."""
        head = heads.head_of(self.model)
        if self.words is not None:
            bias_V = None if head.bias_V is None else head.bias_V[: self.words]
            head = replace(head, weight_VD=head.weight_VD[: self.words], bias_V=bias_V).only_known()
        return head if temperature == 1.0 else replace(head, temperature=temperature)

    def hidden(self, batch: Batch) -> Tensor:
        """Last hidden state of every token, shape (T, D)."""
        if not len(batch.tokens_T):
            raise AssertionError("a batch without tokens has no hidden states")
        if self.packed and _fits_window(self.model, batch):
            return _packed_hidden(self.model, batch)
        return _padded_hidden(self.model, batch, self.stock)


def _packed_hidden(model: nn.Module, batch: Batch) -> Tensor:
    """One row of all tokens; attention keeps the segments apart."""
    tokens_T, positions_T, segments = prologue.laid_out(model, batch)
    forest = attention.plan(segments, tokens_T.device)
    with using_attention(model, attention.NAME):
        out = model.base_model(  # type: ignore[operator]
            **prologue.inputs(model, tokens_T[None]), position_ids=positions_T[None], use_cache=False, segments=forest
        )
    return out.last_hidden_state[0, len(tokens_T) - len(batch.tokens_T) :]


def _padded_hidden(model: nn.Module, batch: Batch, stock: str) -> Tensor:
    """One padded row for each sequence, with the model's own attention; each token is read from one of its copies."""
    rows = [batch.path(leaf) for leaf in batch.leaf_S]
    width = max(len(row) for row in rows)
    device = batch.tokens_T.device
    index_RL = torch.stack([torch.nn.functional.pad(row, (0, width - len(row)), value=-1) for row in rows]).to(device)
    real_RL = index_RL >= 0
    tokens_RL = torch.where(real_RL, batch.tokens_T[index_RL.clamp(min=0)], 0)
    with using_attention(model, prologue.attention_for(model, stock)):
        out = model.base_model(**prologue.in_rows(model, tokens_RL, real_RL), use_cache=False)  # type: ignore[operator]
    hidden = out.last_hidden_state[:, -width:].flatten(0, 1)
    place_T = torch.zeros_like(batch.tokens_T)
    at = real_RL.flatten().nonzero()[:, 0]
    place_T[index_RL.flatten()[at]] = at
    return hidden[place_T]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout; afterwards as before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def using_attention(model: nn.Module, name: str) -> Iterator[None]:
    """Run with one attention implementation and restore the one before."""
    config: Any = model.config
    before = str(config._attn_implementation)
    if before != name:
        model.set_attn_implementation(name)  # type: ignore[operator]
    try:
        yield
    finally:
        if before != name:
            model.set_attn_implementation(before)  # type: ignore[operator]


def _fits_window(model: nn.Module, batch: Batch) -> bool:
    window = heads.text_config(model).to_dict().get("sliding_window")
    return window is None or int(batch.positions_T.max()) + prologue.positions(model) < window


@torch.no_grad()
def _packable(model: nn.Module, stock: str) -> bool:
    """Compare the packed and the padded layout on two short sequences with a shared prefix."""
    device = next(model.parameters()).device
    size = heads.text_config(model).vocab_size
    tokens_T = torch.arange(3, 3 + 21, device=device) % size
    positions = [*range(9), *range(9, 14), *range(9, 16)]
    segments = (Segment(0, 9, -1), Segment(9, 5, 0), Segment(14, 7, 0))
    empty = torch.zeros(0, dtype=torch.long, device=device)
    batch = Batch(tokens_T, torch.tensor(positions, device=device), segments, empty, empty, empty.float(), empty, empty, (1, 2), 2)
    try:
        with evaluating(model):
            padded = _padded_hidden(model, batch, stock).float()
            packed = _packed_hidden(model, batch).float()
    except (HoneError, TypeError, NotImplementedError, RuntimeError):
        return False
    tolerance = 1e-4 if next(model.parameters()).dtype in (torch.float32, torch.float64) else 5e-2
    return bool((packed - padded).norm() <= tolerance * padded.norm())
