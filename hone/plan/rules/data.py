"""Rules about rows, lengths, what is learned of them, and what is kept aside."""

from __future__ import annotations

from hone.plan.rules.base import Case, Found, rule

GUIDE = "fine-tuning guide, data"
UNSLOTH = "Unsloth docs, datasets guide"


@rule("C117", "warning", source="list of rules: more than 1 % truncated")
def cut_rows(case: Case) -> Found | None:
    """At most one row in a hundred is cut."""
    if case.truncated is None or case.truncated <= 0.01:
        return None
    return Found(f"{100 * case.truncated:.1f} % of the rows lose their end", {"data.max_length": 2 * int(case["data.max_length"])})


@rule("C118", "warning", source=UNSLOTH)
def few_rows(case: Case) -> Found | None:
    """A hundred rows at the least, a thousand if they can be had."""
    if case.rows is None or case.rows >= 100 or case.objective in ("grpo", "ppo", "rloo"):
        return None
    return Found(f"{case.rows} rows: add some, or let a model write more from them (hone synth)")


@rule("C121", "warning", source="fine-tuning guide, evaluation")
def nothing_held_out(case: Case) -> Found | None:
    """Some rows are kept aside, or nobody sees overfitting."""
    if case["data.held_out"] != 0:
        return None
    return Found("nothing is held out: the loss on rows that are learned says nothing about others", {"data.held_out": 0.1})


@rule("C122", "note", source="fine-tuning guide, evaluation: it is slow")
def costly_evaluation(case: Case) -> Found | None:
    """Evaluations take less than a fifth of the run."""
    every, steps = case["eval.every"], case.steps
    if not every or not steps or not case.eval_tokens or not case.tokens or not case.rows:
        return None
    trained = 3 * case.tokens * steps * case["optim.batch_size"] / case.rows
    share = (1 + steps // every) * case.eval_tokens / trained
    if share <= 0.2:
        return None
    calm = max(every + 1, round((1 + steps // every) * every * share / 0.15))
    return Found(f"evaluations take about {100 * share:.0f} % as long as the training", {"eval.every": min(calm, steps)})


@rule("C123", "note", source="sampling: the standard error of a share")
def little_held_out(case: Case) -> Found | None:
    """Enough held-out rows to see a change of ten points."""
    if not case.held_out or case.held_out >= 100:
        return None
    seen = 100 * 1.96 * (0.5 / case.held_out) ** 0.5
    return Found(f"{case.held_out} held-out rows: a score of right and wrong shows only changes above {seen:.0f} points")


@rule("C124", "warning", source="arXiv 2305.14314: about one point; Unsloth docs")
def questions_learned(case: Case) -> Found | None:
    """Answers are learned, questions are read."""
    if case["data.learn"] != "all" or case.objective != "sft":
        return None
    return Found("the questions are learned too", {"data.learn": "assistant"})


@rule("C133", "warning", source="arXiv 2107.06499")
def repeated_rows(case: Case) -> Found | None:
    """Few rows are there twice."""
    if case.duplicates is None or case.duplicates <= 0.05:
        return None
    return Found(f"{100 * case.duplicates:.0f} % of the rows repeat others: hone data fix removes them")


@rule("C135", "error", source="no option without effect")
def best_of_nothing(case: Case) -> Found | None:
    """What watches the held-out loss needs held-out rows."""
    watching = [name for name in ("keep_best", "patience") if case[f"eval.{name}"]]
    if not watching or case["data.held_out"] != 0:
        return None
    return Found(f"eval.{watching[0]} watches the held-out loss, and nothing is held out", {"data.held_out": 0.1})


@rule("C139", "note", source="no run is safe from a power cut")
def late_checkpoint(case: Case) -> Found | None:
    """A checkpoint before the end."""
    every = case["output.save_every"]
    if not every or not case.steps or every < case.steps or case.steps < 100:
        return None
    return Found(f"a checkpoint every {every} steps, in a run of {case.steps}", {"output.save_every": max(1, case.steps // 10)})
