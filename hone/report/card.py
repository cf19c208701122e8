"""Writes README.md of a run folder: a model card with the hub's front matter, the measurements, and how to run and repeat it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from hone.report.facts import Facts
from hone.report.fates import read_fates
from hone.report.folder import RunFolder, plain, read_run
from hone.report.numbers import loss_text, whole
from hone.report.own import held_out_lines
from hone.report.page import HERE, VERBS, answers, settings
from hone.report.proofs import read_proofs
from hone.report.scores import Score, read_scores
from hone.report.verdict import findings, judge

MARKUP = re.compile(r"([\\`*_\[\]|~#])")
LOCAL_PATH = re.compile(r"(?<![\w./:])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\"=,]+)+[/\\]([^\s/\\'\"=,]+)")


def write_card(folder: Path | str, *, verbs: Collection[str] = VERBS) -> Path:
    """Write the model card into a run folder and return its path. Raises F061 if there is no such folder.

    A card is meant to be published, so paths of this machine are cut to their last part.
    """
    run = read_run(folder)
    card = run.path / "README.md"
    card.write_text(render(run, verbs=verbs), "utf-8", errors="replace")
    return card


def render(run: RunFolder, *, verbs: Collection[str] = VERBS, place: str = "", loads: bool = True) -> str:
    """The card as text: of the run's folder, or of a `place` on the hub, where transformers `loads` it unless it is a GGUF file."""
    facts, scores, fates = Facts(run), read_scores(run.evaluation), read_fates(run.ledger)
    asked = [answer for group in answers(run).values() for answer in group]
    front = front_matter(facts, scores) | ({} if loads else {"library_name": "gguf"})
    return _template().render(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        facts=facts,
        base_name=public(facts.base),
        verdict=judge(run, scores),
        findings=[finding for finding in findings(run, fates) if finding.tone != "good"],
        scores=scores,
        held_out=run.series("eval_loss"),
        own=held_out_lines(run),
        answers=asked[:4],
        prompt=next((answer.prompt for answer in asked if len(answer.prompt) < 300), "Hello!"),
        fates=fates,
        proofs=read_proofs(run),
        settings=settings(run),
        chat="chat" in verbs,
        place=place,
        loads=loads,
    )


@cache
def _template() -> Template:
    env = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {"md": markdown, "public": public, "whole": whole, "loss": loss_text, "repr": repr, "code": code, "quote": shlex.quote}
    return env.get_template("card.md.jinja")


def front_matter(facts: Facts, scores: list[Score]) -> dict[str, Any]:
    """The hub's metadata; what is not known is left out rather than guessed."""
    method = plain(facts.run.section("tuning").get("method", ""))
    objective = plain(facts.run.section("objective").get("name", ""))
    front: dict[str, Any] = {"library_name": "peft" if facts.is_adapter else "transformers", "pipeline_tag": "text-generation"}
    if facts.base_on_hub:
        front |= {"base_model": facts.base, "base_model_relation": "adapter" if facts.is_adapter else "finetune"}
    if terms := plain(facts.started.get("license", "")):
        front["license"] = terms
    if facts.hub_datasets:
        front["datasets"] = facts.hub_datasets
    front["tags"] = [tag for tag in dict.fromkeys(["hone", objective, method]) if tag]
    measured = [_result(score) for score in scores if score.after]
    if measured:
        front["model-index"] = [{"name": facts.name, "results": measured}]
    return front


def _result(score: Score) -> dict[str, Any]:
    assert score.after is not None
    slug = re.sub(r"[^a-z0-9]+", "-", score.task.lower()).strip("-") or "task"
    metric = {"type": score.metric, "value": round(score.after.value, 6), "name": score.metric_name}
    return {"task": {"type": "text-generation"}, "dataset": {"name": f"{score.task} (held out)", "type": slug}, "metrics": [metric]}


def markdown(text: object) -> str:
    """Any text as one line of Markdown that shows exactly that text, also inside a table."""
    safe = MARKUP.sub(r"\\\1", escape(plain(text).strip(), quote=False))
    return re.sub(r"\s*\n\s*", "<br>", safe.replace("\r", "\n"))


def code(text: str) -> str:
    """A text that stays inside single back-ticks."""
    return re.sub(r"[`\r\n]", " ", text)


def public(text: object) -> str:
    """A text without the folders of this machine: /home/me/data/train.jsonl -> train.jsonl."""
    return LOCAL_PATH.sub(r"\1", plain(text))
