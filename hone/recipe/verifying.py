"""`hone verify`: a copy of the model, of whatever kind, made ready for the questions of its certificate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hone.core.disk import size
from hone.core.errors import HoneError
from hone.export.base import Checked
from hone.export.gguf import llama_cpp
from hone.export.gguf.header import read_header
from hone.export.gguf.session import Session
from hone.export.gguf.subject import gguf_subject, run_by_llama_cpp
from hone.export.packed import base_weights
from hone.export.proof.diagnose import Cause, Finding, Verdict, verify
from hone.export.proof.endpoint import Server, verify_endpoint
from hone.export.proof.golden import Golden
from hone.export.proof.record import logprobs, vocabulary_hash
from hone.export.proof.subject import Subject
from hone.export.proof.words import encode_with, render_with
from hone.export.tensors import Weights
from hone.models.load import load
from hone.models.policy import using_attention
from hone.models.quantise import available
from hone.plan.hardware import memory
from hone.plan.packed import scheme_of
from hone.plan.shapes import model_facts, quantisation, read_json
from hone.recipe import certificate
from hone.recipe.exporting import EXACT, Parts, find_parts, weights_of
from hone.recipe.opening import open_model
from hone.tuning.folder import CONFIG

MEANS = {
    "M001": Cause.TOKENIZER,
    "M003": Cause.WRONG_BASE,
    "M004": Cause.LOST,
    "M005": Cause.CORRUPTED,
    "M015": Cause.TOKENIZER,
    "M082": Cause.TOKENIZER,
    "M083": Cause.CORRUPTED,
    "T003": Cause.WRONG_TEMPLATE,
}
"""Faults that loading finds by itself, and the causes that they are."""

BYTES_EACH = 8
"""Of memory for a parameter while a copy is verified: it is read into fp32, beside what it is read from."""

Read = Callable[[Sequence[int], Sequence[int]], Tensor]


def verify_copy(path: str | Path, golden: Golden) -> Verdict:
    """Replay a certificate on a folder or a GGUF file. What cannot even be loaded is a finding too."""
    try:
        file = gguf_file(Path(path))
        subject = subject_of(Path(path), golden)
        if file is None or not llama_cpp.installed():
            return verify(golden, subject)
        with Session(file, context=longest(golden), exact=True) as session:
            return verify(golden, run_by_llama_cpp(subject, file, session))
    except HoneError as error:
        if error.code not in MEANS:
            raise
        return Verdict(str(path), [Finding(MEANS[error.code], error.what)])


def checked_copy(path: Path, golden: Golden) -> Checked:
    """The verdict on something that is being exported, or why nothing here can read it."""
    return reason_not_to_verify(path) or verify_copy(path, golden)


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that is meant by a path: itself, or the one in a folder that holds no other model."""
    if path.suffix == ".gguf":
        return path
    return None if (path / "config.json").is_file() else next(iter(sorted(path.glob("*.gguf"))), None)


def longest(golden: Golden) -> int:
    """Positions that the longest probe takes with its answer."""
    return max((len(vector.tokens) for vector in golden.vectors), default=0) + 1


