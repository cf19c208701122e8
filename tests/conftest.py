"""What all tests share: a quiet environment, the folder of real data, tiny models and a tiny tokenizer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Before torch or the hub's library is imported, for both read these only once.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

ROOT = Path(__file__).parents[1]
Work = Callable[..., int]
VOCABULARY = 384
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = "The harbour of the town opens at six. When does the next ship to the island leave? It leaves at half past seven, said the baker."


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data, weights and templates beside the repository, or where HONE_SHARED says."""
    folder = Path(os.environ.get("HONE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"the folder with real data, {folder.name}, is not beside the repository (HONE_SHARED names another place)")
    return folder


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., PreTrainedModel]:
    """`tiny_llama(seed=0, **config)`: a new random Llama of 2 layers with grouped queries, in fp32, its words those of `tiny_tokenizer`."""

    def build(seed: int = 0, **config: Any) -> PreTrainedModel:
        from transformers import LlamaConfig, LlamaForCausalLM

        return _seeded(seed, lambda: LlamaForCausalLM(LlamaConfig(**SHAPE | config)))

    return build


@pytest.fixture(scope="session")
def tiny_qwen3() -> Callable[..., PreTrainedModel]:
    """`tiny_qwen3(seed=0, **config)`: the same as a Qwen3, with norms on queries and keys and tied embeddings."""

    def build(seed: int = 0, **config: Any) -> PreTrainedModel:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        return _seeded(seed, lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE | {"tie_word_embeddings": True} | config)))

    return build


def _seeded(seed: int, make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().float().eval()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 384 tokens with ChatML's special tokens and template: 0 <|endoftext|>, 1 <|im_end|>, 2 <|im_start|>.

    Do not change it; a test that needs another one takes a deep copy.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator([WORDS], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=special[0], eos_token=special[1], additional_special_tokens=special[2:])
    made.chat_template = CHATML
    return made


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_qwen3: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A tiny Qwen3 with its tokenizer, in a folder."""
    folder = tmp_path_factory.mktemp("model")
    tiny_qwen3().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """`work(words, fault="", kill_after=None, log=None)` runs `hone words...` and returns how it ended."""
    logs = tmp_path_factory.mktemp("logs")
    shop = subprocess.Popen(
        [sys.executable, "-m", "tests.workshop"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )

    def run(words: list[str], *, fault: str = "", kill_after: float | None = None, log: Path | None = None) -> int:
        assert shop.stdin is not None and shop.stdout is not None
        order = {"words": words, "fault": fault, "kill_after": kill_after, "log": str(log or logs / "last.txt")}
        print(json.dumps(order), file=shop.stdin, flush=True)
        answer = shop.stdout.readline()
        assert answer, "the workshop has died"
        return int(answer)

    yield run
    assert shop.stdin is not None
    shop.stdin.close()
    shop.wait(timeout=60)
    if shop.stdout is not None:
        shop.stdout.close()
