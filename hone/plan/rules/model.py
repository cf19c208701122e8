"""Rules about the model: base or instruct, its template, its quantisation, and whether all of it should move."""

from __future__ import annotations

from hone.plan.rules.base import Case, Found, rule

GUIDE = "fine-tuning guide, choice of the model"
FEW, MANY = 300, 1000
"""Below FEW rows instruct; from FEW to MANY, both included, either; above MANY base."""
PLAIN_FORMATS = ("alpaca", "vicuna", "plain")
CONTROLS = {"chatml": "<|im_start|>", "llama3": "<|start_header_id|>", "zephyr": "<|user|>"}


@rule("C119", "warning", source=GUIDE)
def base_with_few_rows(case: Case) -> Found | None:
    """A base model wants 300 rows at the least."""
    if case.kind != "base" or case.rows is None or case.rows >= FEW or case.objective == "cpt":
        return None
    return Found(f"{case.rows} rows do not teach a base model to converse: start from its instruct sibling")


@rule("C120", "note", source=GUIDE)
def instruct_with_many_rows(case: Case) -> Found | None:
    """With more than 1000 good rows a base model is the cleaner start."""
    if case.kind != "instruct" or case.rows is None or case.rows <= MANY or case.objective != "sft":
        return None
    return Found(
        f"{case.rows} rows are enough for a base model, which has no habits to unlearn; stay if instructions must still be followed"
    )


@rule("C125", "warning", source=GUIDE)
def foreign_template(case: Case) -> Found | None:
    """An instruct model keeps the template that it was taught."""
    template = case["data.template"]
    if not case.has_template or case.kind != "instruct" or template not in (*PLAIN_FORMATS, *CONTROLS):
        return None
    return Found(f"this model has a chat template of its own, and {template} is another", {"data.template": "auto"})


@rule("C126", "warning", source=f"{GUIDE}; Unsloth on untrained tokens")
def unknown_controls(case: Case) -> Found | None:
    """A template's control tokens are tokens that the model knows."""
    template = str(case["data.template"])
    mark = CONTROLS.get(template)
    if mark is None or not case.vocabulary or mark in case.vocabulary:
        return None
    return Found(
        f"{template} writes {mark}, which is no token of this model: it is taught as a handful of scraps", {"data.template": "alpaca"}
    )


@rule("C130", "note", source="Unsloth docs, continued pre-training")
def words_of_a_new_field(case: Case) -> Found | None:
    """Continued pre-training in a new language moves embeddings and head too."""
    if case.objective != "cpt" or not case.adapts:
        return None
    return Found("adapters leave embeddings and head as they are; for a new language or script, move them as well")


@rule("C132", "warning", source="LoRA Without Regret (Thinking Machines, 2025)")
def full_with_few_rows(case: Case) -> Found | None:
    """All weights move only for much data."""
    if case.method != "full" or case.rows is None or case.rows >= MANY:
        return None
    return Found(f"{case.rows} rows move all weights: adapters learn them as well and forget less", {"tuning.method": "lora"})


@rule("C134", "warning", source="forgetting: the template and the habits of answering are overwritten")
def documents_into_an_instruct_model(case: Case) -> Found | None:
    """Plain text is taught to a base model, before the conversations."""
    if case.objective != "cpt" or case.kind != "instruct":
        return None
    return Found("plain text unteaches an instruct model to answer: continue its base model, then teach conversations")


@rule("C137", "error", source=GUIDE)
def already_quantised(case: Case) -> Found | None:
    """Of a model that is stored in 4 or 8 bits the weights cannot move, and only bitsandbytes' can be computed with here."""
    if case.quantised is None or (case.quantised == "bitsandbytes" and case.method not in ("full", "freeze")):
        return None
    change = {"tuning.method": "lora"} if case.quantised == "bitsandbytes" else {}
    return Found(f"the weights are stored quantised ({case.quantised}): train adapters, or the model that they were made from", change)