def subject_of(path: Path, golden: Golden) -> Subject:
    """A whole model's folder, an adapter's folder, a run, or a GGUF file or its folder."""
    if (path / "adapter").is_dir():
        return _adapter(path / "adapter", golden)
    if (path / CONFIG).is_file():
        return _adapter(path, golden)
    file = gguf_file(path)
    if file is not None:
        return gguf_subject(file, golden)
    return _whole(path / "model" if (path / "model").is_dir() else path, golden)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What both kinds of folder come to."""

    weights: Weights
    tokenizer: Any
    model: nn.Module
    stock: str
    stops: frozenset[int]
    fingerprint: str = ""
    kind: str = ""
    """Of quantised files."""

    def subject(self, kind: str, golden: Golden) -> Subject:
        tokenizer, source = self.tokenizer, self.tokenizer.chat_template
        return Subject(
            kind=kind,
            stored=self.kind or _most_common_type(self.weights),
            logprobs=_reader(self.model, self.stock),
            encode=encode_with(tokenizer),
            render=render_with(source, tokenizer.special_tokens_map, golden),
            bos=tokenizer.bos_token_id,
            stop_ids=self.stops,
            vocabulary_hash=vocabulary_hash(tokenizer.get_vocab()),
            vocabulary=len(tokenizer),
            weights=self.weights,
            embedding=next((name for name in self.weights.names() if name.endswith(("embed_tokens.weight", "wte.weight"))), ""),
            base_fingerprint=self.fingerprint,
        )


def _whole(folder: Path, golden: Golden) -> Subject:
    loaded = load(folder, dtype="float32", device="cpu")
    stock = str(loaded.model.config._attn_implementation)
    stops = _stops(folder, loaded.model.config.eos_token_id, loaded.tokenizer.eos_token_id)
    kind = loaded.scheme.kind if loaded.scheme is not None else ""
    found = _Loaded(base_weights(folder, None), loaded.tokenizer, loaded.model, stock, stops, kind=kind)
    return found.subject("a whole model", golden)


def _adapter(folder: Path, golden: Golden) -> Subject:
    parts = find_parts(str(folder))
    opened = open_model(folder, hardware=EXACT)
    stops = _stops(folder, None, None) or frozenset(opened.template.stop_ids)
    weights, folds = _folded(parts)
    policy = opened.policy
    found = _Loaded(weights, opened.tokenizer, policy.model, policy.stock, stops, parts.base["fingerprint"])
    return replace(found.subject(f"an adapter on {parts.base['name']}", golden), examined=folds)


def _folded(parts: Parts) -> tuple[Weights, bool]:
    """The weights with the adapter folded in; for a method that cannot be folded the base's, and that they say nothing."""
    try:
        return weights_of(parts), True
    except HoneError as error:
        if error.code != "M040":
            raise
        return base_weights(parts.model, parts.scheme), False


def _stops(folder: Path, *others: Any) -> frozenset[int]:
    """Where generation ends: the first of generation_config.json, config.json and the tokenizer that says anything."""
    file = folder / "generation_config.json"
    said = [read_json(file).get("eos_token_id") if file.is_file() else None, *others]
    chosen = next((end for end in said if end is not None), None)
    return frozenset(chosen if isinstance(chosen, list) else [chosen] if chosen is not None else [])


def _reader(model: nn.Module, stock: str) -> Read:
    def read(tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        with using_attention(model, stock):
            return logprobs(model, tokens, places)

    return read


def _most_common_type(weights: Weights) -> str:
    matrices = Counter(str(weights.dtype(name)).removeprefix("torch.") for name in weights.names() if len(weights.shape(name)) > 1)
    return matrices.most_common(1)[0][0]


def certificate_of(artifact: Path | None, given: Path | None) -> Golden:
    """The certificate that was named, or the artifact's own, or that of the run it lies in. Raises F041 where there is none."""
    if given is not None:
        return Golden.load(given)
    if artifact is None:
        fix = "name the run, or an artifact of it: hone verify URL --golden RUN"
        raise HoneError("F041", "a server does not say which certificate is its model's", where="--golden", fix=fix)
    if not artifact.exists():
        raise HoneError("F043", f"there is nothing called '{artifact}'", where="hone verify", fix="give a folder, a .gguf file or a URL")
    place = artifact.parent if artifact.is_file() else artifact
    return Golden.load(certificate.beside(place) or place)


def reason_not_to_verify(artifact: Path) -> str:
    """Why nothing here can read an artifact, or an empty text."""
    config = artifact / "config.json"
    method = quantisation(read_json(config)) if config.is_file() else None
    if method is not None and not (available() and scheme_of(read_json(config)) is not None):
        return f"weights in {method} are read by the engine that will run them"
    needed, free = BYTES_EACH * _parameters(artifact), memory()[1]
    if free is not None and needed > free:
        return f"it takes {size(needed)} of memory and {size(free)} are free"
    return ""


def _parameters(artifact: Path) -> int:
    if (artifact / "config.json").is_file():
        return model_facts(artifact).parameters
    if (artifact / CONFIG).is_file():
        return model_facts(find_parts(str(artifact)).model).parameters
    file = next(iter(artifact.glob("*.gguf")), None)
    return sum(math.prod(place.shape) for place in read_header(file).tensors.values()) if file is not None else 0


def verify_server(url: str, golden: Golden, *, model: str | None = None) -> Verdict:
    """Replay a certificate on an OpenAI-compatible server. Raises F046 where it cannot be asked."""
    return verify_endpoint(golden, Server(url, model))
