"""What to train, and how: base or instruct, method, rank, rate, passes, batch, template and length, each with reason and confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.plan.advise import learning_rate, passes
from hone.plan.machines import Machine
from hone.plan.rules.model import FEW, MANY

Confidence = Literal["high", "fair", "low"]
GOALS = {
    "behaviour": "tone, format, a task done in one way",
    "knowledge": "facts of a field",
    "keep-instruction-following": "the new behaviour beside the old abilities",
    "preference": "the better of two answers",
    "reasoning": "answers that a program can check",
    "language": "another language or script",
}
STARTERS = ((10.0, "8B", "unsloth/Llama-3.1-8B-Instruct"), (5.0, "4B", "Qwen/Qwen3-4B-Instruct-2507"), (2.5, "1.7B", "Qwen/Qwen3-1.7B"))
"""Free gigabytes from which a size can be trained with adapters on a 4-bit base, and a model to begin with."""
SMALLEST = ("0.6B", "Qwen/Qwen3-0.6B")


@dataclass(frozen=True, slots=True)
class Counsel:
    """One piece of advice. `key` is a setting, or a question such as "start from"."""

    key: str
    value: Any
    reason: str
    confidence: Confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """What is known. None is not known, and what depends on it is advised with less confidence."""

    machine: Machine
    rows: int | None = None
    duplicates: float | None = None
    empty: float | None = None
    median: int | None = None
    longest: int | None = None
    languages: Mapping[str, float] | None = None
    """Script -> share of the letters."""
    turns: float | None = None
    pairs: bool = False
    hidden: int | None = None
    parameters: int | None = None
    kind: str | None = None
    has_template: bool | None = None
    quantiser: bool = False
    """Whether 4-bit bases can be had."""
    goal: str = "behaviour"


def counsel(matter: Matter) -> list[Counsel]:
    """All advice in the order in which it is decided. Raises C003 for an unknown goal."""
    if matter.goal not in GOALS:
        raise HoneError("C003", f"there is no goal '{matter.goal}'", where="goal", fix=nearest(matter.goal, GOALS))
    found = [start_from(matter)]
    found += [] if matter.parameters is not None else [which_model(matter)]
    found += [objective(matter), method(matter)]
    found += [*_shape(matter, str(found[-1].value)), *_pace(matter, str(found[-1].value))]
    return [*found, *_text(matter), *_care(matter)]


def start_from(matter: Matter) -> Counsel:
    """Base or instruct: below 300 rows instruct, from 300 to 1000 either, from 1001 base; the goal can overrule it."""
    rows, key = matter.rows, "start from"
    if matter.goal == "keep-instruction-following":
        return Counsel(key, "instruct", "a base model would have to learn to follow instructions anew", "high")
    if matter.goal == "language" and (rows is None or rows > MANY):
        return Counsel(key, "base", "continued pre-training on plain text comes first, and unteaches an instruct model", "fair")
    if rows is None:
        return Counsel(key, "instruct", "without knowing the data, the start that needs the least of it", "low")
    if rows < FEW:
        return Counsel(key, "instruct", f"{rows} rows, fewer than {FEW}: too few to teach when to answer and when to stop", "high")
    if rows <= MANY:
        good = (matter.duplicates or 0) <= 0.05 and (matter.empty or 0) <= 0.02
        why = "the rows are clean" if good else "repeated or empty rows speak for the instruct model"
        return Counsel(key, "either" if good else "instruct", f"{rows} rows, {FEW} to {MANY}: either will do; {why}", "fair")
    return Counsel(key, "base", f"{rows} rows, more than {MANY}: a base model has no habits to unlearn", "fair" if rows < 5000 else "high")


def which_model(matter: Matter) -> Counsel:
    """A size for the machine."""
    room = matter.machine.usable / 1e9
    room = room if matter.machine.device == "cuda" else room / 4
    size, name = next(((size, name) for least, size, name in STARTERS if room >= least), SMALLEST)
    where = f"{matter.machine.usable / 1e9:.3g} GB on {matter.machine.name}"
    slow = " (a processor is slow, so a smaller one)" if matter.machine.device == "cpu" else ""
    return Counsel("model.name", name, f"{size} trains well in {where}{slow}", "fair")


def objective(matter: Matter) -> Counsel:
    """What to aim at."""
    if matter.pairs or matter.goal == "preference":
        return Counsel("objective.name", "dpo", "the data holds better and worse answers", "high" if matter.pairs else "fair")
    if matter.goal == "reasoning":
        return Counsel("objective.name", "grpo", "what can be checked by a program can be rewarded; teach the form with sft first", "fair")
    if matter.goal == "language":
        return Counsel("objective.name", "cpt", "plain text of the language first, conversations afterwards", "fair")
    if matter.goal == "knowledge":
        why = "questions and answers teach facts better than plain text; facts that change belong into retrieval"
        return Counsel("objective.name", "sft", why, "fair")
    return Counsel("objective.name", "sft", "imitate the answers, token by token", "high")


def method(matter: Matter) -> Counsel:
    """QLoRA where there is a GPU and a 4-bit base, LoRA elsewhere; all weights only for much data and much room."""
    key, machine = "tuning.method", matter.machine
    room = matter.parameters is not None and 18 * matter.parameters < machine.usable
    if matter.rows is not None and matter.rows > 50_000 and room:
        needed = 18 * (matter.parameters or 0) / 1e9
        return Counsel(key, "full", f"{matter.rows} rows, and the {needed:.3g} GB that all weights need are there", "fair")
    if machine.device == "cuda" and matter.quantiser:
        return Counsel(key, "qlora", "begin with a 4-bit base: near the quality of 16 bits at a third of the memory", "high")
    why = "4-bit bases need a GPU" if machine.device != "cuda" else "no 4-bit kernels are installed (bitsandbytes)"
    return Counsel(key, "lora", f"adapters on the 16- or 32-bit base: {why}", "high")


def _shape(matter: Matter, chosen: str) -> list[Counsel]:
    if chosen == "full":
        return []
    rows = matter.rows or 0
    rank = 32 if rows > 20_000 or matter.goal in ("knowledge", "language") else 8 if 0 < rows < FEW else 16
    reasons = {
        8: "few rows hold little",
        16: "holds a few thousand rows; double it only if the loss stays high",
        32: "there is much to hold",
    }
    return [
        Counsel("tuning.rank", rank, reasons[rank], "fair"),
        Counsel("tuning.alpha", 2 * rank, "twice the rank: the change counts fully", "fair"),
        Counsel("tuning.targets", "all-linear", "adapters on the attention alone do worse even at equal size", "high"),
    ]


def _pace(matter: Matter, chosen: str) -> list[Counsel]:
    start = 2e-5 if chosen == "full" else 2e-4
    pace = 1 / 40 if matter.pairs or matter.goal in ("preference", "reasoning") else 1.0
    rate = learning_rate(start, matter.hidden or 4096, pace=pace)
    known = "high" if matter.hidden else "low"
    found = [Counsel("optim.learning_rate", rate.value, rate.reason, known)]  # type: ignore[arg-type]
    if matter.rows is not None:
        epochs = passes(matter.rows)
        found.append(Counsel("optim.epochs", epochs.value, epochs.reason, "fair"))
        batch = max(4, min(16, matter.rows // 120 * 4))
        found.append(Counsel("optim.batch_size", batch, f"enough steps ({matter.rows // batch} in a pass), each over enough rows", "fair"))
    return found


def _text(matter: Matter) -> list[Counsel]:
    found = []
    if matter.has_template is not None:
        own = "the model's own, which it was taught" if matter.has_template else "none comes with the model: alpaca or ChatML is taught"
        found.append(Counsel("data.template", "auto", own, "high"))
    if matter.longest is not None:
        needed = matter.longest + matter.longest // 4 + 64
        length = 1 << (needed - 1).bit_length()
        length = min(length, 2048) if matter.median is not None and matter.median < 512 else length
        why = f"about {matter.longest} tokens in the longest row, {matter.median} in the middle one, and the template's own"
        found.append(Counsel("data.max_length", length, why, "high"))
    return found


def _care(matter: Matter) -> list[Counsel]:
    """What to mend in the data before anything else."""
    found = []
    if (matter.duplicates or 0) > 0.05:
        found.append(Counsel("data", "hone data fix", f"{100 * (matter.duplicates or 0):.0f} % of the rows repeat others", "high"))
    if (matter.empty or 0) > 0:
        found.append(Counsel("data", "hone data check", f"{100 * (matter.empty or 0):.1f} % of the answers are empty", "high"))
    if matter.languages:
        script, share = max(matter.languages.items(), key=lambda item: item[1])
        if script != "Latin" and share > 0.3:
            found.append(Counsel("model.name", f"one that reads {script}", f"{100 * share:.0f} % of the letters are {script}", "high"))
    return found
