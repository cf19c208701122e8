"""The plan tells what training then does, and needs no torch for it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from hone.cli.main import main
from hone.cli.plan_view import show
from hone.core.errors import HoneError
from hone.data.batching import micro_batches
from hone.data.offline import Offline
from hone.plan.layers import LORA, PLAIN, adapters, linears
from hone.plan.machines import named
from hone.recipe.forecast import Wish, forecast, heaviest, known_facts, started_at
from hone.recipe.run import prepare_run
from hone.recipe.words import read
from hone.tuning import METHODS, trainable

ROOT = Path(__file__).parents[2]
CPU = Wish(named("cpu:8GB"))


def words(model_folder: Path, data_file: Path, *more: str) -> list[str]:
    return [f"model={model_folder}", f"data={data_file}", *more]


def test_it_counts_what_training_counts(model_folder: Path, data_file: Path) -> None:
    raw, _ = read("sft", words(model_folder, data_file, "hardware.token_budget=150"))
    found = forecast(raw, CPU)
    run = prepare_run(raw, Console(quiet=True))
    lengths = [len(s.tokens) for group in run.prepared.groups for s in group]
    assert found.tokens.exact and found.tokens.tokens == sum(lengths) and found.tokens.longest == max(lengths)
    assert found.tokens.learned == sum(s.learned for group in run.prepared.groups for s in group)
    optim = run.recipe.optim
    source = Offline(run.prepared.groups, step_groups=optim.batch_size, budget=150, epochs=optim.epochs or 1.0)
    assert found.steps == len(source)
    assert found.adapters.trainable == sum(p.numel() for p in trainable(run.policy.model).values())
    assert found.facts.parameters + found.adapters.added == sum(p.numel() for p in run.policy.model.parameters())
    assert json.loads(json.dumps({key: found.settings[key] for key in ("optim", "eval", "output")})) == {
        key: run.recipe.resolved[key] for key in ("optim", "eval", "output")
    }
    most, reads = heaviest(found.tokens, batch=optim.batch_size, budget=150)
    seen = [batch for step in range(1, len(source) + 1) for batch in source.batches(step)]
    assert max(len(batch.tokens_T) for batch in seen) <= most <= 150
    assert max(len(batch.read_N) for batch in seen) <= 1.3 * reads


def test_what_is_known_here_agrees_with_the_methods_themselves() -> None:
    lora = METHODS["lora"]
    assert {name: getattr(lora(), name) for name in LORA | PLAIN} == LORA | PLAIN
    assert {"method": None, **LORA, **PLAIN}.keys() == {"method", *(field.name for field in dataclasses.fields(lora))}  # type: ignore[arg-type]
    for method in ("lora", "full"):
        assert started_at(method) == METHODS[method].about.learning_rate


def test_layers_from_headers_and_from_the_shape_agree(model_folder: Path) -> None:
    from hone.plan.headers import stored_tensors

    facts = known_facts(model_folder)
    counts = [adapters(facts, {"method": "lora", **LORA}, linears(facts, stored)) for stored in (None, stored_tensors(model_folder))]
    assert counts[0] is not None and counts[0] == counts[1]


def test_other_methods_are_asked_themselves(model_folder: Path, data_file: Path) -> None:
    other = next((name for name in METHODS if name not in ("lora", "full")), None)
    if other is None:
        pytest.skip("there are no other methods yet")
    raw, _ = read("sft", words(model_folder, data_file, f"tuning={other}"))
    found = forecast(raw, CPU)
    assert found.adapters.trainable > 0 and any("loads torch" in note for note in found.notes)


def test_no_torch_is_loaded(model_folder: Path, data_file: Path) -> None:
    script = "import sys; from hone.cli.main import main; main(sys.argv[1:]); print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script, "plan", "sft", *words(model_folder, data_file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_large_data_is_sampled_with_an_interval(model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "large.jsonl"
    with file.open("w") as out:
        for i in range(4000):
            row = {"instruction": f"{i} ship", "output": "the harbour of the town opens at six " * (1 + i % 20), "note": "x" * 400}
            out.write(json.dumps(row) + "\n")
    raw, _ = read("sft", words(model_folder, file))
    part, whole = forecast(raw, CPU), forecast(raw, Wish(CPU.machine, exact=True))
    assert not part.tokens.exact and whole.tokens.exact
    assert part.tokens.low <= whole.tokens.tokens <= part.tokens.high
    assert part.tokens.rows == pytest.approx(whole.tokens.rows, rel=0.02)


@pytest.mark.parametrize("width", [60, 100])
def test_the_picture_fits(model_folder: Path, data_file: Path, width: int) -> None:
    raw, _ = read("sft", words(model_folder, data_file, "tuning=full"))
    out = Console(width=width, force_terminal=True, no_color=True, record=True, highlight=False)
    show(forecast(raw, Wish(named("cpu:1GB"), price=2.0)), out)
    lines = out.export_text(styles=False).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert any("memory" in line and "fits" in line for line in lines)


def test_what_does_not_fit_gets_ways(model_folder: Path, data_file: Path) -> None:
    raw, _ = read("sft", words(model_folder, data_file, "tuning=full", "hardware.recompute=never", "hardware.token_budget=2048"))
    plenty = forecast(raw, CPU)
    machine = CPU.machine.__class__("a small machine", "cpu", int(plenty.memory.peak / 1.2), None, None)
    found = forecast(raw, Wish(machine))
    assert not found.fits and found.ways and found.time is None
    fixed = [f"{key}={str(value).lower()}" for key, value in found.ways[0].settings.items()]
    again, _ = read("sft", words(model_folder, data_file, "tuning=full", "hardware.recompute=never", "hardware.token_budget=2048", *fixed))
    assert forecast(again, Wish(machine)).fits, "a way that is shown must lead out"


def test_json_for_machines(model_folder: Path, data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "sft", *words(model_folder, data_file), "--gpu", "h100", "--price", "2,0.3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fits"] and told["machine"]["name"] == "H100" and told["time"]["money"] > 0
    assert told["memory"]["phases"]["backward"]["parts"]["weights"] > 0
    assert told["settings"]["hardware"]["recompute"] == "never"


def test_faults_are_those_of_training(model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    for code, more in (("C004", ["optim.epochs=1", "optim.max_steps=2"]), ("C002", ["tuning.rnk=3"]), ("C001", ["optim.batch_size=0"])):
        raw, _ = read("sft", words(model_folder, data_file, *more))
        with pytest.raises(HoneError) as caught:
            forecast(raw, CPU)
        assert caught.value.code == code
    with pytest.raises(HoneError):
        forecast(read("sft", words(tmp_path, data_file))[0], CPU)
    assert main(["plan", "sft", *words(model_folder, data_file), "--price", "much"]) == 2


def test_batches_are_filled_by_the_same_rule() -> None:
    from hone.data.sharing import fill, size
    from tests import nets

    groups = nets.singles(20)
    chosen = fill([size(group) for group in groups], 60)
    assert [[origin.row - 1 for origin in batch.origins] for batch in micro_batches(groups, 60)] == chosen
