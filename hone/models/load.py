"""A model, its tokenizer and its fingerprint from a folder or the hub, checked so that nothing is random, broken or unsafe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hone.core.errors import HoneError
from hone.models import safety, tokens, weights
from hone.models.dtype import choose_device, choose_dtype
from hone.models.fingerprint import fingerprint
from hone.models.hub import fetch_small, fetch_weights
from hone.models.kinds import check_kind
from hone.models.locate import local_folder
from hone.models.quantise import adopt, as_stored, in_words, quantise, reconcile, remembered, stored_by_path
from hone.plan.headers import Stored, stored_tensors
from hone.plan.packed import Scheme, contradiction
from hone.plan.shapes import facts_of, read_json
from hone.tuning.shapes import Shapes


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to be tuned, in evaluation mode. `notes` are sentences that the person should see."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    notes: tuple[str, ...]
    name: str
    revision: str | None
    scheme: Scheme | None = None
    """How the linear layers are quantised; of `files` if they came so."""
    files: bool = False

    @property
    def base(self) -> dict[str, str]:
        """What an adapter remembers of the model that it was trained on, and of how that was quantised for it."""
        known = {"name": self.name, "fingerprint": self.fingerprint} | ({"revision": self.revision} if self.revision else {})
        return known if self.scheme is None or self.files else known | remembered(self.scheme)


def load(
    name: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
    scheme: Scheme | None = None,
) -> Loaded:
    """Load any transformers causal language model, quantised by `scheme` or as its files are.

    `name` is a folder or a hub id; `dtype` "auto", "float32", "bfloat16" or "float16"; `device` "auto", "cpu", "cuda" ...
    Raises HoneError M001, M005 to M009, M013 to M018, M020, M088 or M089: everything that can be known is checked before the
    weights are read.
    """
    place = choose_device(device)
    folder, commit = fetch(str(name), revision=revision, trust_remote_code=trust_remote_code)
    said = read_json(folder / "config.json")
    facts, stored = facts_of(said, where=str(folder / "config.json")), stored_tensors(folder)
    own = reconcile(scheme, said, stored, name=str(name))
    if own or scheme:
        facts = replace(facts, parameters=facts.parameters // 3)  # what it takes beside a plain model of this size
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    with quiet():
        config = _config(folder, options)
        tokenizer = tokens.load_tokenizer(folder, trust_remote_code=trust_remote_code)
        tokens.check_vocabulary(tokenizer, facts.vocab, where=str(name))
        chosen, reason = choose_dtype(dtype, place, facts)
        made = {"device_map": {"": place}} if own else {}
        model, report = _build(folder, config, as_stored(facts.dtype) if scheme and not own else chosen, {**options, **made})
    weights.check(model, report, stored, where=str(folder))
    packed = _pack(model, scheme, own=own, place=place, dtype=chosen, stored=stored)
    notes = [f"weights in {str(chosen).removeprefix('torch.')} on {place}: {reason}", *packed]
    notes += [found] if (found := contradiction(str(name), said)) else []
    notes += tokens.special_token_notes(tokenizer, folder)
    return Loaded(model, tokenizer, fingerprint(folder, facts), tuple(notes), str(name), commit, own or scheme, own is not None)


def _pack(
    model: PreTrainedModel,
    scheme: Scheme | None,
    *,
    own: Scheme | None,
    place: torch.device,
    dtype: torch.dtype,
    stored: Mapping[str, Stored],
) -> list[str]:
    """Quantise what is to be, or take over what is; on the device in the end. Returns what there is to say of it."""
    if own is not None:
        adopt(model, dtype)
    elif scheme is not None:
        quantise(model, scheme, place=place, dtype=dtype, stored=stored_by_path(stored, model))
    else:
        model.to(place)  # type: ignore[arg-type]
        return []
    return [in_words(model, own or scheme)]


def shapes_of(name: str) -> Shapes:
    """Sizes of a model's parts from its configuration; on the hub, no weight is downloaded. Raises the M codes of `load`."""
    folder = local_folder(name)
    if folder is None:
        folder, _ = fetch_small(name, revision=None, trust_remote_code=False)
    safety.check_folder(folder, trust_remote_code=False)
    check_kind(read_json(folder / "config.json"), trust_remote_code=False, where=name)
    with quiet():
        return Shapes.from_config(_config(folder, {"local_files_only": True}))


def fetch(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> tuple[Path, str | None]:
    """(folder, commit) of a checked model; on the hub, the weights are downloaded only after the rest was found in order."""
    folder, listing = local_folder(name, revision), None
    if folder is None:
        folder, listing = fetch_small(name, revision=revision, trust_remote_code=trust_remote_code)
    safety.check_folder(folder, trust_remote_code=trust_remote_code)
    check_kind(read_json(folder / "config.json"), trust_remote_code=trust_remote_code, where=name)
    if listing is not None:
        return fetch_weights(folder, listing), listing.commit
    safety.check_weights((file.name for file in folder.iterdir() if file.exists()), where=str(folder))
    return folder, folder.name if folder.parent.name == "snapshots" else None


def _config(folder: Path, options: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration as transformers understands it, with the attention that is the default here."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, **options)
    except Exception as error:  # transformers' own checks raise half a dozen unrelated types
        raise _unbuildable(error, folder) from None
    config._attn_implementation = None  # a copy's config may name an attention that is not installed here
    return config


def _build(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype, options: Mapping[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Read the weights straight into their type. Returns the model and transformers' report on the reading."""
    loader: Any = AutoModelForCausalLM
    choices = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    try:
        model, report = loader.from_pretrained(folder, config=config, dtype=dtype, **choices, **options)
    except ImportError as error:
        line = str(error).strip().partition("\n")[0]
        raise HoneError("M014", f"this architecture needs another package: {line}", where=str(folder), fix="install it with pip") from None
    except SafetensorError as error:
        fix = "copy or download the files again"
        raise HoneError("M005", f"the weights cannot be read ({error})", where=str(folder), fix=fix) from None
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, AssertionError) as error:
        raise _unbuildable(error, folder) from None
    assert isinstance(model, PreTrainedModel)
    return model, report


def _unbuildable(error: Exception, folder: Path) -> HoneError:
    line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    fix = "use the config.json that came with the model, and a transformers at least as new as the one that saved it"
    return HoneError("M013", f"config.json describes no model that can be built ({line})", where=str(folder), fix=fix)


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no reports: our errors say what transformers' loading report would; its verbosity is restored afterwards."""
    logs: Any = logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logs.CRITICAL)
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()
