"""Everything of peft that has no file here, through peft itself, with peft's own settings. The only file that imports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.tuning import folder as adapter_folder
from hone.tuning.base import METHODS, About, Tuning
from hone.tuning.packed import packed_layers
from hone.tuning.shapes import Shapes

PROMPTS = {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE", "ADAPTION_PROMPT"}
"""Methods of peft that wrap the whole model instead of its layers."""


@METHODS.add("peft")
@settings
class Peft(Tuning):
    """Any layer method of peft by its name (loha, lokr, boft, hira, vera ...), with peft's own settings as options."""

    about = About(when="a method that only peft has, or an adapter that was made with one")

    kind: str = "loha"
    """peft's name of the method."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of peft's configuration class, under peft's names; target_modules is usually needed."""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        peft = _peft()
        if packed_layers(model):
            what = f"peft's '{self.kind}' changes plain weights, and this base is quantised"
            raise HoneError("M099", what, where="tuning.method", fix="train with tuning.method=lora, or set model.quantise=none")
        model.requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            try:
                peft.inject_adapter_in_model(self.config(), model)
            except (ValueError, TypeError) as error:
                what = f"peft cannot put '{self.kind}' into this model: {' '.join(str(error).split())[:300]}"
                raise HoneError("M043", what, where="tuning.options", fix="see peft's documentation of the method") from None
        for parameter in (p for p in model.parameters() if p.requires_grad and p.dtype in (torch.float16, torch.bfloat16)):
            parameter.data = parameter.data.float()

    def config(self) -> Any:
        """peft's configuration object. Raises M043 for a method or a setting that peft does not have."""
        kinds = _configs()
        kind = self.kind.upper()
        if kind not in kinds or kind in PROMPTS:
            known = [name.lower() for name in kinds if name not in PROMPTS]
            raise HoneError("M043", f"peft has no layer method '{self.kind}'", where="tuning.kind", fix=nearest(self.kind.lower(), known))
        try:
            return kinds[kind](**{"task_type": "CAUSAL_LM", **self.options})
        except (TypeError, ValueError) as error:
            what = f"peft refuses these options of '{self.kind}': {error}"
            raise HoneError("M043", what, where="tuning.options", fix="use the names of peft's documentation") from None

    def count(self, shapes: Shapes) -> int:
        """By peft itself, on a skeleton of the linear layers that takes no memory."""
        with torch.device("meta"):
            skeleton = nn.Module()
            for path, (outputs, inputs) in shapes.linears.items():
                _place(skeleton, path, nn.Linear(inputs, outputs, bias=path in shapes.biases))
            self.attach(skeleton, seed=0)
        return sum(p.numel() for p in skeleton.parameters() if p.requires_grad)

    @contextmanager
    def disabled(self, model: nn.Module) -> Iterator[None]:
        layers = list(_layers(model).values())
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def detach(self, model: nn.Module) -> None:
        for path, layer in _layers(model).items():
            model.set_submodule(path, layer.get_base_layer())
        del model.peft_config

    @torch.no_grad()
    def merge(self, model: nn.Module) -> None:
        self.check_merge(model)
        for layer in _layers(model).values():
            layer.merge()
        self.detach(model)

    def check_merge(self, model: nn.Module) -> None:
        for layer in _layers(model).values():
            if not callable(vars(type(layer)).get("merge")):
                what = f"peft's '{self.kind}' cannot be folded into plain weights"
                raise HoneError("M040", what, where="tuning.kind", fix="serve the adapter with hone or peft")

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        tensors = _peft().get_peft_model_state_dict(model)
        config = self.config().to_dict() | {"inference_mode": True}
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        plain["peft_type"], plain["task_type"] = self.kind.upper(), "CAUSAL_LM"
        for key in ("base_model_name_or_path", "revision"):
            plain.pop(key, None)
        adapter_folder.write(folder, tensors, plain, base=base)

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        stored = adapter_folder.read(folder, base=base)
        places = _peft().get_peft_model_state_dict(model)
        adapter_folder.copy_into(places, stored, where=str(folder))

    @classmethod
    def from_peft(cls, folder: Path) -> Tuning:
        raw = adapter_folder.read_config(folder)
        unset = {"peft_type", "task_type", "base_model_name_or_path", "revision", "peft_version", "auto_mapping", "inference_mode"}
        return cls(kind=str(raw["peft_type"]).lower(), options={key: value for key, value in raw.items() if key not in unset})


def known_to_peft(kind: object) -> bool:
    """Whether the installed peft has a layer method of this type."""
    return isinstance(kind, str) and kind not in PROMPTS and kind in _configs()


def _configs() -> dict[str, Any]:
    """peft's name of each method -> its configuration class."""
    _peft()
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {str(kind.value): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise HoneError("M043", "this method needs the package peft", where="tuning.method", fix="pip install peft") from None
    return peft


def _layers(model: nn.Module) -> dict[str, Any]:
    """Path -> layer of peft's, outermost only."""
    _peft()
    from peft.tuners.tuners_utils import BaseTunerLayer

    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and not any(path.startswith(f"{outer}.") for outer in found):
            found[path] = module
    return found


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a path, with empty modules on the way."""
    *parents, leaf = path.split(".")
    for name in parents:
        if name not in dict(root.named_children()):
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(leaf, module)
