"""Quantised bases: linear layers in NF4, FP4 or int8 through bitsandbytes, made from plain ones or taken from files that are so.

Shape legend: I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hone.core.disk import size
from hone.core.errors import HoneError
from hone.models.dtype import DTYPES
from hone.models.skeleton import own_name
from hone.models.tensorfile import read_stored
from hone.plan.headers import Stored
from hone.plan.packed import GROUP, ROUTERS, Scheme, contradiction, packed_weights, scheme_of, skips
from hone.tuning.packed import Packed, held

WIDE = (torch.float32, torch.bfloat16, torch.float16)
"""Types that bitsandbytes unpacks into; others go by way of fp32."""


def available() -> bool:
    """Whether bitsandbytes is installed."""
    return find_spec("bitsandbytes") is not None


def check_available(asked: str, *, accelerate: bool = False) -> None:
    """Raise M088 where bitsandbytes, or what transformers wants beside it for files that are quantised, is not installed."""
    missing = [name for name in ("bitsandbytes", *(["accelerate"] if accelerate else [])) if find_spec(name) is None]
    if missing:
        fix = "pip install 'hone-llm[quant]'" + ("" if accelerate else ", or set model.quantise=none")
        raise HoneError("M088", f"{asked} needs {' and '.join(missing)}, which is not installed", where="model.quantise", fix=fix)


class FourBit(Packed):
    """A weight in NF4 or FP4 (arXiv 2305.14314): two codes to a byte, and the largest value of each block of 64.

    Buffers: `codes` (uint8), `scales` (fp32, or uint8 where they are quantised again), and then `nested` (fp32), `offset` and
    `table`, which all layers share.
    """

    def __init__(self, codes: Tensor, state: Any, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        outputs, inputs = state.shape
        super().__init__(outputs, inputs, bias, dtype)
        self.kind, self.block = str(state.quant_type), int(state.blocksize)
        second = state.state2 if state.nested else None
        self.group = int(second.blocksize) if second is not None else GROUP
        self.register_buffer("codes", codes)
        self.register_buffer("scales", state.absmax)
        self.register_buffer("nested", None if second is None else second.absmax)
        self.register_buffer("offset", None if second is None else state.offset)
        self.register_buffer("table", None if second is None else second.code)

    @classmethod
    def pack(cls, weight_OI: Tensor, scheme: Scheme, bias: nn.Parameter | None, dtype: torch.dtype) -> FourBit:
        from bitsandbytes import functional as bnb

        wide = weight_OI if weight_OI.dtype in WIDE else weight_OI.float()
        codes, state = bnb.quantize_4bit(
            wide.contiguous(), blocksize=64, compress_statistics=scheme.double, quant_type=scheme.kind, quant_storage=torch.uint8
        )
        return cls(codes, state, bias, dtype)

    def state(self, dtype: torch.dtype) -> Any:
        """bitsandbytes' own description of the packing, for unpacking into a type."""
        from bitsandbytes import functional as bnb

        twice = self.nested is not None
        second = bnb.QuantState(self.nested, code=self.table, blocksize=self.group, dtype=torch.float32) if twice else None
        shape = torch.Size((self.out_features, self.in_features))
        return bnb.QuantState(
            self.scales, shape=shape, blocksize=self.block, quant_type=self.kind, dtype=dtype, offset=self.offset, state2=second
        )

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        from bitsandbytes import functional as bnb

        wanted = dtype or self.dtype
        found: Tensor = bnb.dequantize_4bit(self.codes, self.state(wanted if wanted in WIDE else torch.float32))
        return found.to(wanted)


