"""Grows the seedling: a small base model pre-trained on the town's documents through hone's own loop.

`python -m hone.demo.pretrain FOLDER` repeats it from nothing: corpus, tokenizer, random weights, continued
pre-training on packed documents. Running it again on the same folder resumes.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from hone.core.events import Events
from hone.core.types import Group, Origin, Sequence
from hone.data.batching import micro_batches
from hone.data.offline import Offline
from hone.demo.town import Document, Town
from hone.models.dtype import choose_dtype
from hone.models.kernels.fuse import fuse
from hone.models.policy import Policy
from hone.objectives import OBJECTIVES
from hone.plan.shapes import facts_of
from hone.train import checkpoint
from hone.train.engine import Engine
from hone.train.health import Health
from hone.train.hooks import Checkpoints, Evaluate, Interrupt, Metrics, Watch
from hone.train.loop import BaseHook, State, train
from hone.train.settings import OptimSettings
from hone.train.stopping import stopping
from hone.tuning.full import Full

VOCABULARY, CONTEXT = 4096, 1024
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": CONTEXT,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def grow_tokenizer(texts: Seq[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 4,096 entries; every digit is a token of its own, so numbers have one spelling."""
    tokenizer = Tokenizer(models.BPE())
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in SPECIAL]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        model_max_length=CONTEXT,
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


def plant(tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """Random weights in Qwen3's architecture, which the whole ecosystem loads."""
    torch.manual_seed(seed)
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, **ids))


def sequences(documents: Seq[Document], tokenizer: PreTrainedTokenizerFast) -> list[Group]:
    """One sequence a document, closed by the end-of-text token; long ones are cut into pieces of the context."""
    groups: list[Group] = []
    for row, ids in enumerate(tokenizer([document.text for document in documents])["input_ids"], start=1):
        tokens = [*ids, tokenizer.convert_tokens_to_ids(SPECIAL[0])]
        for start in range(0, len(tokens), CONTEXT):
            piece = tokens[start : start + CONTEXT]
            groups.append((Sequence(piece, [1.0] * len(piece), origin=Origin("town", row)),))
    return groups


def held_out_measure(policy: Policy, groups: list[Group], n_bytes: int, budget: int) -> dict[str, float]:
    """Loss in nats per token and in bits per byte on documents that were never trained on."""
    total, tokens = 0.0, 0.0
    with torch.no_grad():
        for batch in micro_batches(groups, budget):
            logp_N = policy.signals(batch, "logp").logp
            total, tokens = total - float(logp_N.sum()), tokens + len(logp_N)
    return {"eval_loss": total / tokens, "bits_per_byte": total / math.log(2) / n_bytes}


class Say(BaseHook):
    """A line now and then."""

    def __init__(self) -> None:
        self.begin = time.monotonic()

    def stepped(self, state: State) -> None:
        if state.step % 20 == 0 or "eval_loss" in state.metrics:
            shown = {
                key: round(state.metrics[key], 4)
                for key in ("loss", "eval_loss", "bits_per_byte", "grad_norm", "tokens_per_second")
                if key in state.metrics
            }
            print(f"step {state.step}/{state.total} {time.monotonic() - self.begin:.0f}s {shown}", flush=True)


