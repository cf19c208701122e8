"""Flaws of a model's folder: templates without an end or with two beginnings, tokens that mean two things or none."""

from __future__ import annotations

import copy
from dataclasses import replace

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.conftest import CHATML
from tests.zoo.base import flaw
from tests.zoo.given import Given, told
from tests.zoo.models import UNKNOWN

HEADER = "<|im_start|>"
BOS = "<|endoftext|>"
ANSWER = "{{ '<|im_start|>assistant\n' + message['content'] + '<|im_end|>\n' }}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
QUESTION = "{{ '<|im_start|>user\n' + message['content'] + '<|im_end|>\n' }}"


def turns(question: str, answer: str, *, prompt: str = PROMPT) -> str:
    """A template of users and assistants."""
    return f"{{% for message in messages %}}{{% if message['role'] == 'user' %}}{question}{{% else %}}{answer}{{% endif %}}{{% endfor %}}{prompt}"


def beginning(one: Given, token: str | None) -> Given:
    """With a beginning-of-sequence token."""
    tokenizer = copy.deepcopy(one.tokenizer)
    tokenizer.bos_token = token
    return replace(one, tokenizer=tokenizer)


@flaw("T001", on="talks", shipped="trl#734, unsloth#1008")
def a_template_without_an_end(one: Given) -> Given:
    """The template writes nothing behind an answer, so its end cannot be learned and the model never stops."""
    return one.templated(turns("{{ 'Q: ' + message['content'] + '\n' }}", "{{ 'A: ' + message['content'] + '\n' }}", prompt="{{ 'A: ' }}"))


@flaw("T006", on="talks", shipped=UNKNOWN)
def a_template_with_two_beginnings(one: Given) -> Given:
    """The template writes the beginning of sequence twice, as none of the base's own texts began."""
    return beginning(one.templated(f"{BOS}{BOS}" + CHATML), BOS)


@flaw("T010", on="talks", shipped=UNKNOWN)
def marks_around_the_question(one: Given) -> Given:
    """The template's generation marks enclose what the user says: with a mask made of them, the answers are never learned."""
    return one.templated(turns("{% generation %}" + QUESTION + "{% endgeneration %}", ANSWER))


@flaw("T010", on="talks", shipped=UNKNOWN)
def a_template_that_rewrites_answers(one: Given) -> Given:
    """The template turns answers into capitals, so what is learned is not what the row says."""
    return one.templated(turns(QUESTION, ANSWER.replace("message['content']", "message['content'].upper()")))


@flaw("T011", on="turns", shipped=UNKNOWN)
def answers_change_once_they_are_past(one: Given) -> Given:
    """The template writes thoughts before the last answer only. A mask that takes each prompt for the beginning of the whole is shifted."""
    last = "{% if loop.last %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + message['content'] + '<|im_end|>\n' }}{% else %}"
    return one.templated(turns(QUESTION, last + ANSWER + "{% endif %}"))


@flaw("T011", on="talks", shipped="LLaMA-Factory#2692 (the header of the answer at serving)")
def a_template_without_a_generation_prompt(one: Given) -> Given:
    """The template ignores add_generation_prompt: a server asks without the header behind which every answer was learned."""
    return one.templated(turns(QUESTION, ANSWER, prompt=""))


@flaw("T007", on="guided", shipped=UNKNOWN)
def the_system_prompt_is_left_out(one: Given) -> Given:
    """The template knows users and assistants, and leaves the system prompt out without a word."""
    silent = "{% if message['role'] == 'assistant' %}" + ANSWER + "{% endif %}"
    return one.templated(turns(QUESTION, silent))


@flaw("T007", on="calls", shipped="LLaMA-Factory#9107 (content or call lost)")
def tool_calls_are_left_out(one: Given) -> Given:
    """The template writes contents and no calls, so the model learns to answer with nothing where it should call a tool."""
    return one.templated(CHATML)


@flaw("T002", on="talks", shipped="Phi-4, unsloth#416, trl#6357")
def padding_is_the_end(one: Given) -> Given:
    """Padding and the end of an answer are one token: who masks padding by its id never teaches the model to stop."""
    tokenizer = copy.deepcopy(one.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    return replace(one, tokenizer=tokenizer)


@flaw("M092", on="talks", shipped="Phi-4, unsloth#416, trl#6357")
def padding_is_the_end_in_the_files(one: Given) -> Given:
    """The same, found in the folder of the model before anything is loaded, with the token to take instead."""
    return padding_is_the_end(one)


@flaw("M093", on="talks", shipped="Gemma, and Llama 3 where rendered text is encoded the usual way")
def the_tokenizer_begins_what_the_template_begins(one: Given) -> Given:
    """The template writes a beginning of sequence, and the tokenizer is set to add one to all that it encodes."""
    return replace(beginning(one.templated("{{ bos_token }}" + CHATML), BOS), adds_bos=True)


@flaw("M094", on="talks", shipped="copies with the generation_config.json of another model")
def generation_stops_elsewhere(one: Given) -> Given:
    """The end that is learned is not among those at which generation stops, so answers run on."""
    return replace(one, generation={"eos_token_id": [7]})


@flaw("M095", on="talks", shipped="ChatML on the settings of a base model")
def turns_end_where_nobody_stops(one: Given) -> Given:
    """The template ends turns with a token of its own, and generation stops at the base's end of text alone."""
    tokenizer = copy.deepcopy(one.tokenizer)
    tokenizer.eos_token = BOS
    return replace(one, tokenizer=tokenizer, config={**one.config, "eos_token_id": 0}, generation={"eos_token_id": 0})


@flaw("M096", on="talks", shipped="unsloth-zoo#923 (added tokens)")
def tokens_beyond_the_embedding(one: Given) -> Given:
    """Tokens were added to the tokenizer and the embedding was not made larger."""
    return replace(one, config={**one.config, "vocab_size": 200})


@flaw("M097", on="talks", shipped="Llama 3 base, whose reserved tokens were never trained")
def control_tokens_never_trained(one: Given) -> Given:
    """The template uses a token whose embedding is zero: all that stands behind it begins in the void."""
    return replace(one, dead=(one.tokenizer.convert_tokens_to_ids(HEADER),))


@flaw("D034", on="talks", shipped=UNKNOWN)
def letters_that_become_unknown(one: Given) -> Given:
    """The tokenizer lacks the letters of the data and writes its unknown token instead, which is then learned."""
    foreign = one.said(lambda i, said: [said[0], {**said[1], "content": f"Он уходит в {i}."}])
    return replace(foreign, tokenizer=_latin([CHATML, *(said["content"] for row in one.rows for said in row["messages"]), told(0)]))


def _latin(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of the letters of some texts, without bytes to fall back to."""
    special = ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "<unk>"]
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=special[0], eos_token=special[1], unk_token=special[3], additional_special_tokens=special[2:3]
    )
    made.chat_template = CHATML
    return made
