"""May a run be taken up with changed settings? What cannot change the steps may differ, all else is refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from hone.core.errors import HoneError

Rule = Literal["free", "longer", "inexact", "data", "consent", "never"]
"""free: changes no step. longer: may only grow. inexact: same run, other rounding. data: with the data. consent: as was
asked for. never: refused."""

RULES: tuple[tuple[str, Rule], ...] = (
    ("optim.epochs", "longer"),
    ("optim.max_steps", "longer"),
    ("optim.skip_limit", "free"),
    ("eval.*", "free"),
    ("output.*", "free"),
    ("hardware.dtype", "never"),
    ("hardware.*", "inexact"),
    ("data.train*", "data"),
    ("data.held_out", "data"),
    ("data.skip_bad", "data"),
    ("*", "never"),
)
"""The first pattern that fits a dotted setting decides."""

_NOTES = {
    "longer": "the learning rate follows the longer schedule from here on",
    "inexact": "the same steps, but no longer equal to the last bit",
    "data": "the data decides, by its fingerprint",
    "consent": "as --allow-data-change says",
}


@dataclass(frozen=True)
class Difference:
    """One setting that is not what the run was started with."""

    key: str
    before: Any
    after: Any
    rule: Rule

    @property
    def allowed(self) -> bool:
        return self.rule != "never" and not (self.rule == "longer" and _shorter(self.before, self.after))

    def __str__(self) -> str:
        text = f"{self.key}: {json.dumps(self.before)} -> {json.dumps(self.after)}"
        note = _NOTES.get(self.rule, "") if self.allowed else ""
        return f"{text} ({note})" if note else text


def compare(saved: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """All settings that differ, as dotted keys in order; a setting that one side lacks is None there."""
    before, after = _flat(_plain(saved)), _flat(_plain(new))
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [Difference(key, before.get(key), after.get(key), _rule(key)) for key in changed]


def check_resume(
    saved: Mapping[str, Any], new: Mapping[str, Any], *, saved_data: str, new_data: str, allow_data_change: bool = False
) -> list[Difference]:
    """The differences with which a run may go on, to be shown.

    `saved_data` and `new_data` are fingerprints of the prepared sequences. Raises F011 with the settings that may not
    change, F012 where the data has changed and that was not asked for.
    """
    differences = compare(saved, new)
    refused = [difference for difference in differences if not difference.allowed]
    if refused:
        fix = "put these settings back, or start over with --fresh, or choose another output.folder"
        raise HoneError("F011", "the run was started with other settings", where="; ".join(map(str, refused)), fix=fix)
    if saved_data != new_data and not allow_data_change:
        where = f"fingerprint {saved_data[:12]} -> {new_data[:12]}"
        fix = "--allow-data-change, or --fresh to start over"
        raise HoneError("F012", "the training data has changed since the run was started", where=where, fix=fix)
    if saved_data != new_data:
        differences.append(Difference("the training data", saved_data[:12], new_data[:12], "consent"))
    return differences


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of the settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _rule(key: str) -> Rule:
    return next(rule for pattern, rule in RULES if fnmatchcase(key, pattern))


def _shorter(before: Any, after: Any) -> bool:
    return before is not None and after is not None and after < before


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON would give it back, so that tuples and lists are equal."""
    return dict(json.loads(json.dumps(settings)))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
