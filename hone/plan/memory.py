"""How much memory a run takes: every phase, part by part, from the shapes of the model. Sizes in bytes.

The arithmetic follows what this house's own layers keep for the backward: fused norms keep their input and one number
a row, the gated unit its two inputs, low-rank layers their input and the small product, attention its queries, keys,
values, output and one log-sum-exp. `bench/memory.py` holds it against the allocator; see docs/memory.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hone.plan.layers import Adapters
from hone.plan.shapes import PLAIN_MLP, ModelFacts

WIDTH = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number."""
BITS = {"nf4": 4.127, "fp4": 4.127, "int8": 8.05}
"""Bits of a quantised weight with its scales: 4 bits in blocks of 64 whose scales are quantised again in blocks of 256."""
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2 + 8 / 256, "paged_adamw_8bit": 2 + 8 / 256}
"""Bytes that an optimiser keeps for each trained number: two moments in fp32, or in 8 bits with an fp32 scale for 256 of them."""
CHUNK = 16 << 20
"""Bytes of the logits that exist at once, in fp32; `hone.models.logprob` has the same number, and a test holds them together."""
LEAST_CHUNK = 16
COMPOSED = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu")
"""Activations that transformers writes as several operations, each of which keeps what it needs."""
CONTEXT = {"cpu": 0, "cuda": 850 << 20, "mps": 0}
"""What a device takes before anything is stored: on CUDA the context, the kernels and cuBLAS's workspace."""
SLACK = {"cpu": 0.0, "cuda": 0.03, "mps": 0.0}
"""Share of what comes and goes that a caching allocator cannot use again."""
SHARD = 5e9
"""Bytes of the largest file of a saved model."""
PREFILL = 8192
"""Tokens of prompts that are computed together."""
PHASES = ("load", "forward", "backward", "optimiser", "evaluation", "generation", "save", "merge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything that decides how much memory a run takes."""

    facts: ModelFacts
    adapters: Adapters
    linear: int
    """Numbers in the linear layers of the blocks: what a quantised base stores in fewer bits (then without those that it keeps)."""
    largest: int
    """Numbers of the largest of them."""
    tokens: int = 0
    """Tokens of the largest micro-batch."""
    reads: int = 0
    """Its learned tokens."""
    eval_tokens: int = 0
    eval_reads: int = 0
    dtype: str = "float32"
    quantised: str | None = None
    packed: int = 0
    """Bytes of the quantised layers with all their scales, where they are known exactly; 0 estimates them."""
    device: str = "cpu"
    recompute: bool = False
    accumulates: bool = True
    """Whether gradients of earlier micro-batches are already there."""
    moments: float = 8.0
    """Bytes that the optimiser keeps for each trained number."""
    reference: bool = False
    """A second copy of the base, for methods that compare with it and cannot step aside."""
    other_weights: int = 0
    """Bytes of further models: a teacher, a reward model."""
    value_head: bool = False
    samples: int = 0
    """Answers that are written side by side."""
    sample_tokens: int = 0
    """Tokens of each, prompt included."""

    @property
    def width(self) -> int:
        return WIDTH[self.dtype]


@dataclass(frozen=True, slots=True)
class Phase:
    """What lies in memory at the fullest moment of a phase."""

    name: str
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Memory:
    """The phases of a run."""

    phases: tuple[Phase, ...]

    @property
    def peak(self) -> int:
        return self.fullest.total

    @property
    def fullest(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def dominating(self) -> str:
        """The largest part of the fullest phase."""
        return max(self.fullest.parts, key=lambda part: self.fullest.parts[part])

    def __getitem__(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)


def memory(work: Work) -> Memory:
    """Every phase of a run, those that it does not have left out."""
    makers = (load, forward, backward, optimiser, evaluation, generation, save, merge)
    found = (Phase(name, {k: round(v) for k, v in make(work).items() if v}) for name, make in zip(PHASES, makers, strict=True))
    return Memory(tuple(phase for phase in found if phase.parts))


def weight_bytes(work: Work) -> float:
    """The base: linear layers in their bits, all else in the type of the arithmetic."""
    if work.quantised is None:
        return work.facts.parameters * work.width
    return (work.packed or work.linear * BITS[work.quantised] / 8) + (work.facts.parameters - work.linear) * work.width


def _standing(work: Work) -> dict[str, float]:
    """What is there all the time."""
    added, moving = work.adapters.added, work.adapters.trainable
    wide = max(4, work.width)
    return {
        "device": CONTEXT[work.device],
        "weights": weight_bytes(work),
        "other models": (weight_bytes(work) if work.reference else 0) + work.other_weights,
        "adapter": added * wide,
        "masters": (moving - added) * wide if wide != work.width else 0,
    }


def _training(work: Work) -> dict[str, float]:
    """What is there all the time once a step has been made."""
    moving, wide = work.adapters.trainable, max(4, work.width)
    return _standing(work) | {"optimiser": moving * work.moments * wide / 4, "gradients": moving * wide if work.accumulates else 0}


def load(work: Work) -> dict[str, float]:
    """Weights are mapped from their files and come straight into their type."""
    return {"device": CONTEXT[work.device], "weights": weight_bytes(work)}


def layer_numbers(work: Work) -> float:
    """Numbers that one block keeps of each token for the backward, in the type of the arithmetic."""
    facts, kept = work.facts, work.adapters.kept / max(1, work.facts.layers)
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    attention = 2 * query + 2 * key + ((query + key) if facts.query_norms else 0)
    return 4 * facts.hidden + attention + _feed(facts) + kept


def _feed(facts: ModelFacts) -> float:
    """Numbers that the feed-forward keeps of each token: gate, up and product, or input and output of the activation."""
    if facts.family in PLAIN_MLP:
        return facts.intermediate * (5 if facts.activation in COMPOSED else 2)
    return 3 * facts.intermediate * max(1, min(facts.experts, 8))


def layer_bytes(work: Work) -> float:
    """Bytes that one block keeps of each token; log-sum-exps and the norms' rows are in fp32 at least."""
    heads = work.facts.heads * (2 if work.facts.query_norms else 1) + (work.facts.kv_heads if work.facts.query_norms else 0)
    rows = (heads + 2 * (2 if work.facts.family in PLAIN_MLP else 1)) * max(4, work.width)
    return layer_numbers(work) * work.width + rows


def _activations(work: Work) -> float:
    """All that the forward leaves behind for the backward."""
    facts = work.facts
    if work.recompute:
        return facts.layers * facts.hidden * work.width * work.tokens
    return facts.layers * layer_bytes(work) * work.tokens


def _chunk(work: Work, reads: float) -> float:
    """The logits that exist at once: one chunk and the one before it. Outside the fused CPU kernel they are there in fp32 beside."""
    rows = max(LEAST_CHUNK, CHUNK // (4 * work.facts.vocab))
    fused = work.device == "cpu" and work.dtype in ("float32", "bfloat16")
    number = work.width if fused else work.width + 2 * max(4, work.width)
    return min(reads, rows) * work.facts.vocab * number * (2 if reads > rows else 1)


def _moves_head(work: Work) -> bool:
    return work.adapters.trainable > work.adapters.added


def forward(work: Work) -> dict[str, float]:
    """The end of the forward: everything kept, and the loss being formed."""
    reads = work.reads * work.facts.hidden * work.width
    found = {"activations": _activations(work), "loss": _chunk(work, work.reads) + (1 if _moves_head(work) else 2) * reads}
    return _training(work) | found


def backward(work: Work) -> dict[str, float]:
    """The fullest moment of the backward: at the head, or in the last block."""
    facts, kept = work.facts, _activations(work)
    head = facts.vocab * facts.hidden * max(4, work.width) if _moves_head(work) else 0
    reads = work.reads * facts.hidden * work.width
    at_head = 2 * head + (_chunk(work, work.reads) if head else 0) + 2 * reads + facts.hidden * work.width * work.tokens
    buffered = head if facts.tied else 0
    recomputed = layer_bytes(work) * work.tokens if work.recompute else 0
    in_block = buffered + recomputed + _block_peak(work) * work.width * work.tokens + _weight_gradient(work)
    most = max(at_head, in_block)
    slack = SLACK[work.device] * (kept + most)
    return _training(work) | {"activations": kept, "backward": most, "dequantised": _dequantised(work), "fragments": slack}


def _block_peak(work: Work) -> float:
    """Numbers of each token that the backward of the last block adds to what is kept, at most."""
    facts = work.facts
    wide = facts.intermediate
    if facts.family in PLAIN_MLP:
        return 2 * facts.hidden + (2 if facts.activation in COMPOSED else 1) * wide
    fused = 2.0 if work.device == "cpu" else 5.0
    feed = facts.hidden + fused * wide
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    attention = facts.hidden + 8 * query + 3 * key - 3 * wide - 2 * facts.hidden
    return max(feed, attention)


def _weight_gradient(work: Work) -> float:
    """The gradient of one weight before it is added to what is there."""
    return work.largest * max(4, work.width) if _moves_head(work) and work.accumulates else 0


def _dequantised(work: Work) -> float:
    """The largest layer in the type of the arithmetic, while it is multiplied."""
    return work.largest * work.width if work.quantised else 0


def optimiser(work: Work) -> dict[str, float]:
    """The fused step needs nothing but its own moments, and gradients of everything that moves."""
    return _training(work) | {"gradients": work.adapters.trainable * max(4, work.width)}


def _passing(work: Work, tokens: float, reads: float) -> dict[str, float]:
    """A forward that keeps nothing: the widest moment of a block, or the loss, whichever is larger."""
    facts = work.facts
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    wide = facts.intermediate * (5 if facts.family in PLAIN_MLP and facts.activation in COMPOSED else 4)
    block = work.width * tokens * (2 * facts.hidden + max(wide, 5 * query + 3 * key))
    loss = _chunk(work, reads)
    ends = facts.hidden * work.width * (tokens + reads)
    return {"activations": block} if block > loss + ends else {"activations": ends, "loss": loss}


def evaluation(work: Work) -> dict[str, float]:
    """The held-out loss, with no gradients kept."""
    if not work.eval_tokens:
        return {}
    passing = _passing(work, work.eval_tokens, work.eval_reads)
    return _training(work) | {"gradients": 0} | passing | {"dequantised": _dequantised(work)}


def generation(work: Work) -> dict[str, float]:
    """Answers being written: their keys and values, and the logits of one position each."""
    if not work.samples:
        return {}
    facts = work.facts
    cache = 2 * facts.layers * facts.kv_heads * facts.head_dim * work.width * work.samples * work.sample_tokens
    logits = work.samples * facts.vocab * 4 * 2
    passing = _passing(work, min(work.samples * work.sample_tokens, PREFILL), 0)["activations"]
    return _training(work) | {"gradients": 0, "keys and values": cache, "logits": logits, "activations": passing}


def save(work: Work) -> dict[str, float]:
    """A checkpoint is written as a stream; a whole model passes through a copy of its largest shard."""
    copied = min(weight_bytes(work), SHARD) if _moves_head(work) else 0
    return _training(work) | {"gradients": 0, "copy": copied}


def merge(work: Work) -> dict[str, float]:
    """The change of one layer at a time, formed in fp32 beside a copy of its weight, with neither optimiser nor gradients."""
    if not work.adapters.added:
        return {}
    whole = work.facts.parameters * work.width
    return _standing(work) | {"weights": whole, "one layer": 3 * work.adapters.largest * max(4, work.width)}
