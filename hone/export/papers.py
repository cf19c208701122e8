"""What lies beside the weights of every artifact: tokenizer, template, stop tokens, the certificate, and a README."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hone.core.files import staged_folder, write_atomically
from hone.export.base import Artifact, Checked, Order, Source
from hone.export.tensors import changed_config

README = "README.md"
STALE = ("_name_or_path", "torch_dtype", "transformers_version", "quantization_config")
"""What a base's config says of how it was saved, which is no longer so."""


def write_tokenizer(folder: Path, source: Source) -> None:
    """The tokenizer with the chat template that the model was trained with."""
    tokenizer = source.tokenizer
    tokenizer.chat_template = source.template.stored
    tokenizer.save_pretrained(folder)


def write_config(folder: Path, source: Source, dtype: str | None, *, quantised: Mapping[str, Any] | None = None) -> None:
    """config.json and generation_config.json, which end answers at the tokens that the model learned to end them with.

    `quantised` tells how the weights are; what the base said of its own is left out.
    """
    stops: list[int] = list(source.template.stop_ids)
    eos: Any = stops[0] if len(stops) == 1 else stops or None
    config = {key: value for key, value in source.config.items() if key not in STALE} | changed_config(source.weights())
    config |= ({"dtype": dtype} if dtype else {}) | ({"quantization_config": dict(quantised)} if quantised else {})
    if stops:
        config["eos_token_id"] = eos
    generation = {
        "eos_token_id": eos,
        "bos_token_id": config.get("bos_token_id"),
        "pad_token_id": config.get("pad_token_id"),
        **source.sampling,
    }
    if {"temperature", "top_p", "top_k"} & source.sampling.keys():
        generation.setdefault("do_sample", True)
    write_atomically(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    kept = {key: value for key, value in generation.items() if value is not None}
    write_atomically(folder / "generation_config.json", json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


class FolderTarget:
    """A target whose artifact is a folder: filled in a stage, with certificate, check and README, and only then named."""

    quants: tuple[str, ...]

    def needed(self, order: Order) -> int:
        """Bytes of disk; see `hone.export.base.Target`."""
        raise NotImplementedError

    def fill(self, stage: Path, order: Order, hashes: dict[str, str]) -> Artifact:
        """Write the content. `hashes` takes the SHA-256 of files that are known from the writing."""
        raise NotImplementedError

    def write(self, order: Order) -> Artifact:
        """Make the artifact: staged, whole, and only then named."""
        hashes: dict[str, str] = {}
        with staged_folder(order.folder, hashes=hashes) as stage:
            made = self.fill(stage, order, hashes)
            order.source.golden.save(stage)
            made = replace(made, checked=order.check(stage))
            write_atomically(stage / README, readme(order, made))
        return made


def readme(order: Order, made: Artifact) -> str:
    """What an artifact is, how to run it, what the check has shown, and how to repeat it."""
    source, base = order.source, order.source.base.get("name", "")
    lines = [f"# {source.name}", "", made.what, ""]
    lines += [f"Made by hone from `{Path(base).name if Path(base).is_absolute() else base}` with `{source.method}`.", ""]
    lines += ["## Use", "", "In the folder that this one lies in:", "", "```bash", *made.commands, "```", ""]
    lines += ["## Check", "", *measured(made.checked), ""]
    lines += ["`golden.json` holds what the trained model answered to a few probes, with its log-probabilities. This replays them:", ""]
    lines += ["```bash", f"hone verify {order.folder.name}", "```", ""]
    lines += ["## Notes", "", *(f"- {note}" for note in made.notes), ""] if made.notes else []
    return "\n".join(lines)


def measured(checked: Checked) -> list[str]:
    """What the replay has shown, as sentences."""
    if isinstance(checked, str):
        return [f"Not verified when it was written: {checked}."]
    total, band = checked.total, checked.band
    if not checked.passed:
        return ["**It is not the model that was trained.** " + " ".join(f"{f.cause}: {f.evidence}." for f in checked.findings)]
    lines = [f"Verified when it was written ({checked.subject}), on {total.positions} places of {len(checked.readings)} probes:", ""]
    lines += ["| measure | value | band |", "|---|--:|--:|"]
    if band is not None:
        lines += [
            f"| KL divergence from the trained model, nats a token | {total.kl:.2g} | {band.kl:g} |",
            f"| largest difference of a log-probability | {total.worst:.2g} | {band.worst:g} |",
            f"| likeliest token the same | {100 * total.agree:.4g} % | {100 * band.agree:g} % |",
        ]
    return lines
