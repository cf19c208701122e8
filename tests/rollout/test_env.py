"""Turns with an environment: only the model's own tokens are learned, and they are exactly those that it saw and wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from examples.till import Till
from hone.core.errors import HoneError
from hone.core.types import Message, Origin
from hone.data.batching import pack
from hone.data.chat import ChatTemplate
from hone.rollout.answer import Answer
from hone.rollout.env import Reply, multi_turn, spoken
from hone.rollout.prompts import Prompt
from hone.rollout.sample import Sampler
from tests.rollout import studio

TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ '<tool_call>' + (call['function'] | tojson) + '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ADD = '<tool_call>{"name": "add", "arguments": {"price": 7}}</tool_call>'
TOTAL = '<tool_call>{"name": "total", "arguments": {}}</tool_call>'


class Script:
    """A writer that says lines of a play, as tokens that end with the end marker."""

    def __init__(self, tokenizer: Any, *lines: str) -> None:
        self.tokenizer, self.lines, self.seen = tokenizer, [*lines], []  # type: ignore[var-annotated]

    def generate(self, prompts: Any, *, stop_ids: Any = (), **sampling: Any) -> list[Answer]:
        self.seen.append([list(prompt) for prompt in prompts])
        line = self.lines.pop(0)
        tokens = [*self.tokenizer.encode(line, add_special_tokens=False), studio.END]
        return [Answer(tokens, [-0.5] * len(tokens), "stop", line) for _ in prompts]


@pytest.fixture
def template(tiny_tokenizer: Any) -> ChatTemplate:
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = TOOLS
    return ChatTemplate.of(tokenizer)


def question(template: ChatTemplate, answer: str = "12") -> Prompt:
    asked = (Message("user", "A lamp is 7 coins and a rope is 5. What do I pay?"),)
    return Prompt(asked, template.prompt_ids(asked), {"answer": answer}, Origin("p", 1))


def test_a_scripted_round_at_the_till(template: ChatTemplate, tiny_tokenizer: Any) -> None:
    script = Script(tiny_tokenizer, f"{ADD} {ADD.replace('7', '5')}", TOTAL, "That is 12")
    (draft,) = multi_turn(script, template, Till)([question(template)], 0, {})
    assert draft.earned == {"said": 1.0, "rung_up": 0.2}
    text = tiny_tokenizer.decode(draft.sequence.tokens)
    wanted = (
        "<|im_start|>user\nA lamp is 7 coins and a rope is 5. What do I pay?<|im_end|>\n<|im_start|>assistant\n"
        f"{ADD} {ADD.replace('7', '5')}<|im_end|>\n<|im_start|>tool\nok<|im_end|>\n<|im_start|>tool\nok<|im_end|>\n<|im_start|>assistant\n"
        f"{TOTAL}<|im_end|>\n<|im_start|>tool\n12 coins<|im_end|>\n<|im_start|>assistant\nThat is 12<|im_end|>"
    )
    assert text.startswith("<|im_start|>system\n[{") and text.endswith(wanted)
    learned = [token for token, weight in zip(draft.sequence.tokens, draft.sequence.weights, strict=True) if weight]
    assert tiny_tokenizer.decode(learned) == f"{ADD} {ADD.replace('7', '5')}<|im_end|>{TOTAL}<|im_end|>That is 12<|im_end|>"
    old = draft.sequence.facts["old_logp"]
    assert isinstance(old, list) and [logp != 0 for logp in old] == [weight != 0 for weight in draft.sequence.weights]
    assert [len(seen) for seen in script.seen] == [1, 1, 1]
    assert draft.sequence.tokens[: len(script.seen[2][0])] == script.seen[2][0], "what was seen is what is trained"


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("That is 11", {"said": 0.0, "rung_up": 0.0}),
        ("<tool_call>{no json</tool_call>", {"said": 0.0, "rung_up": 0.0}),
    ],
)
def test_what_is_no_call_ends_the_round(template: ChatTemplate, tiny_tokenizer: Any, line: str, result: dict[str, float]) -> None:
    (draft,) = multi_turn(Script(tiny_tokenizer, line), template, Till)([question(template)], 0, {})
    assert draft.earned == result


def test_a_wrong_call_is_told_and_never_raised(template: ChatTemplate, tiny_tokenizer: Any) -> None:
    wrong = '<tool_call>{"name": "pay", "arguments": {"price": "many"}}</tool_call>'
    (draft,) = multi_turn(Script(tiny_tokenizer, wrong, wrong), template, Till, turns=2)([question(template)], 0, {})
    assert draft.earned == {} and "the till knows" in tiny_tokenizer.decode(draft.sequence.tokens)


@pytest.mark.parametrize(
    "text", ["", "plain", "<tool_call>[1]</tool_call>", '<tool_call>{"name": 3}</tool_call>', "<tool_call>" + "[" * 5000]
)
def test_odd_text_is_just_text(text: str) -> None:
    assert spoken(text) == Message("assistant", text)


def test_the_sampler_plays_and_what_it_sampled_is_what_is_trained(
    template: ChatTemplate, tiny_llama: Callable[..., PreTrainedModel], tiny_tokenizer: Any
) -> None:
    class Echo:
        tools = ()

        def reset(self, prompt: Prompt) -> Any:
            self.left = 2
            return prompt.conversation

        def step(self, said: Message) -> Reply:
            self.left -= 1
            return Reply((Message("user", "And then?"),), {"turns": 1.0}, done=self.left < 0)

    engine = studio.engine(studio.lively(tiny_llama()))
    pen = multi_turn(Sampler(engine.policy.model, tiny_tokenizer), template, Echo)
    sampling = {"max_new_tokens": 60, "temperature": 40.0}
    drafts = pen([question(template)] * 24, 3, sampling)
    assert max(draft.earned["turns"] for draft in drafts) > 1 and len({tuple(d.sequence.tokens) for d in drafts}) > 12
    batch = pack([(draft.sequence,) for draft in drafts])
    with torch.no_grad():
        logp_N = engine.policy.signals(batch, "logp").logp
    torch.testing.assert_close(logp_N, batch.facts["old_logp"], rtol=0, atol=1e-5)
    assert [d.sequence.tokens for d in pen([question(template)] * 24, 3, sampling)] == [d.sequence.tokens for d in drafts]


def test_a_template_that_rewrites_history_is_refused(tiny_tokenizer: Any) -> None:
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = TOOLS.replace(
        "message['content'] }}", "(message['content'] if loop.last or message['role'] != 'assistant' else 'gone') }}"
    )
    template = ChatTemplate.of(tokenizer)
    with pytest.raises(HoneError) as caught:
        multi_turn(Script(tiny_tokenizer, f"first {TOTAL}", "x"), template, Till)([question(template)], 0, {})
    assert caught.value.code == "R012"
