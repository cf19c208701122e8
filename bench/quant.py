"""Quantised bases on the seedling and the town: what rounding costs before training, and whether QLoRA makes up for it.

`python -m bench.quant dynamic` compares, on text that no layer was chosen by, the dynamic copy with the uniform one, with
random layers at the same bytes, and with the first and the last layers at the same bytes. `python -m bench.quant parity`
trains the same LoRA on 16-bit weights, FP4, NF4, NF4 with double quantisation and the dynamic copy, with several seeds, and
gives the held-out loss, the share of answers that are right word for word, and the KL divergence from the 16-bit model
that was trained with the same seed; it goes on after the last finished seed, and writes its table into docs/quantisation.md.
Some minutes; the numbers do not depend on how busy the machine is.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bench import common
from hone.core.files import write_atomically
from hone.core.types import Batch
from hone.data.batching import micro_batches
from hone.data.chat import ChatTemplate
from hone.data.offline import Offline
from hone.data.prepare import Prepared, prepare
from hone.data.settings import DataSettings
from hone.demo import SEEDLING
from hone.demo.run import write_data
from hone.eval.intervals import wilson
from hone.models.calibrate import divergence, hidden_states
from hone.models.load import Loaded, load
from hone.models.policy import Policy
from hone.models.tokens import load_tokenizer
from hone.objectives import OBJECTIVES
from hone.plan.packed import Scheme
from hone.recipe.build import tuned
from hone.recipe.dynamic import Dynamic, QuantiseWish, find
from hone.train.engine import Engine
from hone.train.loop import train
from hone.train.settings import OptimSettings
from hone.tuning.base import Untouched
from hone.tuning.lora import Lora

NF4 = Scheme("nf4", double=True)
RATE, BATCH = 4e-3, 16
COLUMNS = ("base", "held-out loss", "right word for word", "KL to 16-bit LoRA")
DOCUMENT = common.ROOT / "docs" / "quantisation.md"


def base(scheme: Scheme | None) -> Loaded:
    return load(SEEDLING, dtype="float32", device="cpu", scheme=scheme)


def data_of(loaded: Loaded, folder: Path) -> Prepared:
    files = write_data(folder)
    settings = DataSettings(train=str(files["train"]), held_out=str(files["held_out"]), max_length=512)
    return prepare(settings, loaded.tokenizer, ChatTemplate.of(loaded.tokenizer), context=1024)


def asked(scheme: Scheme | None) -> Policy:
    """The base as it is, ready to be asked."""
    loaded, tuning = base(scheme), Untouched()
    tuning.attach(loaded.model, seed=0)
    return Policy.of(loaded.model, tuning)


def chosen(folder: Path, tokens: int) -> Dynamic:
    """The dynamic scheme, by the town's training questions."""
    wish = QuantiseWish(str(SEEDLING), folder / "dyn", NF4, data=str(folder / "train.jsonl"), tokens=tokens, device="cpu", dtype="float32")
    return find(wish, SEEDLING, lambda _: None)


def filled(order: Sequence[str], found: Dynamic) -> Scheme:
    """Layers in an order, as many as fit into the bytes that the dynamic copy spends."""
    left, kept = found.bytes - found.uniform_bytes, []
    for path in order:
        if found.errors[path].extra <= left:
            kept.append(path)
            left -= found.errors[path].extra
    return Scheme("nf4", double=True, skip=tuple(kept))


