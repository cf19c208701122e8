"""What is written is what was trained: the artifact comes back, others read it as it was meant, and a resumed run is the same run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hone.core.types import Sequence
from hone.core.world import World
from hone.models.policy import Policy
from hone.prove import plain
from hone.prove.base import Found, Mute, proof, worst
from hone.prove.plain import EVERYTHING
from hone.prove.subject import Subject
from hone.tuning.folder import CONFIG, PREFIX, WEIGHTS
from hone.tuning.lowrank import weight_of


@proof("V014", bound=1e-5, unit="nats")
def artifact(s: Subject) -> Found:
    """Saved, and opened by one who has only the folder and the base, the model says what it said."""
    policy = plain.moved(s)
    with tempfile.TemporaryDirectory() as place:
        s.save(policy, Path(place))
        opened = s.open(Path(place))
    opened.model.eval()
    said = {signal: (_signals(s, policy, signal), _signals(s, opened, signal)) for signal in _told(s)}
    return worst({signal: (one - other).abs().max().item() for signal, (one, other) in said.items()})


def _told(s: Subject) -> list[str]:
    """Signals that the weights alone decide."""
    return ["logp", *(name for name in ("value", "score", "step_score") if name in s.objective.needs)]


@torch.no_grad()
def _signals(s: Subject, policy: Policy, signal: str) -> Tensor:
    needs = {signal: dict(s.objective.needs.get(signal, {}))}
    batches = [batch for batch in s.batches(s.groups, EVERYTHING, True) if not batch.aside]
    return torch.cat([getattr(policy.signals(batch, needs), signal).flatten() for batch in batches])


@proof("V015", bound=1e-4, unit="nats")
def outsiders(s: Subject) -> Found | Mute:
    """A reader who knows nothing of hone, only the published format, gets the same model from the artifact."""
    if plain.rounds_the_base(s.tuning):
        return Mute("it belongs to a base that was rounded to 4 bits")
    policy = plain.moved(s)
    with tempfile.TemporaryDirectory() as place:
        s.save(policy, Path(place))
        model = _read_by_others(s, Path(place))
    if model is None:
        return Mute("nobody else reads this kind of artifact")
    model.eval()
    sequences = [one for group in s.groups for one in group if one.learned]
    return worst({str(one.origin): _gap(policy, model, one) for one in sequences})


@torch.no_grad()
def _gap(policy: Policy, model: nn.Module, one: Sequence) -> float:
    at = plain.learned(one)
    hidden_LD = plain.alone(policy, one)
    said = plain.picked(policy.head().logits(hidden_LD[[j - 1 for j in at]]), [one.tokens[j] for j in at])
    return (said - plain.base_logp(model, one)).abs().max().item()


def _read_by_others(s: Subject, folder: Path) -> nn.Module | None:
    """A plain model of transformers: the whole one in the folder, or the base with a LoRA adapter folded in as PEFT's format says."""
    if (folder / "config.json").is_file():
        kind: Any = type(s.base())
        model: nn.Module = kind.from_pretrained(folder, torch_dtype="float32", local_files_only=True)
        return model
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        return None
    return _folded(s.base(), config, load_file(folder / WEIGHTS))


@torch.no_grad()
def _folded(model: nn.Module, config: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    """W + alpha / r B A for every pair, and every other tensor in the place of the base's."""
    plain_tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    for name, a in plain_tensors.items():
        if ".lora_embedding_A" in name:
            path = name.partition(".lora_")[0]
            _add(_own(model, path), (_scale(config, path, len(a)) * plain_tensors[name.replace("_A", "_B")] @ a).t())
        elif name.endswith(".lora_A.weight"):
            path = name.removesuffix(".lora_A.weight")
            layer = _own(model, path)
            weight_of(layer).add_(_scale(config, path, len(a)) * plain_tensors[f"{path}.lora_B.weight"] @ a)
        elif ".lora_" not in name:
            path, _, leaf = name.rpartition(".")
            setattr(_own(model, path), leaf, nn.Parameter(plain_tensors[name].clone()))
    return model


def _own(model: nn.Module, path: str) -> nn.Module:
    return model.get_submodule(path)


def _add(table: nn.Module, change: Tensor) -> None:
    """An embedding's own matrix with a change: a head that shared it keeps the old one."""
    weight = table.weight
    assert isinstance(weight, Tensor)
    table.weight = nn.Parameter(weight + change)


def _scale(config: dict[str, Any], path: str, rank: int) -> float:
    alpha = config.get("alpha_pattern", {}).get(path, config["lora_alpha"])
    named = config.get("rank_pattern", {}).get(path, config["r"])
    assert named == rank, f"{path} has rank {rank}, and the file says {named}"
    return float(alpha / (named**0.5 if config.get("use_rslora") else named))


@proof("V016", bound=0, unit="tensors that differ")
def resume(s: Subject) -> Found:
    """Stopped in the middle and taken up from a checkpoint, a run ends with the same bits as one that was never stopped."""
    half = s.total // 2
    whole, first, second = (s.engine(s.policy(), World()) for _ in range(3))
    first.load({name: tensor.clone() for name, tensor in whole.save().items()})  # a start that is decomposed may differ in its last bits
    s.train(whole, 0, s.total)
    s.train(first, 0, half)
    with tempfile.TemporaryDirectory() as place:
        s.checkpoint(first, half, Path(place))
        torch.manual_seed(99)  # another process has other random numbers
        done = s.resume(second, Path(place))
    s.train(second, done, s.total)
    one, other = whole.save(), second.save()
    shared = one.keys() & other.keys()
    wrong = sorted(one.keys() ^ other.keys()) + sorted(name for name in shared if not torch.equal(one[name], other[name]))
    return Found(len(wrong), wrong[0] if wrong else "")
