"""Two processes write a rollout together: each a half, in streams of their own, and both end with the same whole and the same verdict."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.core.types import Origin, Sequence
from hone.core.world import World
from hone.rollout.draft import Draft
from hone.rollout.prompts import Prompt
from hone.rollout.ranks import agreed, shared
from hone.rollout.rewards import Verdict

PROMPTS = [Prompt((), [10 + i], {}, Origin("p", i)) for i in range(3) for _ in range(3)]


def writer(world: World) -> Any:
    """Writes who wrote, and in which stream."""

    def pen(prompts: Any, seed: int, sampling: Any) -> list[Draft]:
        return [Draft(Sequence([*prompt.ids, seed], [0.0, 1.0]), f"rank {world.rank}", 1, True) for prompt in prompts]

    return pen


def refuse() -> Verdict:
    raise HoneError("R001", "it returned nan, not a number", where="row 3", fix="mend it")


def one_rank(out: str) -> None:
    """What each of the two processes does."""
    world = World.join()
    drafts = shared(writer(world), world)(PROMPTS, 40, {})
    lonely = shared(writer(world), world)(PROMPTS[:1], 40, {})
    judged = agreed(world)(lambda: Verdict([float(world.rank), None], {"own": [0.1 + 0.2]}, {"own": 1.0}))
    try:
        agreed(world)(refuse)
    except HoneError as error:
        raised = [error.code, error.where]
    found = {"texts": [d.text for d in drafts], "tokens": [d.sequence.tokens for d in drafts], "judged": asdict(judged), "raised": raised}
    Path(out).write_text(json.dumps(found | {"lonely": [d.text for d in lonely]}))


def test_each_rank_writes_its_share_and_all_learn_from_all(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = "from tests.rollout.test_ranks import one_rank; import sys; one_rank(sys.argv[1])"
    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    files = [tmp_path / f"{rank}.json" for rank in range(2)]
    ranks = [
        subprocess.Popen([sys.executable, "-c", script, str(file)], env=env | {"RANK": str(rank)}, cwd=Path(__file__).parents[2])
        for rank, file in enumerate(files)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    one, other = (json.loads(file.read_text()) for file in files)
    assert one == other, "ranks that hold different answers would each learn something else"
    assert [tokens[0] for tokens in one["tokens"]] == [prompt.ids[0] for prompt in PROMPTS], "in the order of the prompts"
    assert one["texts"] == ["rank 0"] * 4 + ["rank 1"] * 5 and one["lonely"] == ["rank 1"]
    assert {tokens[1] for tokens in one["tokens"]} == {40, 41}, "in streams of their own"
    assert one["judged"] == {"totals": [0.0, None], "parts": {"own": [0.1 + 0.2]}, "weights": {"own": 1.0}}, "as rank 0 says, to the bit"
    assert one["raised"] == ["R001", "row 3"]


def test_one_process_is_left_alone() -> None:
    world = World()
    pen = writer(world)
    verdict = Verdict([1.0], {}, {})
    assert shared(pen, world) is pen and agreed(world)(lambda: verdict) is verdict
