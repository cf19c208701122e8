"""Llama-like models (Llama, Mistral, Qwen2, Qwen3, SmolLM ...) run for writing by one C function instead of a hundred modules.

A model fits if it is built of the known parts and a probe finds its own logits. The function reads the live weights
through their addresses, LoRA unmerged, so what is sampled is what is trained; only a table with moving rows is copied. Weights
that will not move and lose nothing by it may be kept in bf16 beside the model: writing one text is as fast as its weights are read.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from hone.models.decode import Fit, KVCache, agrees
from hone.models.heads import head_of
from hone.models.kernels.cpu import library
from hone.tuning.base import prologue_of
from hone.tuning.lowrank import LoraLinear
from hone.tuning.rows import EmbeddingRows, HeadRows, Rows

BLOCK = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
CHUNK = 64
"""Tokens that `llama.c` takes at a time."""
FIXED = {"default", "linear", "llama3", "yarn"}
"""Kinds of rotary tables that do not change with the length of the text."""

Narrow = dict[int, Tensor | None]
"""Address of a weight that does not move to its copy in bf16, or to None where that would lose something."""


class _Linear(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "a", "b")),
        *((name, ctypes.c_int64) for name in ("out", "inputs", "rank", "half")),
        ("scale", ctypes.c_float),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Linear) for name in ("query", "key", "value", "output", "gate", "up", "down")),
        *((name, ctypes.c_void_p) for name in ("attention_norm", "mlp_norm", "query_norm", "key_norm", "keys", "values")),
        ("window", ctypes.c_int64),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("layer", "norm", "cosine", "sine")),
        ("head", _Linear),
        ("embedding", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "inner", "heads", "key_heads", "size", "length", "embedding_half")),
        *((name, ctypes.c_float) for name in ("eps", "scale")),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("token", "row", "position", "read")),
        *((name, ctypes.c_int64) for name in ("tokens", "reads", "threads")),
    ]


class Unfit(Exception):
    """The model has a part that the C function does not know."""


class Llama:
    """The addresses of one model's weights as they stand now. Raises Unfit where the model is not Llama-like.

    `windows` are the sliding windows that the attention layers ask for. `narrow` is given if the weights will not move.
    """

    def __init__(self, model: nn.Module, windows: Mapping[nn.Module, int], narrow: Narrow | None = None) -> None:
        built = library("llama")
        if built is None or prologue_of(model) is not None:
            raise Unfit
        self._run: Callable[..., None] = built["llama"]
        self._kept: list[Tensor] = []
        self._replaced: dict[int, Tensor] = {}
        self._narrow = narrow
        base: Any = model.base_model
        _expect(base, {"embed_tokens", "layers", "norm", "rotary_emb"})
        if prologue_of(model) is not None or any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            raise Unfit
        self._blocks: list[Any] = list(base.layers)
        self._rotary = base.rotary_emb
        self.half = base.embed_tokens.weight.dtype == torch.bfloat16
        """Whether the model is in bf16; keys and values are in fp32 here all the same."""
        kind = vars(self._rotary).get("rope_type")
        if not isinstance(kind, str) or kind not in FIXED:  # Gemma 3 has a kind for each sort of layer
            raise Unfit
        self._layers = (_Layer * len(self._blocks))(*(self._layer(block, windows) for block in self._blocks))
        self._model = self._whole(model, base)
        self._cache: tuple[KVCache, int] | None = None
        self._work = torch.empty(0)

    @property
    def bytes_per_token(self) -> int:
        """What one position of one row of the cache costs."""
        return 8 * len(self._blocks) * self._model.key_heads * self._model.size

    @torch.inference_mode()
    def forward(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        """Feed new tokens to rows of the cache, from their positions `starts` on; logits (B, V) after each row's last token."""
        self._bind(cache)
        lengths = [len(new) for new in tokens]
        count, ends = sum(lengths), [0]
        for length in lengths:
            ends.append(ends[-1] + length)
        row_P = [row for row, length in zip(rows, lengths, strict=True) for _ in range(length)]
        position_P = [start + i for start, length in zip(starts, lengths, strict=True) for i in range(length)]
        assert max(position_P) < cache.length, "the cache is too short for these rows"
        table = torch.tensor([*chain.from_iterable(tokens), *row_P, *position_P, *(end - 1 for end in ends[1:])])
        address = table.data_ptr()
        step = _Step(*(address + 8 * count * i for i in range(4)), count, len(rows), torch.get_num_threads())
        work, logits = self._room(step.threads), torch.empty(len(rows), self._model.head.out)
        self._run(ctypes.byref(self._model), ctypes.byref(step), *(ctypes.c_void_p(x.data_ptr()) for x in (work, logits)))
        cache.hold(rows, tokens, starts)
        return logits

    def _room(self, threads: int) -> Tensor:
        """Space for what the layers pass on, and for each thread to normalise it."""
        wanted = CHUNK * (self._width + threads * self._model.hidden)
        if len(self._work) < wanted:
            self._work = torch.empty(wanted)
        return self._work

    def _bind(self, cache: KVCache) -> None:
        """Let the layers write into this cache, and turn by as many positions as it has."""
        if self._cache == (cache, cache.length):
            return
        new = torch.empty(1, self._model.key_heads, 1, self._model.size)
        for layer, block in zip(self._layers, self._blocks, strict=True):
            pair = cache.layer(block.self_attn, new, new)
            layer.keys, layer.values = (self._address(kept) for kept in pair)
        device_free = torch.zeros(1)
        cosine, sine = (table[0].float().contiguous() for table in self._rotary(device_free, torch.arange(cache.length)[None]))
        if cosine.shape[-1] != self._model.size:
            raise Unfit
        self._model.cosine, self._model.sine, self._model.length = self._address(cosine), self._address(sine), cache.length
        self._cache = cache, cache.length

    def _whole(self, model: Any, base: Any) -> _Model:
        head, first = head_of(model), self._layers[0]
        output, options = model.get_output_embeddings(), model.config.get_text_config()
        words = base.embed_tokens
        plain = type(words.base if isinstance(words, EmbeddingRows) else words) is nn.Embedding
        if head.scale != 1.0 or head.softcap is not None or not plain or isinstance(output, LoraLinear):
            raise Unfit
        size = int(vars(self._blocks[0].self_attn)["head_dim"])
        if options.hidden_act != "silu" or first.query.out % size or first.key.out % size:
            raise Unfit
        heads, key_heads = first.query.out // size, first.key.out // size
        self._width = first.query.inputs + first.query.out + 2 * first.key.out + 2 * first.gate.out
        self._width += max(part.rank for layer in self._layers for part in _parts(layer))
        embedding = self._table(words)
        return _Model(
            layer=ctypes.addressof(self._layers),
            norm=self._norm(base.norm),
            head=self._linear(output),
            embedding=self._address(embedding),
            embedding_half=int(embedding.dtype == torch.bfloat16),
            layers=len(self._blocks),
            hidden=first.query.inputs,
            inner=first.gate.out,
            heads=heads,
            key_heads=key_heads,
            size=size,
            eps=self._eps(base.norm),
            scale=size**-0.5,
        )

    def _layer(self, block: Any, windows: Mapping[nn.Module, int]) -> _Layer:
        _expect(block, BLOCK)
        attention, mlp = block.self_attn, block.mlp
        _expect(attention, ATTENTION, {"q_norm", "k_norm"})
        _expect(mlp, MLP, {"act_fn"})
        norms = dict(attention.named_children())
        return _Layer(
            *(self._linear(getattr(attention, name)) for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
            *(self._linear(getattr(mlp, name)) for name in ("gate_proj", "up_proj", "down_proj")),
            *(self._norm(norm) for norm in (block.input_layernorm, block.post_attention_layernorm)),
            *(self._norm(norms[name]) if name in norms else None for name in ("q_norm", "k_norm")),
            window=windows.get(attention, 0),
        )

    def _linear(self, module: nn.Module) -> _Linear:
        change: dict[str, Any] = {}
        if type(module) is LoraLinear:
            if module.active:
                a, b = module.pair()
                change = {"a": self._full(a), "b": self._full(b), "rank": len(a), "scale": module.scale}
            module = module.base
        if type(module.base if isinstance(module, HeadRows) else module) is not nn.Linear:
            raise Unfit
        weight = self._table(module)
        bias: Any = module.bias
        outputs, inputs = weight.shape
        half = int(weight.dtype == torch.bfloat16)
        at = None if bias is None else self._full(bias)
        return _Linear(weight=self._address(weight), bias=at, out=outputs, inputs=inputs, half=half, **change)

    def _table(self, module: Any) -> Tensor:
        """A matrix as it stands now; one copy where rows of it have been replaced, whether one module asks or two that share them."""
        if not isinstance(module, Rows) or not module.active:
            return self._weight(module.table if isinstance(module, Rows) else module.weight)
        key = module.rows.data_ptr()
        if key not in self._replaced:
            self._replaced[key] = module.weight.contiguous()
        return self._replaced[key]

    def _weight(self, weight: Tensor) -> Tensor:
        """The tensor itself, or its copy in bf16 where that is allowed and says the same."""
        if self._narrow is None or weight.dtype != torch.float32:
            return weight
        if weight.data_ptr() not in self._narrow:
            half = weight.detach().bfloat16()
            self._narrow[weight.data_ptr()] = half if torch.equal(half.float(), weight) else None
        found = self._narrow[weight.data_ptr()]
        return weight if found is None else found

    def _norm(self, module: nn.Module) -> int:
        parameters = dict(module.named_parameters())
        if parameters.keys() != {"weight"} or "variance_epsilon" not in vars(module):
            raise Unfit
        return self._full(parameters["weight"])

    def _eps(self, module: nn.Module) -> float:
        return float(vars(module)["variance_epsilon"])

    def _full(self, tensor: Tensor) -> int:
        """The address of a small tensor in fp32: its own, or that of a copy."""
        return self._address(tensor.detach().float())

    def _address(self, tensor: Tensor) -> int:
        if tensor.device.type != "cpu" or tensor.dtype not in (torch.float32, torch.bfloat16) or not tensor.is_contiguous():
            raise Unfit
        self._kept.append(tensor)
        return tensor.data_ptr()


def _expect(module: nn.Module, parts: set[str], optional: frozenset[str] | set[str] = frozenset()) -> None:
    """A module has these parts, and no others but optional ones and none of its own numbers."""
    found = {name for name, _ in module.named_children()}
    if not parts <= found <= parts | optional or any(True for _ in module.parameters(recurse=False)):
        raise Unfit


def _parts(layer: _Layer) -> list[_Linear]:
    return [layer.query, layer.key, layer.value, layer.output, layer.gate, layer.up, layer.down]


def probe(model: nn.Module, stock: str, fit: Fit) -> Fit:
    """What `decode.probe` found, completed by whether the C function writes for this model with the model's own logits."""
    try:
        one = Llama(model, fit.windows)
        quick = fit.works and agrees(model, stock, one.forward, KVCache(2, 16))
    except Unfit:
        return fit
    return fit._replace(quick=quick, bytes_per_token=one.bytes_per_token if quick else fit.bytes_per_token)
