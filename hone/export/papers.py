"""What lies beside the weights of every artifact: tokenizer, template, stop tokens, the certificate, and a README."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hone.core.files import write_atomically
from hone.export.base import Source

README = "README.md"


def write_tokenizer(folder: Path, source: Source) -> None:
    """The tokenizer with the chat template that the model was trained with."""
    tokenizer = source.tokenizer
    tokenizer.chat_template = source.template.source
    tokenizer.save_pretrained(folder)


def write_config(folder: Path, source: Source, dtype: str | None) -> None:
    """config.json and generation_config.json, which end answers at the tokens that the model learned to end them with."""
    stops: list[int] = list(source.template.stop_ids)
    eos: Any = stops[0] if len(stops) == 1 else stops or None
    config = {key: value for key, value in source.config.items() if key not in ("_name_or_path", "torch_dtype", "transformers_version")}
    config |= {"dtype": dtype} if dtype else {}
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


def write_readme(
    folder: Path, source: Source, *, word: str, what: str, commands: Sequence[str], notes: Sequence[str] = ()
) -> None:
    """README.md of an artifact that will be called `word`: what it is, how to run it, and how to check it."""
    base = source.base.get("name", "")
    lines = [f"# {source.name}", "", what, ""]
    lines += [f"Made by hone from `{Path(base).name if Path(base).is_absolute() else base}` with `{source.method}`.", ""]
    lines += ["## Use", "", "```bash", *commands, "```", "", "## Check", ""]
    lines += ["`golden.json` holds what the trained model answered to a few probes, with its log-probabilities. This replays them:", ""]
    lines += ["```bash", f"hone verify {word}", "```", ""]
    lines += ["## Notes", "", *(f"- {note}" for note in notes), ""] if notes else []
    write_atomically(folder / README, "\n".join(lines))