def dynamic(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """KL of each way to spend the same bytes, on held-out questions of the town: other entities, other phrasings."""
    prepared = data_of(base(None), folder)
    text = micro_batches(list(prepared.held_out)[: args.rows], 2048)
    known = hidden_states(asked(None), text)
    found = chosen(folder, args.tokens)
    paths = list(found.errors)
    rng = random.Random(0)
    ways = {"uniform NF4": NF4, "dynamic": found.scheme, "first layers": filled(paths, found), "last layers": filled(paths[::-1], found)}
    ways |= {f"random layers {i}": filled(rng.sample(paths, len(paths)), found) for i in range(args.seeds)}
    rows = {name: {"kl": divergence(asked(scheme), text, known), "kept": list(scheme.skip)} for name, scheme in ways.items()}
    share = found.bytes / found.uniform_bytes
    table = [(name, f"{row['kl']:.5f}", str(len(row["kept"]))) for name, row in rows.items()]
    print(common.table(("layers kept", "KL, nats a token", "layers"), table))
    print(
        f"bytes: {share:.3f} of the uniform copy; chosen on {found.tokens} tokens, measured on {sum(len(b.tokens_T) for b in text)} others"
    )
    return {"rows": rows, "bytes": share, "tokens": found.tokens}


def parity(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same training on every base, seed after seed."""
    prepared = data_of(base(None), folder)
    bases = {"16-bit": None, "FP4": Scheme("fp4"), "NF4": Scheme("nf4"), "NF4 + DQ": NF4, "dynamic": _dynamic(args, folder)}
    made = {"steps": args.steps, "batch": BATCH, "rate": RATE, "rows": args.rows, "kept": list(bases["dynamic"].skip)}  # type: ignore[union-attr]
    every = []
    for seed in range(1, args.seeds + 1):
        file = args.work / f"parity-{seed}.json"
        if not file.is_file() or json.loads(file.read_text("utf-8"))["made"] != made:
            write_atomically(file, json.dumps({"made": made, "bases": one_seed(bases, prepared, args, seed)}))
        every.append(json.loads(file.read_text("utf-8"))["bases"])
    lines = [_line(name, [seed[name] for seed in every]) for name in bases]
    _document(lines)
    print(common.table(COLUMNS, lines))
    return {"seeds": every, "made": made}


def _dynamic(args: argparse.Namespace, folder: Path) -> Scheme:
    """The dynamic scheme, looked for once."""
    file = args.work / "dynamic.json"
    if not file.is_file():
        args.work.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(chosen(folder, args.tokens).scheme.skip))
    return Scheme("nf4", double=True, skip=tuple(json.loads(file.read_text("utf-8"))))


def one_seed(bases: dict[str, Scheme | None], prepared: Prepared, args: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """What every base comes to with one seed."""
    held = micro_batches(list(prepared.held_out)[: args.rows], 2048)
    ends = torch.tensor(ChatTemplate.of(load_tokenizer(SEEDLING)).stop_ids)
    found: dict[str, dict[str, float]] = {}
    wide: list[torch.Tensor] = []
    for name, scheme in bases.items():
        policy = trained(scheme, prepared, seed=seed, steps=args.steps)
        wide = wide or hidden_states(policy, held)
        found[name] = scored(policy, held, ends) | {"kl": divergence(policy, held, wide)}
        print(name, seed, {key: round(value, 4) for key, value in found[name].items()}, flush=True)
    return found


def _document(lines: Sequence[tuple[str, ...]]) -> None:
    """Put the table between the marks of docs/quantisation.md."""
    rows = "\n".join(f"| {' | '.join(line)} |" for line in (COLUMNS, ("---", *["--:"] * (len(COLUMNS) - 1)), *lines))
    text = re.sub(r"(<!-- parity -->).*?(<!-- end -->)", lambda m: f"{m[1]}\n{rows}\n{m[2]}", DOCUMENT.read_text("utf-8"), flags=re.DOTALL)
    DOCUMENT.write_text(text, "utf-8")


def _line(name: str, runs: list[dict[str, float]]) -> tuple[str, ...]:
    right, rows = sum(run["right"] for run in runs), sum(run["rows"] for run in runs)
    share = wilson(right, int(rows))
    losses = common.spread(run["loss"] for run in runs)
    kl = common.spread(run["kl"] for run in runs)
    return (
        name,
        f"{losses['median']:.4f} ({losses['low']:.4f} to {losses['high']:.4f})",
        f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})",
        f"{kl['median']:.4f} ({kl['low']:.4f} to {kl['high']:.4f})",
    )


def trained(scheme: Scheme | None, prepared: Prepared, *, seed: int, steps: int) -> Policy:
    """A LoRA of rank 16 on the base in these bits."""
    policy = tuned(base(scheme), Lora(rank=16), seed=seed)
    source = Offline(prepared.groups, step_groups=BATCH, budget=2048, max_steps=steps, seed=seed)
    engine = Engine(policy, OptimSettings(learning_rate=RATE, batch_size=BATCH))
    train(engine, source, OBJECTIVES["sft"].bind(), (), seed=seed)
    policy.model.eval()
    return policy


@torch.no_grad()
def scored(policy: Policy, held: Sequence[Batch], ends: torch.Tensor) -> dict[str, float]:
    """Loss of a learned token, and in how many answers every token is the likeliest, but for the mark at the end."""
    loss, learned, right, rows = 0.0, 0.0, 0, 0
    for batch in held:
        logits = policy.head().logits(policy.hidden(batch)[batch.read_N])
        loss -= float(logits.log_softmax(-1).gather(1, batch.target_N[:, None]).sum())
        learned += len(batch.read_N)
        wrong_N = (logits.argmax(-1) != batch.target_N) & ~torch.isin(batch.target_N, ends)
        missed = torch.zeros(batch.sequences, dtype=torch.long).index_add_(0, batch.row_N, wrong_N.long())
        right, rows = right + int((missed == 0).sum()), rows + batch.sequences
    return {"loss": loss / learned, "right": right, "rows": rows}


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {"dynamic": dynamic, "parity": parity}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=120, help="held-out questions that are measured on")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens that layers are chosen by")
    parser.add_argument("--work", type=Path, default=Path("runs/quant"), help="finished seeds of parity")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = PARTS[args.part](args, Path(folder))
    print(f"raw figures: {common.save(f'quant-{args.part}', {**found, 'versions': common.machine()['versions']})}")


if __name__ == "__main__":
    main()
