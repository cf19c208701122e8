"""Several adapters for one model: kept side by side and switched, or LoRAs added up into one.

Shape legend: I input features, O output features, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.tuning import peft_io
from hone.tuning.base import Ours, Prologue, Tuning, replace
from hone.tuning.folder import check_base
from hone.tuning.lowrank import Pair
from hone.tuning.opening import open_adapter


class Shelf:
    """Named adapters of one model, of any methods of ours. One is on at a time, or none; switching copies nothing."""

    def __init__(self, model: nn.Module, *, base: Mapping[str, str]) -> None:
        self.model, self.base = model, base
        self.tunings: dict[str, Tuning] = {}
        self.current: str | None = None
        self._parts: dict[str, dict[str, nn.Module]] = {}

    def add(self, name: str, source: Path | Tuning, *, seed: int = 0) -> None:
        """Attach an adapter's folder, or a fresh method, under a name, and put it on."""
        assert name not in self.tunings, f"there is an adapter '{name}' already"
        self.use(None)
        tuning = source if isinstance(source, Tuning) else open_adapter(source).tuning
        tuning.attach(self.model, seed=seed)
        if not isinstance(source, Tuning):
            tuning.load(self.model, source, base=self.base)
        self.tunings[name], self.current = tuning, name

    def use(self, name: str | None) -> None:
        """Put on one adapter instead of the present one; None shows the base. Raises C003 for an unknown name."""
        if name is not None and name not in self.tunings:
            raise HoneError("C003", f"no adapter is called '{name}'", fix=nearest(name, self.tunings))
        if name == self.current:
            return
        if self.current is not None:
            self._parts[self.current] = _outermost(self.model)
            self.tunings[self.current].detach(self.model)
        for path, part in self._parts.get(name, {}).items() if name is not None else ():
            _put(self.model, path, part)
        self.current = name


def _outermost(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module of ours that lies in no other of ours."""
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        if isinstance(module, Ours) and not any(path.startswith(f"{outer}.") for outer in found):
            found[path] = module
    return found


def _put(model: nn.Module, path: str, part: nn.Module) -> None:
    if isinstance(part, Prologue):
        model.add_module(path, part)
    for _ in replace(model, lambda name, _: name == path, lambda _, __: part):
        pass


def add_up(sources: Mapping[Path, float], folder: Path, *, rank: int | None = None) -> None:
    """Write the LoRA whose change is the weighted sum of others' changes, all of one base.

    Without `rank` it is exact: the ranks add up. With it, each layer's sum is the best one of that rank (by singular
    values). Raises M003 where the bases differ, M044 for adapters that are more than low-rank matrices.
    """
    stored = {path: peft_io.load_adapter(path) for path in sources}
    first = next(iter(stored.values()))
    changes: dict[str, list[Pair]] = {}
    for path, adapter in stored.items():
        check_base(adapter.base, first.base, where=str(path))
        if adapter.extra or adapter.config.dora or adapter.config.init != "default":
            what = "only plain LoRAs can be added up: magnitudes, whole modules and changed starts are no sums"
            raise HoneError("M044", what, where=str(path), fix="merge one of them into the base first")
        for name, (a_RI, b_OR) in adapter.tensors.items():
            changes.setdefault(name, []).append((a_RI, sources[path] * adapter.config.scale(name) * b_OR))
    sums = {name: (torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs], 1)) for name, pairs in changes.items()}
    if rank is not None:
        sums = {name: best_of_rank(pair, rank) for name, pair in sums.items()}
    ranks = {name: len(a_RI) for name, (a_RI, _) in sums.items()}
    most = max(ranks.values())
    others = {name: each for name, each in ranks.items() if each != most}
    options = {"r": most, "lora_alpha": most, "rank_pattern": others, "alpha_pattern": dict(others)}
    peft_io.save_adapter(folder, sums, options, base=first.base)


def best_of_rank(pair: Pair, rank: int) -> Pair:
    """The nearest product of a smaller rank; only the thin factors are decomposed, never their product."""
    a_RI, b_OR = pair
    q_a, r_a = torch.linalg.qr(a_RI.t())
    q_b, r_b = torch.linalg.qr(b_OR)
    u, s, v = torch.linalg.svd(r_b @ r_a.t(), full_matrices=False)
    root: Tensor = s[:rank].sqrt()
    return root[:, None] * (v[:rank] @ q_a.t()), (q_b @ u[:, :rank]) * root
