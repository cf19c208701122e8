"""Opens whatever can be asked: a run, an adapter, a model folder or a hub id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.data.chat import ChatTemplate
from hone.models.hub import fetch_adapter
from hone.models.load import Loaded
from hone.models.locate import local_folder
from hone.models.policy import Policy
from hone.models.safety import check_folder
from hone.models.settings import HardwareSettings, ModelSettings
from hone.models.share import part, sharing
from hone.models.tokens import load_tokenizer
from hone.recipe.build import Opened, load_base, tuned
from hone.recipe.quantised import quantised_as
from hone.recipe.settings import resolve
from hone.recipe.written import resolved_of, settings_in
from hone.tuning import Tuning
from hone.tuning.base import Untouched
from hone.tuning.folder import CONFIG, check_base
from hone.tuning.opening import open_adapter

Load = Callable[[ModelSettings, HardwareSettings], Loaded]


class Bases:
    """Loads base models, each once, for all that is opened on them."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[ModelSettings, HardwareSettings], Loaded] = {}
        self._versions: dict[str, list[int]] = {}

    def __call__(self, model: ModelSettings, hardware: HardwareSettings) -> Loaded:
        """A tree of modules of one's own over the weights that all share."""
        if (model, hardware) not in self._loaded:
            loaded = self._loaded[model, hardware] = load_base(model, hardware)
            self._versions[loaded.name] = _versions(loaded)
        loaded = self._loaded[model, hardware]
        return replace(loaded, model=sharing(loaded.model))

    def check(self, name: str) -> None:
        """Raise S043 if what was opened last, under this name, has written into the weights that others read."""
        if any(self._versions[loaded.name] != _versions(loaded) for loaded in self._loaded.values()):
            what = "this run's method changes the base's own weights, which the other models here share"
            raise HoneError("S043", what, where=name, fix="serve it from a server of its own, or export it merged and serve that")


def _versions(loaded: Loaded) -> list[int]:
    """How often each weight has been written to."""
    return [parameter._version for parameter in loaded.model.parameters()]


def open_model(name: str | Path, *, hardware: HardwareSettings | None = None, load: Load = load_base) -> Opened:
    """A run folder, an adapter folder, a model folder or a hub id, ready to be asked.

    With one `Bases` as `load`, several that have a base in common hold it in memory once. Raises F007 for a run that has not
    finished anything yet, F062 for one whose settings are damaged, and the M codes of `hone.models.load`.
    """
    folder = place_of(name)
    if (folder / "resolved.json").is_file():
        return _open_run(folder, hardware, load)
    if (folder / CONFIG).is_file():
        return _open_adapter(folder, hardware or HardwareSettings(), load)
    return _open_base(ModelSettings(name=str(name)), hardware or HardwareSettings(), load)


def place_of(name: str | Path) -> Path:
    """The folder that a name means, the copy of an adapter on the hub included; the hub id of a whole model stays what it is.

    Raises M007 and M009 to M017 as `hone.models.load` does.
    """
    if Path(name).exists() or local_folder(str(name)) is not None:
        return Path(name)
    folder = fetch_adapter(str(name))
    if folder is None:
        return Path(name)
    check_folder(folder, trust_remote_code=False)
    return folder


def _open_run(folder: Path, hardware: HardwareSettings | None, load: Load) -> Opened:
    resolved, recipe = resolved_of(folder), resolve(settings_in(folder))
    machine = hardware or recipe.hardware
    if (folder / "model").is_dir():
        opened = _open_base(ModelSettings(name=str(folder / "model")), machine, load, template=recipe.data.template)
        opened.policy.load_heads(folder / "model")
    elif (folder / "adapter").is_dir():
        opened = _adapted(load(recipe.model, machine), recipe.tuning, folder / "adapter", recipe.data.template)
    else:
        raise HoneError(
            "F007", "this run has not written a model yet", where=str(folder), fix="finish it: run the same `hone train` command again"
        )
    opened.resolved, opened.folder = resolved, folder
    return opened


def _open_adapter(folder: Path, hardware: HardwareSettings, load: Load) -> Opened:
    tuning, base = open_adapter(folder)
    if not base.get("name"):
        raise HoneError(
            "M003",
            "this adapter does not say which base it belongs to",
            where=str(folder),
            fix="set base_model_name_or_path in adapter_config.json",
        )
    model = ModelSettings(name=base["name"], **quantised_as(base))
    loaded = load(model, hardware)
    check_base(base, loaded.base, where=str(folder))
    opened = _adapted(loaded, tuning, folder, "auto")
    opened.resolved = _plain(model)
    if (folder / "tokenizer_config.json").is_file():  # with the template of the training, which the base need not have
        opened.tokenizer = load_tokenizer(folder)
        opened.template = ChatTemplate.of(opened.tokenizer)
    return opened


def _open_base(model: ModelSettings, hardware: HardwareSettings, load: Load, *, template: str = "auto") -> Opened:
    loaded = load(model, hardware)
    tuning = Untouched()
    tuning.attach(loaded.model, seed=0)
    policy = Policy.of(loaded.model, tuning)
    return Opened(policy, loaded.tokenizer, ChatTemplate.of(loaded.tokenizer, template), _plain(model))


def _adapted(loaded: Loaded, tuning: Tuning, folder: Path, template: str) -> Opened:
    shared = [*loaded.model.parameters()]
    policy = tuned(loaded, tuning, seed=0)
    part(policy.model, shared)
    policy.load(folder, base=loaded.base)
    return Opened(policy, loaded.tokenizer, ChatTemplate.of(loaded.tokenizer, template), {})


def _plain(model: ModelSettings) -> dict[str, Any]:
    bits = {"quantise": model.quantise, "double_quant": model.double_quant} if model.scheme is not None else {}
    return {"model": {"name": model.name, **bits}}
