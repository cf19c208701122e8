"""Chat templates as users choose them: the tokenizer's own, the formats for base models, and what each cannot do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hone.core.errors import HoneError, catalogue
from hone.core.types import Message, Sequence
from hone.data.chat import ChatTemplate
from hone.data.templating import names
from tests.data.chat_kit import chat, learned

Make = Callable[..., ChatTemplate]
CALL = {"id": "call_0001", "type": "function", "function": {"name": "find", "arguments": {"word": "sea"}}}
TOOL = {"type": "function", "function": {"name": "find", "description": "Find a word.", "parameters": {"type": "object", "properties": {}}}}
START, END, ENDED = "'<|im_start|>'", "'<|im_end|>'", "<|im_end|>"
SAY = f"{{{{ {START} + message.role + '\\n' + message.content + {END} + '\\n' }}}}"
PROMPT = f"{{% if add_generation_prompt %}}{{{{ {START} + 'assistant\\n' }}}}{{% endif %}}"
EACH, DONE = "{% for message in messages %}", "{% endfor %}"


@pytest.fixture
def tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerBase:
    return copy.deepcopy(tiny_tokenizer)


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerBase) -> Make:
    """A template from its source, on the tiny tokenizer."""

    def build(source: str, name: str = "auto") -> ChatTemplate:
        tokenizer.chat_template = source
        return ChatTemplate.of(tokenizer, name)

    return build


def test_each_answer_the_last_or_everything(tokenizer: PreTrainedTokenizerBase) -> None:
    template = ChatTemplate.of(tokenizer)
    conversation = chat("Hi", "Hello", "Bye", "See you")
    assert learned(tokenizer, template.sequence(conversation)) == [f"Hello{ENDED}", f"See you{ENDED}"]
    assert learned(tokenizer, template.sequence(conversation, learn="last")) == [f"See you{ENDED}"]
    everything = template.sequence(conversation, learn="all")
    assert everything.weights == [1.0] * len(everything.tokens)
    assert everything.tokens == template.sequence(conversation).tokens


def test_a_message_overrules_the_policy_whatever_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    template = ChatTemplate.of(tokenizer)
    first, second = Message("assistant", "Hello", weight=1.0), Message("assistant", "See you", weight=0.0)
    conversation = (Message("user", "Hi"), first, Message("user", "Bye"), second)
    assert learned(tokenizer, template.sequence(conversation, learn="last")) == [f"Hello{ENDED}"]
    assert not any(text.startswith("See") for text in learned(tokenizer, template.sequence(conversation, learn="all")))


def test_a_conversation_without_an_answer_has_no_weight(tokenizer: PreTrainedTokenizerBase) -> None:
    assert ChatTemplate.of(tokenizer).sequence((Message("user", "Hi"),)).learned == 0


def test_many_conversations_at_once_are_the_same_as_one_by_one_and_errors_stay_in_their_place(make: Make) -> None:
    template = make("{% if messages[0].content == 'no' %}{{ raise_exception('I said no') }}{% endif %}" + EACH + SAY + DONE + PROMPT)
    rows = [(chat("Hi", "Hello"), ()), (chat("no", "Why?"), ()), (chat("Hi", "\n\nHello"), ())]
    made = template.sequences(rows)
    assert [made[0], made[2]] == [template.sequence(rows[0][0]), template.sequence(rows[2][0])]
    assert isinstance(made[1], HoneError)
    assert (made[1].code, made[1].what) == ("T008", "the chat template 'own' refuses this conversation: I said no")


def test_thousands_of_conversations_take_seconds(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [(chat(f"How much is {i} and {i}?", f"That is {2 * i}, I believe."), ()) for i in range(2000)]
    started = process_time()
    made = ChatTemplate.of(tokenizer).sequences(rows)
    assert process_time() - started < 10
    assert all(isinstance(sequence, Sequence) and sequence.learned > 5 for sequence in made)


def test_the_formats_for_base_models(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    tokenizer.add_tokens(["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], special_tokens=True)
    conversation = (Message("system", "Be short."), *chat("Hi", "Hello", "Bye", "See you"))
    texts = {name: ChatTemplate.of(tokenizer, name).text(conversation) for name in names()}
    assert texts == {
        "alpaca": "Be short.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n### Instruction:\nBye\n\n### Response:\nSee you</s>",
        "chatml": "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nSee you<|im_end|>\n",
        "llama3": "<|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSee you<|eot_id|>",
        "plain": "Be short.\nHi\nHello</s>\nBye\nSee you</s>\n",
        "vicuna": "Be short. USER: Hi ASSISTANT: Hello</s>USER: Bye ASSISTANT: See you</s>",
        "zephyr": "<|system|>\nBe short.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\nBye</s>\n<|assistant|>\nSee you</s>\n",
    }
    for name in names():
        template = ChatTemplate.of(tokenizer, name)
        sequence, space = template.sequence(conversation), " " if name == "vicuna" else ""
        end = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}.get(name, "</s>")
        assert learned(tokenizer, sequence) == [f"{space}Hello{end}", f"{space}See you{end}"], name
        for i in (2, 4):
            prompt = template.prompt_ids(conversation[:i])
            assert sequence.tokens[: len(prompt)] == prompt, name
            assert sequence.weights[len(prompt) - 1 : len(prompt) + 1] == [0.0, 1.0], name
        assert tokenizer.convert_tokens_to_ids(end) in template.stop_ids
        assert template.end_text == end
        assert template.notes == ()


def test_alpaca_and_vicuna_begin_as_they_always_do(tokenizer: PreTrainedTokenizerBase) -> None:
    task = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n1, 2"
    assert ChatTemplate.of(tokenizer, "alpaca").text(chat("Add.\n\n1, 2", "3")).startswith(f"{task}\n\n### Response:\n3")
    assert ChatTemplate.of(tokenizer, "vicuna").text(chat("Hi"), add_generation_prompt=True) == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers "
        "to the user's questions. USER: Hi ASSISTANT:"
    )


def test_a_base_model_gets_the_format_that_its_tokenizer_can_write(shared: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    assert ChatTemplate.of(tokenizer).name == "own"
    tokenizer.chat_template = None
    found = {"tiny": ChatTemplate.of(tokenizer)}
    for folder in ("data/tokenizers/gpt2", "weights/stories260k", "weights/babyllama-105"):
        found[Path(folder).name] = ChatTemplate.of(AutoTokenizer.from_pretrained(shared / folder))
    assert {key: template.name for key, template in found.items()} == {
        "tiny": "chatml",
        "gpt2": "alpaca",
        "stories260k": "alpaca",
        "babyllama-105": "plain",
    }
    assert "knows ChatML's control tokens" in found["tiny"].reason
    assert "end-of-sequence token" in found["gpt2"].reason
    assert "cannot write the marks" in found["babyllama-105"].reason


def test_chatml_writes_tool_calls_reasoning_and_the_list_of_tools(tokenizer: PreTrainedTokenizerBase) -> None:
    template = ChatTemplate.of(tokenizer, "chatml")
    conversation = (
        Message("user", "Find sea"),
        Message("assistant", "", tool_calls=(CALL,), reasoning="A word."),
        Message("tool", "blue", tool_call_id="call_0001", name="find"),
        Message("assistant", "Blue."),
    )
    assert '"description": "Find a word."' in template.text(conversation, (TOOL,))
    call = '<think>\nA word.\n</think>\n\n<tool_call>\n{"name": "find", "arguments": {"word": "sea"}}\n</tool_call>'
    assert learned(tokenizer, template.sequence(conversation, tools=(TOOL,))) == [call + ENDED, f"Blue.{ENDED}"]


def test_arguments_of_a_call_may_be_json_text_or_an_object(tokenizer: PreTrainedTokenizerBase) -> None:
    template = ChatTemplate.of(tokenizer, "chatml")
    text = {**CALL, "function": {"name": "find", "arguments": '{"word": "sea"}'}}
    one, two = ((Message("user", "Find sea"), Message("assistant", "", tool_calls=(call,))) for call in (CALL, text))
    assert template.sequence(one, tools=(TOOL,)) == template.sequence(two, tools=(TOOL,))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% if %}", "not valid Jinja: line 1"),
        ("\n{{ messages[ }}", "not valid Jinja: line 2"),
        ("{{ x | nofilter }}", "No filter named 'nofilter'"),
    ],
)
def test_t003_a_template_with_an_error_of_syntax(make: Make, source: str, said: str) -> None:
    with pytest.raises(HoneError, match=said) as caught:
        make(source)
    assert caught.value.code == "T003"
    assert "'own'" in caught.value.what


def test_t003_a_template_that_does_not_exist(make: Make, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    for name, fix in (("chatmll", "did you mean 'chatml'?"), (str(tmp_path / "mine.jinja"), "check the path")):
        with pytest.raises(HoneError) as caught:
            ChatTemplate.of(tokenizer, name)
        assert (caught.value.code, caught.value.fix) == ("T003", fix)
    tokenizer.chat_template = {"rag": SAY, "tool_use": SAY}
    with pytest.raises(HoneError, match="none is the default"):
        ChatTemplate.of(tokenizer)
    (tmp_path / "mine.jinja").write_text(EACH + SAY + DONE + PROMPT, encoding="utf-8")
    template = ChatTemplate.of(tokenizer, str(tmp_path / "mine.jinja"))
    assert (template.name, template.text(chat("Hi"))) == ("mine", "<|im_start|>user\nHi<|im_end|>\n")


def test_a_tokenizer_with_several_templates_uses_the_one_for_tools_when_there_are_tools(tokenizer: PreTrainedTokenizerBase) -> None:
    with_tools = "{{ tools | tojson }}" + EACH + SAY + DONE + PROMPT
    tokenizer.chat_template = {"default": EACH + SAY + DONE + PROMPT, "tool_use": with_tools}
    template = ChatTemplate.of(tokenizer)
    assert template.text(chat("Hi")).startswith("<|im_start|>")
    assert template.text(chat("Hi"), (TOOL,)).startswith('[{"type"')
    assert ChatTemplate.of(tokenizer, "tool_use").source == with_tools


def test_t001_an_end_marker_must_be_one_token(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(EACH + SAY + DONE + PROMPT, encoding="utf-8")
    template = ChatTemplate.of(AutoTokenizer.from_pretrained(shared / "data" / "tokenizers" / "gpt2"), str(tmp_path / "mine.jinja"))
    with pytest.raises(HoneError, match="never learn to stop") as caught:
        template.sequence(chat("Hi", "Hello"))
    assert caught.value.code == "T001"
    assert any(note.startswith("T001") for note in template.notes)


@pytest.mark.parametrize("name", ["chatml", "llama3"])
def test_a_format_without_its_control_tokens_ends_turns_with_the_end_of_sequence(shared: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "data" / "tokenizers" / "gpt2")
    template = ChatTemplate.of(tokenizer, name)
    assert learned(tokenizer, template.sequence(chat("Hi", "Hello", "Bye", "See you"))) == ["Hello<|endoftext|>", "See you<|endoftext|>"]
    assert template.end_text == tokenizer.eos_token
    tokenizer.chat_template = template.stored
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == template.text(chat("Hi"))


def test_a_base_model_learns_tool_calls_in_chatml_whatever_its_other_format(shared: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "data" / "tokenizers" / "gpt2")
    template = ChatTemplate.of(tokenizer)
    said = (*chat("Find sea"), Message("assistant", "", tool_calls=(CALL,)), Message("tool", "blue"), Message("assistant", "Blue."))
    call = '<tool_call>\n{"name": "find", "arguments": {"word": "sea"}}\n</tool_call>'
    assert learned(tokenizer, template.sequence(said, tools=(TOOL,))) == [f"{call}<|endoftext|>", "Blue.<|endoftext|>"]
    assert "### Instruction" in template.text(chat("Hi"))
    assert "tools are written in ChatML" in template.reason
    tokenizer.chat_template = template.stored
    tokenizer.save_pretrained(tmp_path)
    again = ChatTemplate.of(AutoTokenizer.from_pretrained(tmp_path))
    assert [again.text(chat("Hi"), tools) for tools in ((), (TOOL,))] == [template.text(chat("Hi"), tools) for tools in ((), (TOOL,))]
    with pytest.raises(HoneError, match="cannot take tools"):
        ChatTemplate.of(tokenizer, "vicuna").sequence(said, tools=(TOOL,))


def test_an_end_marker_only_behind_the_last_answer_is_enough_to_learn_that_one(make: Make, tokenizer: PreTrainedTokenizerBase) -> None:
    template = make(EACH + "{{ message.role + ': ' + message.content + ('' if not loop.last else eos_token) }}" + DONE)
    assert learned(tokenizer, template.sequence(chat("Hi", "Hello", "Bye", "See you"), learn="last")) == [f"See you{ENDED}"]
    with pytest.raises(HoneError) as caught:
        template.sequence(chat("Hi", "Hello", "Bye", "See you"))
    assert (caught.value.code, caught.value.where) == ("T001", "message 2 of the conversation")


def test_an_end_marker_that_differs_behind_the_last_answer_is_learned_as_it_is(make: Make, tokenizer: PreTrainedTokenizerBase) -> None:
    last = "{{ eos_token if loop.last and message.role == 'assistant' else '<|endoftext|>' }}"
    template = make(EACH + "{{ '<|im_start|>' + message.role + '\n' + message.content }}" + last + DONE + PROMPT)
    assert learned(tokenizer, template.sequence(chat("Hi", "Hello", "Bye", "See you"))) == ["Hello<|endoftext|>", f"See you{ENDED}"]


def test_a_tool_call_whose_name_stands_before_its_result_too_ends_where_it_ends(make: Make, tokenizer: PreTrainedTokenizerBase) -> None:
    calls = "{% for call in message.tool_calls or [] %}{{ call.function.name + call.function.arguments.word + ' ' + call.function.name }}{% endfor %}"
    template = make(EACH + SAY.replace("+ '<|im_end|>'", "}}" + calls + "{{ '<|im_end|>'") + DONE + PROMPT)
    first = (Message("user", "Hi"), Message("assistant", "", tool_calls=(CALL,)), Message("tool", "blue"), Message("assistant", "Blue."))
    assert learned(tokenizer, template.sequence(first)) == [f"findsea find{ENDED}", f"Blue.{ENDED}"]


def test_t007_names_what_is_refused_or_left_out(make: Make) -> None:
    no_system = make("{% if messages[0].role == 'system' %}{{ raise_exception('never') }}{% endif %}" + EACH + SAY + DONE)
    deaf = make(EACH + "{% if message.role != 'system' %}" + SAY + "{% endif %}" + DONE + PROMPT)
    system = (Message("system", "Be short."), *chat("Hi", "Hello"))
    call = (Message("user", "Hi"), Message("assistant", "", tool_calls=(CALL,)))
    for template, conversation, tools, said in (
        (no_system, system, (), "cannot take a system message: never"),
        (deaf, system, (), "leaves out the system message"),
        (deaf, call, (), "leaves out tool calls"),
        (deaf, chat("Hi", "Hello"), (TOOL,), "leaves out the list of tools"),
    ):
        with pytest.raises(HoneError, match=said) as caught:
            template.sequence(conversation, tools=tools)
        assert caught.value.code == "T007"


LATE = (
    EACH + "{% if message.role == 'assistant' %}{% set said = message.content.split('</think>')[-1].lstrip('\n') %}"
    f"{{{{ {START} + 'assistant\\n' }}}}{{% if loop.last %}}{{{{ '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}}}"
    f"{{% endif %}}{{{{ said + {END} + '\\n' }}}}{{% else %}}" + SAY + "{% endif %}" + DONE + PROMPT
)


def test_reasoning_is_learned_where_the_template_keeps_it_and_refused_where_it_drops_it(
    make: Make, tokenizer: PreTrainedTokenizerBase
) -> None:
    template = make(LATE)
    first, last = Message("assistant", "4", reasoning="2 and 2"), Message("assistant", "6", reasoning="3 and 3")
    conversation = (Message("user", "2+2"), first, Message("user", "3+3"), last)
    assert learned(tokenizer, template.sequence(conversation, learn="last")) == [f"<think>\n3 and 3\n</think>\n\n6{ENDED}"]
    with pytest.raises(HoneError, match="drops the reasoning of this answer, as it is not the last") as caught:
        template.sequence(conversation)
    assert (caught.value.code, caught.value.where) == ("T010", "message 2 of the conversation")
    assert "data.learn=last" in caught.value.fix
    plain = template.sequence(chat("2+2", "4", "3+3", "6"))
    assert learned(tokenizer, plain) == [f"4{ENDED}", f"<think>\n\n</think>\n\n6{ENDED}"]
    inside = chat("2+2", "<think>two and two</think>\n4")
    with pytest.raises(HoneError, match="drops the reasoning") as caught:
        template.sequence(inside)
    assert caught.value.code == "T010"


def test_reasoning_inside_the_content_is_learned_where_it_is_kept(make: Make, tokenizer: PreTrainedTokenizerBase) -> None:
    template = make(EACH + SAY + DONE + PROMPT)
    conversation = chat("2+2", "<think>\n2 and 2\n</think>\n\n4")
    assert learned(tokenizer, template.sequence(conversation)) == [f"<think>\n2 and 2\n</think>\n\n4{ENDED}"]
    with pytest.raises(HoneError) as caught:
        template.sequence((Message("user", "2+2"), Message("assistant", "4", reasoning="2 and 2")))
    assert caught.value.code == "T010"


@pytest.mark.parametrize("change", ["upper", "reverse", "truncate(3, True, '')", "wordwrap(5)"])
def test_t010_an_answer_that_the_template_rewrites_is_refused(make: Make, change: str) -> None:
    template = make(EACH + f"{{{{ {START} + message.role + '\\n' + (message.content | {change}) + {END} }}}}" + DONE)
    with pytest.raises(HoneError) as caught:
        template.sequence(chat("What is it?", "A house by the sea"))
    assert caught.value.code == "T010"


def test_a_rewriting_that_can_be_followed_is_learned_as_the_template_writes_it(make: Make, tokenizer: PreTrainedTokenizerBase) -> None:
    template = make(EACH + f"{{{{ {START} + message.role + '\n' + (message.content | replace('e', 'E')) + {END} }}}}" + DONE)
    assert learned(tokenizer, template.sequence(chat("Hello?", "See the sea"))) == [f"SEE thE sEa{ENDED}"]


def test_t010_an_answer_that_is_written_twice_is_refused(make: Make) -> None:
    template = make(EACH + "{{ message.content + ' ' }}" + SAY + DONE)
    with pytest.raises(HoneError, match="writes this answer more than once"):
        template.sequence(chat("Hi", "Hello"))


def test_a_header_that_the_generation_prompt_lacks_is_not_learned(make: Make, tokenizer: PreTrainedTokenizerBase) -> None:
    template = make(EACH + SAY + DONE)
    sequence = template.sequence(chat("Hi", "Hello", "Bye", "See you"))
    assert learned(tokenizer, sequence) == [f"Hello{ENDED}", f"See you{ENDED}"]
    prompt = template.prompt_ids(chat("Hi"))
    assert sequence.tokens[: len(prompt)] == prompt
    assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")
    assert [note[:4] for note in template.notes] == ["T011"]


MARKED = EACH + "{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}%s{% else %}%s{% endif %}" + DONE + PROMPT
OTHERS = "{{ message.content + '<|im_end|>\n' }}"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}", f"Hello{ENDED}"),
        ("{% generation %}{{ message.content + '<|im_end|>\n' }}{% endgeneration %}", f"Hello{ENDED}"),
        ("{% generation %}{{ message.content }}{% endgeneration %}{{ '<|im_end|>\n' }}", f"Hello{ENDED}"),
        (
            "{{ '<think>\n\n</think>\n' }}{%- generation %}{{ message.content + '<|im_end|>' }}{% endgeneration -%}{{ '\n' }}",
            f"Hello{ENDED}",
        ),
    ],
)
def test_the_marks_of_a_template_are_used_but_the_end_is_learned_all_the_same(
    make: Make, tokenizer: PreTrainedTokenizerBase, answer: str, expected: str
) -> None:
    template = make(MARKED.replace("%s", answer, 1).replace("%s", OTHERS, 1))
    sequence = template.sequence(chat("Hi", "Hello", "Bye", "See you"))
    assert learned(tokenizer, sequence) == [expected, expected.replace("Hello", "See you")]


def test_whole_marks_give_the_mask_that_transformers_gives(make: Make, tokenizer: PreTrainedTokenizerBase) -> None:
    answer = "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    sequence = make(MARKED.replace("%s", answer, 1).replace("%s", OTHERS, 1)).sequence(chat("Hi", "Hello", "Bye", "See you"))
    rows = [message.to_dict() for message in chat("Hi", "Hello", "Bye", "See you")]
    theirs = tokenizer.apply_chat_template(rows, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert sequence.tokens == theirs["input_ids"]
    assert sequence.weights == theirs["assistant_masks"]


def test_marks_around_nothing_are_an_error_and_not_an_empty_lesson(make: Make) -> None:
    template = make(EACH + SAY + DONE + "{% generation %}{% endgeneration %}")
    with pytest.raises(HoneError) as caught:
        template.sequence(chat("Hi", "Hello"))
    assert caught.value.code == "T010"


def test_t012_a_tokenizer_without_positions() -> None:
    with pytest.raises(HoneError, match="ByT5Tokenizer") as caught:
        ChatTemplate.of(ByT5Tokenizer(), "plain")
    assert caught.value.code == "T012"


def test_every_code_is_explained() -> None:
    assert {f"T{i:03}" for i in range(1, 13)} <= set(catalogue())
