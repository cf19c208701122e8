"""What a run is, in words: its model, method, data, machine, state and the commands that come next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hone.report.folder import Record, RunFolder, plain, record, records
from hone.report.numbers import count, duration, finite, percent, short

OBJECTIVES = {
    "sft": "supervised fine-tuning",
    "cpt": "continued pre-training",
    "dpo": "direct preference optimisation",
    "ipo": "identity preference optimisation",
    "orpo": "odds-ratio preference optimisation",
    "cpo": "contrastive preference optimisation",
    "simpo": "simple preference optimisation",
    "kto": "Kahneman-Tversky optimisation",
    "bco": "binary classifier optimisation",
    "aot": "alignment by optimal transport",
    "mpo": "mixed preference optimisation",
    "rm": "reward modelling",
    "pointwise_rm": "pointwise reward modelling",
    "prm": "process reward modelling",
    "distill": "distillation",
    "uld": "distillation by rank",
}
METHODS = {
    "full": "all weights",
    "freeze": "some of the weights",
    "lora": "LoRA",
    "dora": "DoRA",
    "adalora": "AdaLoRA",
    "ia3": "IA3",
    "bitfit": "BitFit",
    "peft": "peft",
    "prompt": "prompt tuning",
    "prefix": "prefix tuning",
    "ptuning": "P-tuning",
    "ptuning_v2": "P-tuning v2",
    "houlsby": "Houlsby",
    "pfeiffer": "Pfeiffer",
    "parallel_adapter": "parallel",
    "adapterdrop": "AdapterDrop",
    "fusion": "AdapterFusion",
    "mam": "mix-and-match",
    "unipelt": "UniPELT",
}
WHOLE = {"full", "freeze"}
"""Methods whose runs leave a model and no adapter."""
APART = {
    "prompt", "prefix", "ptuning", "ptuning_v2", "houlsby", "pfeiffer", "parallel_adapter", "adapterdrop", "fusion", "mam", "unipelt",
}  # fmt: skip
"""Methods that cannot be folded into plain weights."""
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md", ".gz")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Command(NamedTuple):
    """A line to copy, and what it is for."""

    purpose: str
    line: str


class Source(NamedTuple):
    """A training file or hub id; no rows or no hash means that it was not recorded."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Facts:
    """The identity of a run, taken from its settings and its `started` event."""

    run: RunFolder

    @property
    def started(self) -> Record:
        return self.run.last("started") or self.run.last("resumed")

    @property
    def name(self) -> str:
        return self.run.path.resolve().name

    @property
    def base(self) -> str:
        return plain(self.run.section("model").get("name", ""))

    @property
    def base_on_hub(self) -> bool:
        return on_hub(self.base)

    @property
    def objective(self) -> str:
        name = plain(self.run.section("objective").get("name", ""))
        return OBJECTIVES.get(name, name)

    @property
    def method(self) -> str:
        name = plain(self.run.section("tuning").get("method", ""))
        return METHODS.get(name, name)

    @property
    def rank(self) -> str:
        rank = finite(self.run.section("tuning").get("rank"))
        return f"rank {rank:.0f}" if rank is not None and self.is_adapter else ""

    @property
    def is_adapter(self) -> bool:
        return plain(self.run.section("tuning").get("method", "full")) not in WHOLE

    @property
    def artifact(self) -> str:
        """The folder inside the run that holds what was learned."""
        return "adapter" if self.is_adapter else "model"

    @property
    def trainable(self) -> str:
        moving, total = finite(self.started.get("trainable")), finite(self.started.get("parameters"))
        if moving is None or not total:
            return ""
        return f"{short(moving)} of {short(total)} ({percent(moving / total)})"

    @property
    def environment(self) -> Record:
        return record(self.started.get("environment"))

    @property
    def fingerprint(self) -> str:
        return plain(self.started.get("base_fingerprint", ""))

    @property
    def command(self) -> str:
        """The line that started the run, empty if it was started from Python."""
        return plain(self.started.get("command", "")).replace("\n", " ").strip()

    @property
    def sources(self) -> list[Source]:
        found = records(self.started.get("data"))
        return [Source(plain(s.get("source", "")), int(finite(s.get("rows")) or 0), plain(s.get("sha256", ""))) for s in found]

    @property
    def hub_datasets(self) -> list[str]:
        return [source.name for source in self.sources if on_hub(source.name)]

    @property
    def status(self) -> tuple[str, str]:
        """(word, sentence) for the state that the diary ends in."""
        ends = self.run.of_kind("started", "resumed", "stopped", "finished")
        last = ends[-1] if ends else {}
        if last.get("kind") == "finished":
            return "finished", f"Finished in {duration(self.seconds)}." if self.seconds else "Finished."
        if last.get("kind") == "stopped":
            reason = plain(last.get("reason", ""))
            return "stopped", f"Stopped early: {reason}." if reason else "Stopped early."
        return ("unfinished", "Still running, or interrupted.") if ends else ("unknown", "No diary of this run was found.")

    @property
    def seconds(self) -> float:
        """Time at work, without the pauses between a stop and its resume."""
        total, begin, before = 0.0, None, None
        for event in self.run.events:
            t = finite(event.get("t"))
            if t is None:
                continue
            if event.get("kind") in ("started", "resumed"):
                total += before - begin if begin is not None and before is not None else 0.0
                begin = t
            before = t
        return total + (before - begin if begin is not None and before is not None else 0.0)

    @property
    def subtitle(self) -> list[str]:
        """Short facts for the line under the run's name."""
        steps = count(int(self.run.steps[-1]["step"]), "step") if self.run.steps else ""
        rows = sum(source.rows for source in self.sources)
        data = count(rows, "row") if rows else ""
        time = duration(self.seconds) if self.seconds >= 1 else ""
        return [part for part in (self.base, self.objective, self.method, self.rank, data, steps, time) if part]

    def commands(self, verbs: Collection[str], *, folder: Path | str = "") -> list[Command]:
        """What one would do next with this run, for the verbs that this installation has."""
        run = shlex.quote(str(folder or self.run.path))
        again = self.command or f"hone train {run}"
        place = "adapter" if plain(self.run.section("tuning").get("method", "")) in APART else "gguf"
        found = [
            ("chat", "Talk to it, next to its base model", f"hone chat {run} --compare"),
            ("eval", "Measure it again", f"hone eval {run}"),
            ("export", "Take it elsewhere, and prove that it arrived", f"hone export {run} --to {place}"),
            ("train", "Run it again from the start" if self.status[0] == "finished" else "Go on from the last checkpoint", again),
        ]
        if self.status[0] == "finished":
            found[-1] = (*found[-1][:2], f"{again} --fresh")
        return [Command(purpose, line) for verb, purpose, line in found if verb in verbs]


def on_hub(name: str) -> bool:
    """Whether a name can be a repository id on the hub rather than a file or folder."""
    looks_so = bool(HUB_ID.fullmatch(name)) and not name.startswith(".") and not name.lower().endswith(DATA_SUFFIXES)
    return looks_so and not Path(name).exists()
