"""The picture of a plan: phases as bars of coloured parts against the memory that there is, and the figures in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from hone.cli.style import pairs, paragraph
from hone.plan.fit import summary
from hone.report.numbers import duration, percent, short, size, whole
from hone.report.tables import settings_table

if TYPE_CHECKING:
    from hone.plan.clock import Time
    from hone.plan.memory import Phase
    from hone.recipe.forecast import Forecast, Tokens

STYLES = {
    "weights": ("█", "blue"), "other models": ("█", "bright_blue"), "adapter": ("▓", "cyan"), "masters": ("▓", "bright_cyan"),
    "optimiser": ("▓", "magenta"), "gradients": ("▒", "bright_magenta"), "activations": ("█", "green"), "loss": ("▒", "yellow"),
    "backward": ("▒", "bright_green"), "keys and values": ("█", "bright_yellow"), "logits": ("▒", "bright_yellow"),
    "dequantised": ("░", "bright_blue"), "one layer": ("░", "cyan"), "copy": ("░", "white"), "device": ("░", "bright_black"),
    "fragments": ("░", "red"),
}  # fmt: skip
PLAIN = dict(zip(STYLES, "WOaMmGALbKlqrcdf", strict=True))
"""Where the terminal has no such characters, each part is a letter."""
NAME, FIGURE = 13, 9


def show(found: Forecast, out: Console, *, notes: Sequence[str] = (), seconds: float | None = None) -> None:
    """The whole plan, in any width from 60 columns on."""
    for note in (*notes, *found.notes):
        paragraph(out, note, style="dim")
    name = str(found.settings["model"]["name"])
    exact = "" if found.facts.exact else "about "
    moving = f"{whole(found.adapters.trainable)} move ({percent(found.adapters.trainable / max(1, found.facts.parameters))})"
    tokens = found.tokens
    rows = [
        ("model", f"{name}: {exact}{whole(found.facts.parameters)} parameters, {moving}"),
        ("data", f"{whole(tokens.rows)} rows to train, {whole(tokens.held_out)} held out"),
        ("tokens", _tokens(tokens)),
        ("lengths", f"half below {whole(tokens.median)}, longest {whole(tokens.longest)}; {percent(tokens.truncated)} of the rows are cut"),
        ("padding", f"none, packed ({percent(tokens.padding)} if rows were padded side by side)"),
        ("steps", _steps(found)),
    ]
    pairs(out, rows)
    out.print()
    _memory(found, out)
    out.print()
    pairs(out, [*_limits(found), *_effort(found)])
    if found.ways:
        out.print()
        _ways(found, out)
    if found.reasons:
        out.print(settings_table({**found.settings, "reasons": found.reasons}))
    if seconds is not None:
        paragraph(out, f"planned in {seconds:.1f} s", style="dim")


def _steps(found: Forecast) -> str:
    rows = found.settings["optim"]["batch_size"]
    return f"{whole(found.steps)} of {rows} rows, micro-batches of up to {whole(found.work.tokens)} tokens"


def _tokens(tokens: Tokens) -> str:
    learned = f"{whole(tokens.learned)} learned ({percent(tokens.learned / max(1, tokens.tokens))})"
    if tokens.exact:
        return f"{whole(tokens.tokens)} in a pass, {learned}"
    return f"about {short(tokens.tokens)} in a pass ({short(tokens.low)} to {short(tokens.high)}), {learned}"


def _memory(found: Forecast, out: Console) -> None:
    """A bar for each phase, a mark where the machine ends, and a legend of the parts that can be seen."""
    capacity, top = found.machine.usable, max(found.memory.peak, min(found.machine.usable, 1.6 * found.memory.peak))
    width = max(16, min(64, out.width - NAME - FIGURE - 3))
    verdict = "fits" if found.fits else "does not fit"
    style = "bold green" if found.fits else "bold red"
    head = Text.assemble(("memory  ", "bold"), (f"{size(found.memory.peak)} of {size(capacity)} on {found.machine.name}: {verdict}", style))
    out.print(head, soft_wrap=True)
    edge = round(capacity / top * width) if capacity <= top else None
    for phase in found.memory.phases:
        fullest = phase.name == found.memory.fullest.name
        out.print(_bar(phase, width, top, edge=edge, fullest=fullest, plain=out.options.ascii_only), no_wrap=True, overflow="crop")
    seen = {part for phase in found.memory.phases for part, n in phase.parts.items() if n / top * width >= 0.5}
    for line in _legend([part for part in STYLES if part in seen], out.width, plain=out.options.ascii_only):
        out.print(line, soft_wrap=True)
    biggest = found.memory.dominating
    share = found.memory.fullest.parts[biggest] / found.memory.peak
    paragraph(out, f"fullest in {found.memory.fullest.name}; {biggest} are {percent(share)} of it", style="dim")


def _bar(phase: Phase, width: int, top: float, *, edge: int | None, fullest: bool, plain: bool) -> Text:
    line = Text(f"  {phase.name:<{NAME - 2}}", style="bold" if fullest else "")
    drawn, total = 0, 0.0
    for part in STYLES:
        total += phase.parts.get(part, 0)
        until = round(total / top * width)
        mark, style = STYLES[part]
        line.append((PLAIN[part] if plain else mark) * (until - drawn), style)
        drawn = until
    rest = [" "] * (width - drawn + 1)
    if edge is not None and edge >= drawn:
        rest[edge - drawn] = "|" if plain else "▏"
    line.append("".join(rest), "red")
    return line.append(f"{size(phase.total):>{FIGURE}}", "bold" if fullest else "dim")


def _legend(parts: Sequence[str], width: int, *, plain: bool) -> list[Text]:
    """What the marks mean, none of them parted from its name."""
    lines = [Text("  ")]
    for part in parts:
        mark, style = STYLES[part]
        one = Text.assemble((PLAIN[part] if plain else mark, style), (f" {part}   ", "dim"))
        if len(lines[-1]) + len(one) > width and len(lines[-1]) > 2:
            lines.append(Text("  "))
        lines[-1].append_text(one)
    return lines


def _limits(found: Forecast) -> list[tuple[str, str]]:
    context = found.facts.context
    longest = f"{whole(found.longest_context)} tokens, computing blocks again"
    if context is not None and found.longest_context > context:
        longest += f" (the model takes {whole(context)})"
    return [("largest batch", f"{whole(found.largest_batch)} tokens side by side"), ("longest row", longest)]


def _effort(found: Forecast) -> list[tuple[str, str]]:
    rows = [("time", _time(found.time) if found.time else "unknown: no speed is known of this machine (name it with --gpu, or --probe)")]
    if found.time is not None and found.machine.device == "cuda":
        rows.append(("GPU-hours", short(found.time.seconds / 3600)))
    if found.time is not None and found.time.kwh is not None:
        rows.append(("energy", f"{short(found.time.kwh)} kWh at {short(found.machine.watts or 0)} W"))
    if found.time is not None and found.time.money is not None:
        rows.append(("price", short(found.time.money)))
    kept = found.disk
    artifact = f"{size(kept['artifact'])} for {whole(found.adapters.added)} numbers" if found.adapters.added else size(kept["artifact"])
    disk = f"checkpoints up to {size(kept['checkpoints'])}; merged {size(kept['merged'])}"
    return [*rows, ("adapter" if found.adapters.added else "saved model", artifact), ("disk", disk)]


def _time(time: Time) -> str:
    return f"{duration(time.seconds)} ({duration(time.low)} to {duration(time.high)}; {time.basis})"


def _ways(found: Forecast, out: Console) -> None:
    paragraph(out, "what would make it fit, cheapest first:", style="bold")
    for i, way in enumerate(found.ways, start=1):
        words = " ".join(f"{key}={value}".replace("True", "true") for key, value in way.settings.items())
        paragraph(out, f"{i}. {words}", indent=2, style="bold")
        costs = "; ".join(change.why for change in way.changes)
        paragraph(out, f"{size(way.peak)}, about {way.slower:.2g} times the time. {costs}", indent=5, style="dim")


def as_document(found: Forecast) -> dict[str, Any]:
    """The plan as plain JSON; sizes in bytes, times in seconds."""
    hidden = ("sizes", "reads", "eval_sizes")
    tokens = {key: value for key, value in asdict(found.tokens).items() if key not in hidden}
    ways = [
        {"settings": way.settings, "peak": way.peak, "slower": round(way.slower, 3), "why": [c.why for c in way.changes]}
        for way in found.ways
    ]
    return {
        "settings": _plain(found.settings), "reasons": dict(found.reasons), "model": asdict(found.facts),
        "adapter": found.adapters._asdict(),
        "tokens": tokens, "steps": found.steps, "machine": asdict(found.machine) | {"usable": found.machine.usable},
        "memory": summary(found.memory), "fits": found.fits, "ways": ways, "largest_batch": found.largest_batch,
        "longest_context": found.longest_context, "time": asdict(found.time) if found.time else None, "disk": dict(found.disk),
        "notes": list(found.notes),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
