"""What a person sees before a run starts: the data and its fate, the sizes, the settings with reasons, one example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from hone.cli.style import pairs, paragraph
from hone.report.numbers import size, whole
from hone.report.tables import coloured, settings_table

SHOWN = 200
"""Tokens of the first example that are shown; its end, since that is where answers are."""

FILES = 5
"""Files whose format is shown."""

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone.recipe.run import Run


def show_run(run: Run, out: Console) -> None:
    """The plan of a run."""
    from hone.models.quantise import footprint
    from hone.plan.advise import total_steps
    from hone.recipe.build import sizes

    recipe, prepared = run.recipe, run.prepared
    counts = sizes(run.policy)
    tokens = sum(len(s.tokens) for group in prepared.groups for s in group)
    learned = sum(s.learned for group in prepared.groups for s in group)
    rollout, optim = recipe.rollout, recipe.optim
    share = f"{whole(learned)} learned ({100 * learned / max(1, tokens):.0f} %)"
    passes = (optim.epochs or 1.0) * (rollout.passes if rollout else 1)
    steps = total_steps(len(prepared.groups), optim.batch_size, passes, optim.max_steps)
    weights = footprint(run.policy.model).nbytes
    layout = "packed" if run.policy.packed else "padded (this model cannot be packed)"
    for note in (*run.loaded.notes, *map(str, prepared.notices), *run.template.notes):
        paragraph(out, note, style="dim")
    rows = [
        ("model", f"{recipe.model.name}: {whole(counts['parameters'])} parameters, {whole(counts['trainable'])} move ({size(weights)})"),
        ("template", f"{run.template.name}: {run.template.reason}"),
        ("data", f"{whole(len(prepared.groups))} to train, {whole(len(prepared.held_out))} held out"),
        ("tokens", f"{whole(tokens)} in a pass, " + ("all of prompts: the answers are written on the way" if rollout else share)),
        ("steps", f"{whole(steps)} of {optim.batch_size} rows, {layout} to {recipe.hardware.token_budget} tokens"),
        ("folder", str(run.folder)),
    ]
    rows[2:2] = [("" if i else "read as", line) for i, line in enumerate(_read_as(prepared.describe()))]
    pairs(out, rows)
    out.print(settings_table(recipe.resolved))
    first = prepared.groups[0][0]
    what = "prompt" if rollout else "example"
    paragraph(out, f"\nThe first {what} ({first.origin})" + (":" if rollout else "; what is learned is marked:"))
    texts, skipped = pieces(run.loaded.tokenizer, first.tokens), max(0, len(first.tokens) - SHOWN)
    if skipped:
        paragraph(out, f"... {skipped} tokens before ...", style="dim")
    out.print(coloured(texts[skipped:], first.weights[skipped:], console=out))


def _read_as(files: list[str]) -> list[str]:
    """What was recognised in each file, and what becomes of its columns; of many files only the first."""
    more = [f"and {len(files) - FILES} more files"] if len(files) > FILES else []
    return files[:FILES] + more


def pieces(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> list[str]:
    """The text that each token adds to those before it; a character of several tokens shows at its last one."""
    texts: list[str] = []
    done, start = "", 0
    for i in range(1, len(tokens) + 1):
        text = str(tokenizer.decode(tokens[start:i]))
        if text.endswith("\ufffd"):
            texts.append("")
            continue
        texts.append(text[len(done) :])
        done = text
        if i - start >= 32:
            start, done = i - 1, str(tokenizer.decode(tokens[i - 1 : i]))
    return texts