class EightBit(Packed):
    """A weight in int8: each row over its largest value, as LLM.int8() stores it (arXiv 2208.07339).

    It is unpacked and multiplied in the type of the input. LLM.int8() itself also rounds the inputs, which is less exact.
    """

    kind = "int8"

    def __init__(self, codes_OI: Tensor, scales_O: Tensor, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        outputs, inputs = codes_OI.shape
        super().__init__(outputs, inputs, bias, dtype)
        self.register_buffer("codes", codes_OI)
        self.register_buffer("scales", scales_O)

    @classmethod
    def pack(cls, weight_OI: Tensor, scheme: Scheme, bias: nn.Parameter | None, dtype: torch.dtype) -> EightBit:
        from bitsandbytes import functional as bnb

        codes_OI, scales_O, _ = bnb.int8_vectorwise_quant(weight_OI.half().contiguous())
        return cls(codes_OI, scales_O, bias, dtype)

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        scales_O1 = (self.get_buffer("scales") / 127)[:, None]
        return (self.get_buffer("codes") * scales_O1).to(dtype or self.dtype)


def pack(weight_OI: Tensor, scheme: Scheme, bias: nn.Parameter | None = None, dtype: torch.dtype = torch.float32) -> FourBit | EightBit:
    """One weight, packed. `dtype` is the type that its layer computes in."""
    return (EightBit if scheme.kind == "int8" else FourBit).pack(weight_OI, scheme, bias, dtype)


def quantisable(model: nn.Module, scheme: Scheme) -> dict[str, nn.Module]:
    """Path -> linear layer of all that a scheme quantises: not the head, the routers, or what it skips."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    found = ((path, module) for path, module in model.named_modules() if type(module) in (nn.Linear, Conv1D) and module is not head)
    return {path: module for path, module in found if path.rpartition(".")[2] not in ROUTERS and not skips(scheme, path)}


@torch.no_grad()
def quantise(
    model: nn.Module, scheme: Scheme, *, place: torch.device, dtype: torch.dtype, stored: Mapping[str, Stored] | None = None
) -> list[str]:
    """Put packed layers in the places of plain ones, one at a time, and move the rest to `place` in `dtype`. Returns their paths.

    Each weight goes to the device alone, so that it never holds the plain model; `stored` (the model's names) lets layers
    remember where theirs came from. Raises M088 without bitsandbytes, M089 where there is nothing to quantise.
    """
    check_available(f"model.quantise={scheme.kind}")
    found = quantisable(model, scheme)
    if not found:
        fix = "set model.quantise=none"
        raise HoneError("M089", "this model has no linear layer that could be quantised", where="model.quantise", fix=fix)
    shared: dict[torch.device, Tensor] = {}
    for path, module in found.items():
        turned = isinstance(module, Conv1D)
        weight = held(module)
        assert isinstance(weight, Tensor)
        bias = module.bias.to(place, dtype) if isinstance(module.bias, Tensor) else None
        kept = None if bias is None else nn.Parameter(bias, requires_grad=False)
        layer = pack(weight.to(place), scheme, kept, dtype)
        layer.original = _reader(stored, f"{path}.weight", turned=turned)
        _share_table(layer, shared)
        model.set_submodule(path, layer.train(module.training))
    _move_rest(model, place, dtype)
    return list(found)


def _move_rest(model: nn.Module, place: torch.device, dtype: torch.dtype) -> None:
    """All but the packed layers; `Module.to` with a type would touch their scales."""
    for module in model.modules():
        if isinstance(module, Packed):
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            # buffers of rotary embeddings stay in fp32, as transformers keeps them
            wanted = dtype if isinstance(tensor, nn.Parameter) and tensor.is_floating_point() else tensor.dtype
            tensor.data = tensor.data.to(place, wanted)


def _share_table(layer: Packed, shared: dict[torch.device, Tensor]) -> None:
    """The 256 values of quantised scales are the same in all layers: one tensor of them is enough."""
    if isinstance(layer, FourBit) and layer.table is not None:
        layer.table = shared.setdefault(layer.device, layer.get_buffer("table"))


def _reader(stored: Mapping[str, Stored] | None, name: str, *, turned: bool) -> Callable[[], Tensor] | None:
    place = (stored or {}).get(name)
    if place is None:
        return None

    def read() -> Tensor:
        weight = read_stored(place)
        return weight.t() if turned else weight

    return read


@torch.no_grad()
def adopt(model: nn.Module, dtype: torch.dtype) -> list[str]:
    """Take over the layers that transformers has read from quantised files; their numbers stay where they are. Returns their paths."""
    import bitsandbytes

    shared: dict[torch.device, Tensor] = {}
    made: dict[str, Packed] = {}
    for path, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            state, codes = module.weight.quant_state, module.weight.data
            made[path] = FourBit(codes.view(torch.uint8).reshape(-1, 1), state, _bias(module), dtype)
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            made[path] = EightBit(module.weight.data, module.weight.SCB, _bias(module), dtype)
    for path, layer in made.items():
        _share_table(layer, shared)
        model.set_submodule(path, layer.train(model.training))
    return list(made)


def _bias(module: Any) -> nn.Parameter | None:
    return None if module.bias is None else nn.Parameter(module.bias.data, requires_grad=False)


class Footprint(NamedTuple):
    """What a model's numbers take in memory, tensors that are shared once."""

    packed: int
    """Numbers that are quantised."""
    packed_bytes: int
    """What they take, scales and tables included."""
    plain_bytes: int
    """Everything else."""

    @property
    def bits(self) -> float:
        """Of a quantised number."""
        return 8 * self.packed_bytes / max(1, self.packed)

    @property
    def nbytes(self) -> int:
        return self.packed_bytes + self.plain_bytes


def footprint(model: nn.Module) -> Footprint:
    """Counted from the tensors themselves."""
    layers = [module for module in model.modules() if isinstance(module, Packed)]
    mine = dict(_storages(buffer for layer in layers for buffer in layer.buffers(recurse=False)))
    every = dict(_storages(iter([*model.parameters(), *model.buffers()])))
    packed = sum(mine.values())
    return Footprint(sum(layer.out_features * layer.in_features for layer in layers), packed, sum(every.values()) - packed)


def _storages(tensors: Iterator[Tensor]) -> Iterator[tuple[tuple[torch.device, int], int]]:
    for tensor in tensors:
        if tensor.numel():
            yield (tensor.device, tensor.data_ptr()), tensor.numel() * tensor.element_size()


def stored_by_path(stored: Mapping[str, Stored], model: nn.Module) -> dict[str, Stored]:
    """Stored tensors under the model's own names: old files leave out the prefix of the language part."""
    known = frozenset(name for name, _ in model.named_parameters())
    return {own_name(name, model, known): place for name, place in stored.items()}


def reconcile(asked: Scheme | None, config: Mapping[str, Any], stored: Mapping[str, Stored], *, name: str) -> Scheme | None:
    """The scheme that a model's files have themselves, or None for plain ones.

    Raises M089 where something else is asked for, or where config.json and the files disagree; M088 without bitsandbytes.
    """
    own = scheme_of(config)
    if bool(own) != bool(packed_weights(stored)):
        what = contradiction(name, config, stored)
        raise HoneError("M089", what, where=f"{name}: quantization_config", fix="use the config.json that came with the weights")
    if own is not None and asked is not None and asked.kind != own.kind:
        what = f"model.quantise={asked.kind} contradicts the model's own quantization_config, which says {own}"
        fix = f"leave model.quantise out (it is {own.kind} already), or name the 16-bit model that it was made from"
        raise HoneError("M089", what, where=f"model.quantise, {name}: quantization_config", fix=fix)
    if own is not None:
        check_available("a model in bitsandbytes' format", accelerate=True)
    elif asked is not None:
        check_available(f"model.quantise={asked.kind}")
    return own


def as_stored(dtype: str | None) -> torch.dtype:
    """The type in which a model's files are read before it is quantised: their own, so that they are mapped and not copied."""
    return DTYPES.get(dtype or "", torch.float32)


def remembered(scheme: Scheme) -> dict[str, str]:
    """What an adapter remembers of how its base was quantised for it."""
    return {"quantised": scheme.kind, "double": "yes" if scheme.double else "no"}


def in_words(model: nn.Module, scheme: Scheme | None) -> str:
    """What a quantised model takes, as measured."""
    found = footprint(model)
    plain = next(model.parameters()).dtype.itemsize
    return (
        f"linear layers in {scheme}: {found.bits:.3f} bits a weight, {size(found.packed_bytes)} instead of {size(plain * found.packed)}; "
        f"head, embeddings and norms as they were, {size(found.plain_bytes)}"
    )


def read_packed(stored: Mapping[str, Stored], path: str) -> FourBit | EightBit:
    """One quantised weight out of a model's files."""
    if f"{path}.SCB" in stored:
        return EightBit(read_stored(stored[f"{path}.weight"]), read_stored(stored[f"{path}.SCB"]), None, torch.float32)
    from bitsandbytes import functional as bnb

    mark = f"{path}.weight."
    parts = {name.removeprefix(mark): read_stored(place) for name, place in stored.items() if name.startswith(mark)}
    codes = read_stored(stored[f"{path}.weight"]).view(torch.uint8).reshape(-1, 1)
    return FourBit(codes, bnb.QuantState.from_dict(parts, device=torch.device("cpu")), None, torch.float32)