def pretrain(folder: Path, options: argparse.Namespace) -> None:
    """Grow a seedling in `folder` from one pass over some volumes of documents; resumes from the folder's checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    town, start = Town(), options.start
    shares = {room: float(share) for room, _, share in (word.partition("=") for word in options.share)}
    unseen, documents = town.documents(held_out=True), town.documents(volumes=options.volumes, shares=shares)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(start) if start else grow_tokenizer([d.text for d in town.documents()])
    dtype, _ = choose_dtype("auto", torch.device("cpu"), facts_of(Qwen3Config(**SHAPE).to_dict(), where="the seedling"))
    model = Qwen3ForCausalLM.from_pretrained(start, dtype=dtype) if start else plant(tokenizer, seed=1).to(dtype)
    groups, held_out = sequences(documents, tokenizer), sequences(unseen, tokenizer)
    per_pass = sum(len(group[0].tokens) for group in groups)
    rows = max(1, round(options.step_tokens * len(groups) / per_pass))
    source = Offline(groups, step_groups=rows, budget=options.budget, epochs=1, seed=1)
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters in {dtype}, {len(groups):,} documents, {per_pass:,} tokens a pass, {len(source)} steps", flush=True)
    if not options.compile:
        fuse(model)
    Full().attach(model, seed=1)
    policy = Policy.of(model, Full())
    if options.compile:
        for layer in model.model.layers:
            layer.compile(dynamic=True)
    engine = Engine(
        policy, OptimSettings(learning_rate=options.learning_rate, weight_decay=0.1, beta2=0.95, warmup_ratio=0.03, schedule="linear")
    )
    events = Events(folder)
    n_bytes = sum(len(document.text.encode()) for document in unseen)
    evaluate = Evaluate(lambda _: held_out_measure(policy, held_out, n_bytes, options.budget), events, every=200, patience=None)
    health = Health(events.emit)
    with stopping() as stopper:
        metrics = Metrics(events, every=10, steps_per_epoch=source.steps_per_epoch)
        parts = {"evaluate": evaluate, "health": health}
        saver = Checkpoints(folder, every=100, keep=1, keep_best=False, context={}, parts=parts, events=events)
        done, seen = _resume(folder, engine, health, evaluate)
        train(
            engine,
            source,
            OBJECTIVES["cpt"],
            (Watch(health), Interrupt(stopper), evaluate, metrics, saver, Say()),
            done=done,
            tokens=seen,
            seed=1,
        )
    torch.nn.Module.to(model, torch.bfloat16).save_pretrained(folder / "seedling")
    tokenizer.save_pretrained(folder / "seedling")
    earlier = json.loads((start / "growth.json").read_text("utf-8")) if start else []
    stage: dict[str, Any] = {
        "volumes": options.volumes,
        "shares": shares,
        "tokens": per_pass,
        "steps": len(source),
        "step_tokens": options.step_tokens,
        "learning_rate": options.learning_rate,
        "command": _command(options),
        "curve": _curve(folder),
    }
    (folder / "seedling" / "growth.json").write_text(json.dumps([*earlier, stage], indent=1))


def _command(options: argparse.Namespace) -> str:
    words = [f"--volumes {options.volumes}", f"--step-tokens {options.step_tokens}", f"--learning-rate {options.learning_rate:g}"]
    words += [f"--share {share}" for share in options.share] + ["--start EARLIER/seedling"] * bool(options.start)
    return " ".join(["python -m hone.demo.pretrain FOLDER", *words])


def _curve(folder: Path) -> list[list[float]]:
    """(step, held-out loss, bits per byte) at every evaluation."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    found = {line["step"]: [line["step"], line["eval_loss"], line["bits_per_byte"]] for line in lines if "bits_per_byte" in line}
    return list(found.values())


def _resume(folder: Path, engine: Engine, health: Health, evaluate: Evaluate) -> tuple[int, int]:
    found = checkpoint.latest(folder, tell=print)
    if found is None:
        return 0, 0
    tensors, state = checkpoint.read(found)
    engine.load(tensors)
    health.restore(state["health"])
    evaluate.best = state["watched"] or evaluate.best
    return found.step, state["tokens"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--volumes", type=int, default=13)
    parser.add_argument("--step-tokens", type=int, default=8192)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument(
        "--share", action="append", default=[], metavar="ROOM=SHARE", help="how much of a kind of paper, for instance news=0.3"
    )
    parser.add_argument("--start", type=Path, help="go on from this folder's weights and tokenizer instead of random ones")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    pretrain(options.folder, options)


if __name__ == "__main__":
    main()
