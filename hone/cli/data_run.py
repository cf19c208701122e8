"""What a run did with a row: its settings, its tokenizer, and the fate in its ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.core.types import Origin
from hone.data.ledger import Fate, Ledger
from hone.data.reading import Reading
from hone.data.settings import DataSettings

if TYPE_CHECKING:
    from hone.data.quality import Gauge


def of_run(run: Path, file: str, row: int) -> tuple[Reading, Gauge, Fate]:
    """How a run reads a row, how it counts tokens, and what became of the row.

    Raises F061 where there is no run, F062 where its settings are damaged, and D040 where the run never saw the row.
    """
    from hone.data.chat import ChatTemplate
    from hone.data.quality import Gauge
    from hone.models.hub import fetch_small
    from hone.models.locate import local_folder
    from hone.models.tokens import load_tokenizer
    from hone.recipe.written import resolved_of

    if not (run / "ledger.json").is_file():
        raise HoneError("F061", "there is no run folder with a ledger here", where=str(run), fix="give the folder that `hone train` wrote")
    fate = _fate(Ledger.load(run / "ledger.json"), file, row)
    resolved = resolved_of(run)
    settings = parse(DataSettings, resolved["data"], section="data")
    name = resolved["model"]["name"]
    tokenizer = load_tokenizer(local_folder(name) or fetch_small(name)[0])
    return Reading.of(settings), Gauge(tokenizer, ChatTemplate.of(tokenizer, settings.template), settings), fate


def _fate(ledger: Ledger, file: str, row: int) -> Fate:
    sources = {origin.source for origin in ledger.fates}
    for source in sorted(sources):
        if Path(source).resolve() == Path(file).resolve() and (fate := ledger.fate(Origin(source, row))) is not None:
            return fate
    raise HoneError("D040", f"the run saw no row {row} of this file", where=file, fix=f"it read {', '.join(sorted(sources))}")
