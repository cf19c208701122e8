"""AdaLoRA really prunes: through our loop the ranks end at the target, exactly, and stay there (peers' trainers never prune)."""

from __future__ import annotations

import pytest
import torch

from hone.core.errors import HoneError
from hone.data.offline import Offline
from hone.objectives import OBJECTIVES
from hone.train.engine import Engine
from hone.train.loop import BaseHook, State, train
from hone.train.optim import OptimSettings
from hone.tuning.adalora import AdaLora, svd_layers
from tests import nets


class Ranks(BaseHook):
    """Writes down how many singular values are not zero after each step."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def stepped(self, state: State) -> None:
        self.seen.append(sum(int((layer.e != 0).sum()) for layer in svd_layers(state.engine.policy.model).values()))


def ranks(tuning: AdaLora, epochs: float = 6.0) -> tuple[list[int], int]:
    engine = Engine(nets.policy(nets.llama, tuning, moved=False), OptimSettings(learning_rate=1e-2))
    seen = Ranks()
    train(
        engine,
        Offline(nets.singles(), step_groups=5, budget=200, epochs=epochs, max_steps=None, seed=0, shuffle=True),
        OBJECTIVES["sft"],
        (seen,),
    )
    return seen.seen, len(svd_layers(engine.policy.model))


def test_the_ranks_end_at_the_target_and_are_shared_out() -> None:
    tuning = AdaLora(rank=6, target_rank=2, warmup=0.2, settle=0.3, every=1)
    seen, matrices = ranks(tuning)
    assert len(seen) == 12
    assert seen[0] == 6 * matrices
    assert seen == sorted(seen, reverse=True)
    assert seen[tuning.last_cut(12) - 1 :] == [2 * matrices] * 4


def test_the_budget_falls_as_a_cube_between_its_ends() -> None:
    tuning = AdaLora(rank=12, target_rank=8, warmup=0.1, settle=0.3)
    assert [tuning.budget(step, 100) for step in (1, 10, 40, 70, 100)] == [12, 12, 8 + 4 * 0.5**3, 8, 8]


@pytest.mark.parametrize("epochs", [0.5, 1.0])
def test_even_a_run_of_one_or_two_steps_ends_at_the_target(epochs: float) -> None:
    seen, matrices = ranks(AdaLora(rank=4, target_rank=3), epochs)
    assert seen[-1] == 3 * matrices


def test_ranks_only_go_down() -> None:
    with pytest.raises(HoneError, match="M004"):
        AdaLora(rank=4, target_rank=8).attach(nets.llama(), seed=0)


def test_the_penalty_is_zero_for_vectors_at_right_angles() -> None:
    model = nets.llama()
    tuning = AdaLora(rank=4, target_rank=2)
    tuning.attach(model, seed=0)
    assert tuning.penalty(model) > 0.1
    with torch.no_grad():
        for layer in svd_layers(model).values():
            torch.nn.init.orthogonal_(layer.a)
            torch.nn.init.orthogonal_(layer.b)
    assert tuning.penalty(model) < 1e-5
