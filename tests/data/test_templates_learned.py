"""Which tokens are learned, for 25 real chat templates without `{% generation %}` marks: what the assistant says and its end marker."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hone.core.errors import HoneError
from hone.core.types import Conversation, Message
from tests.data.chat_kit import Kit, chat, kit, learned, nfc


class Way(NamedTuple):
    """How a template writes an answer: what the model must write before it (when it is not the last, and when it is), and after it."""

    end: str
    last: str = ""
    earlier: str | None = None
    trims: bool = False
    call: str | None = None
    """What is learned of the tool call in the goldens; None if the template takes none."""

    def answer(self, content: str, *, last: bool) -> str:
        before = self.last if last or self.earlier is None else self.earlier
        return before + (content.strip() if self.trims else content) + self.end


ARGUMENTS = '{"city": "Paris", "days": 2}'
HERMES = f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
CODER = "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
COHERE = f'<|START_ACTION|>[\n    {{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {ARGUMENTS}}}\n]<|END_ACTION|>'
DSML = (
    '\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>'
)
WAYS = {
    "Cohere2MoE": Way("<|END_TEXT|><|END_OF_TURN_TOKEN|>", "<|START_TEXT|>", call=f"{COHERE}<|END_OF_TURN_TOKEN|>"),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": Way(
        "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>", "<|START_RESPONSE|>", call=f"{COHERE}<|END_OF_TURN_TOKEN|>"
    ),
    "GigaChat3-10B-A1.8B": Way(
        "<|message_sep|>",
        call=f'<|message_sep|>\n\nfunction call<|role_sep|>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}<|message_sep|>',
    ),
    "Kimi-K2-Instruct": Way("<|im_end|>"),
    "Kimi-K2-Thinking": Way("<|im_end|>", "<think></think>"),
    "LFM2-8B-A1B": Way("<|im_end|>"),
    "LFM2.5-Instruct": Way("<|im_end|>"),
    "MiMo-VL": Way("<|im_end|>", call=f"{HERMES}<|im_end|>"),
    "Qwen-Qwen2.5-7B-Instruct": Way("<|im_end|>", call=f"{HERMES}<|im_end|>"),
    "Qwen3-Coder": Way("<|im_end|>", call=f"{CODER}<|im_end|>"),
    "Reka-Edge": Way("\n\n<sep>", " ", call=f" {HERMES}\n\n<sep>"),
    "StepFun3.5-Flash": Way("<|im_end|>", "\n</think>\n", "", call=f"\n</think>\n{CODER}<|im_end|>"),
    "deepseek-ai-DeepSeek-V4": Way("<｜end▁of▁sentence｜>", call=f"{DSML}<｜end▁of▁sentence｜>"),
    "google-gemma-2-2b-it": Way("<end_of_turn>", trims=True),
    "ibm-granite-granite-3.3-2B-Instruct": Way("<|end_of_text|>"),
    "meetkai-functionary-medium-v3.1": Way("<|eot_id|>", call=f"<function=get_weather>{ARGUMENTS}</function><|eom_id|>"),
    "meetkai-functionary-medium-v3.2": Way("<|eot_id|>", "all\n", call=f"get_weather\n{ARGUMENTS}<|eot_id|>"),
    "meta-llama-Llama-3.1-8B-Instruct": Way(
        "<|eot_id|>", trims=True, call=f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}<|eot_id|>'
    ),
    "microsoft-Phi-3.5-mini-instruct": Way("<|end|>"),
    "mistralai-Mistral-Nemo-Instruct-2407": Way(
        "<EOS>", call=f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {ARGUMENTS}, "id": "call_1___"}}]<EOS>'
    ),
    "moonshotai-Kimi-K2": Way(
        "<|im_end|>",
        call="<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        f"{ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|><|im_end|>",
    ),
}
UNSTABLE = {"Cohere2MoE", "CohereForAI-c4ai-command-r7b-12-2024-tool_use", "StepFun3.5-Flash"}
"""Templates whose prompt is not the beginning of the whole, in a plain chat."""
NO_SYSTEM = {"google-gemma-2-2b-it", "mistralai-Mistral-Nemo-Instruct-2407"}
ENDLESS = {"GLM-4.7-Flash", "llama-cpp-rwkv-world"}
FAILING = {"MiroThinker", "fireworks-ai-llama-3-firefunction-v2"}


@pytest.fixture(scope="module")
def real(shared: Path) -> Kit:
    return kit(shared)


def test_every_template_is_accounted_for(real: Kit) -> None:
    names = {name.removesuffix(".jinja") for name in real.goldens["goldens"]}
    assert names == set(WAYS) | ENDLESS | FAILING


@pytest.mark.parametrize("name", WAYS)
def test_the_answers_and_their_end_markers_are_learned_and_nothing_else(real: Kit, name: str) -> None:
    way, template = WAYS[name], real.template(name)
    for context in ("chat", "system"):
        conversation, _ = real.context(context)
        if context == "system" and name in NO_SYSTEM:
            with pytest.raises(HoneError, match="system message") as caught:
                template.sequence(conversation)
            assert caught.value.code == "T007"
            continue
        sequence = template.sequence(conversation)
        assert learned(real.tokenizer, sequence) == [way.answer("4.", last=False), way.answer("谢谢。\n<b>ok</b>", last=True)]
        assert set(sequence.weights) == {0.0, 1.0}
        assert real.tokenizer.decode(sequence.tokens) == template.text(conversation)


@pytest.mark.parametrize("name", WAYS)
def test_a_tool_call_is_learned_as_the_template_writes_it_or_refused(real: Kit, name: str) -> None:
    way, template = WAYS[name], real.template(name)
    conversation, tools = real.context("tools")
    if way.call is None:
        with pytest.raises(HoneError) as caught:
            template.sequence(conversation, tools=tools)
        assert caught.value.code == "T007"
    else:
        sequence = template.sequence(conversation, tools=tools)
        assert learned(real.tokenizer, sequence) == [way.call, way.answer("It is 21 degrees.", last=True)]


@pytest.mark.parametrize("name", WAYS)
def test_the_model_learns_to_stop(real: Kit, name: str) -> None:
    template = real.template(name)
    sequence = template.sequence(chat("Hi", "Hello", "Bye", "See you"))
    ends = [i for i, weight in enumerate(sequence.weights) if weight and (i + 1 == len(sequence.weights) or not sequence.weights[i + 1])]
    assert len(ends) == 2
    assert all(sequence.tokens[end] in template.stop_ids for end in ends)
    assert template.end_text.endswith(WAYS[name].end.strip())


@pytest.mark.parametrize("name", WAYS)
def test_the_prompt_and_the_learned_tokens_make_up_the_sequence_or_a_note_says_that_they_do_not(real: Kit, name: str) -> None:
    template = real.template(name)
    conversation = chat("What is 2+2?", "4.", "And 3+3?", "6.")
    stable = [_is_prefix(real, name, conversation, i) for i in (1, 3)]
    assert all(stable) == (name not in UNSTABLE)
    assert any(note.startswith("T011") for note in template.notes) == (name in UNSTABLE)


def _is_prefix(real: Kit, name: str, conversation: Conversation, i: int) -> bool:
    template = real.template(name)
    prompt, sequence = template.prompt_ids(conversation[:i]), template.sequence(conversation)
    start = len(prompt)
    return sequence.tokens[:start] == prompt and not sequence.weights[start - 1] and bool(sequence.weights[start])


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_a_template_without_end_marker_is_refused_and_mended_by_eos(real: Kit, name: str) -> None:
    with pytest.raises(HoneError) as caught:
        real.template(name).sequence(chat("Hi", "Hello"))
    assert caught.value.code == "T001"
    assert "auto+eos" in caught.value.fix
    mended = real.template(name, "auto+eos")
    spans = learned(real.tokenizer, mended.sequence(chat("Hi", "Hello", "Bye", "See you")))
    before = {"GLM-4.7-Flash": "</think>", "llama-cpp-rwkv-world": " "}[name]
    assert spans == [f"{before}Hello<EOS>", f"{before}See you<EOS>"]
    real.tokenizer.chat_template = mended.source
    as_saved = real.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}], tokenize=False
    )
    assert as_saved == mended.text(chat("Hi", "Yes"))


def test_tool_calls_stay_refused_where_nothing_ends_them(real: Kit) -> None:
    conversation, tools = real.context("tools")
    for variant in ("auto", "auto+eos"):
        with pytest.raises(HoneError) as caught:
            real.template("GLM-4.7-Flash", variant).sequence(conversation, tools=tools)
        assert caught.value.code == "T001"


def test_a_template_gets_the_variables_that_it_needs(real: Kit) -> None:
    template = real.template("fireworks-ai-llama-3-firefunction-v2", functions="[]", datetime="noon")
    assert learned(real.tokenizer, template.sequence(chat("Hi", "Hello", "Bye", "See you"))) == ["Hello<|eot_id|>", "See you<|eot_id|>"]


SAYINGS = st.one_of(
    st.text(min_size=1, max_size=30),
    st.text(alphabet=" \n\t\u3000abc<|>é́", min_size=1, max_size=12),
    st.sampled_from(
        ["{{ 7 * 7 }}", "{% for x in y %}", "ok", "o", "Hn00001Q", "Zn00000Q", "assistant\n", "#}", "\u200d👩‍👩‍👧", '{"a": "\\n"}']
    ),
)


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(SAYINGS.filter(str.strip), min_size=2, max_size=4).filter(lambda made: len(made) % 2 == 0), same=st.booleans())
def test_whatever_is_said_is_learned_exactly(real: Kit, name: str, contents: list[str], same: bool) -> None:
    way, template = WAYS[name], real.template(name)
    conversation = chat(*([contents[0]] * len(contents) if same else contents))
    sequence = template.sequence(conversation)
    answers = [message.content for message in conversation if message.role == "assistant"]
    expected = [way.answer(content, last=i == len(answers) - 1) for i, content in enumerate(answers)]
    assert [nfc(text) for text in learned(real.tokenizer, sequence)] == [nfc(text) for text in expected]
    assert nfc(real.tokenizer.decode(sequence.tokens)) == nfc(template.text(conversation))
    if name not in UNSTABLE:
        assert all(_is_prefix(real, name, conversation, i) for i in range(1, len(conversation), 2))


@pytest.mark.parametrize("content", ["", " ", "\n"])
@pytest.mark.parametrize("name", WAYS)
def test_an_empty_answer_is_learned_as_its_end_marker(real: Kit, name: str, content: str) -> None:
    way, template = WAYS[name], real.template(name)
    conversation = chat("Hi", "Hello", "Say nothing", content)
    if name == "meetkai-functionary-medium-v3.2" and not content:
        with pytest.raises(HoneError, match="does not show where this answer begins"):
            template.sequence(conversation)
    else:
        assert learned(real.tokenizer, template.sequence(conversation))[-1] == way.answer(content, last=True)


def test_the_same_question_twice_with_tools(real: Kit) -> None:
    template = real.template("mistralai-Mistral-Nemo-Instruct-2407")
    _, tools = real.context("tools")
    sequence = template.sequence((*chat("Again?", "Yes.", "Again?", "Again?"),), tools=tools)
    assert learned(real.tokenizer, sequence) == ["Yes.<EOS>", "Again?<EOS>"]


def test_weights_of_messages_overrule_the_policy(real: Kit) -> None:
    template = real.template("Qwen-Qwen2.5-7B-Instruct")
    conversation = (
        Message("user", "One?", weight=1.0),
        Message("assistant", "Yes.", weight=0.0),
        Message("user", "Two?"),
        Message("assistant", "Sure.", weight=0.5),
    )
    sequence = template.sequence(conversation)
    assert learned(real.tokenizer, sequence) == ["One?", "Sure.<|im_end|>"]
    assert set(sequence.weights) == {0.0, 0.5, 1.0}
