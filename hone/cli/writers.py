"""Who answers in a talk: a model in this process, or llama.cpp on a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hone.core.errors import HoneError

if TYPE_CHECKING:
    from hone.core.types import Message
    from hone.export.gguf.session import Session
    from hone.recipe.build import Opened
    from hone.rollout.answer import Answer
    from hone.rollout.sample import Sampler

Show = Callable[[str], None]
"""Gets the answer piece by piece."""
MOST_CONTEXT = 8192
"""llama.cpp reserves memory for the whole context at once, so a talk gets no longer one."""


class Writer(Protocol):
    """A model as a talk needs it."""

    @property
    def name(self) -> str:
        """What was opened, in a few words."""

    @property
    def template(self) -> str:
        """Which chat template it has, and from where."""

    @property
    def folder(self) -> Path | None:
        """The run that it comes from."""

    @property
    def system(self) -> str | None:
        """The system prompt that all of its training data had."""

    @property
    def context(self) -> int | None:
        """Tokens of a prompt and its answer together; None is without limit."""

    def prompt(self, talk: Sequence[Message]) -> list[int]:
        """The tokens after which it is to answer."""

    def write(self, prompt: list[int], show: Show, *, max_new_tokens: int, temperature: float = 0.0, seed: int = 0) -> Answer:
        """Answer, showing the text as it comes."""


@dataclass
class Own:
    """A model in this process. `aside` is for the base of an adapter: the adapter steps aside while it speaks."""

    opened: Opened
    aside: bool = False
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        from hone.cli.asking import sampler_of

        with self._alone():
            self.sampler = sampler_of(self.opened, talk=True)

    @property
    def name(self) -> str:
        from hone.cli.asking import name_of

        return name_of(self.opened)

    @property
    def template(self) -> str:
        return f"{self.opened.template.name}: {self.opened.template.reason}"

    @property
    def folder(self) -> Path | None:
        return self.opened.folder

    @property
    def system(self) -> str | None:
        found: str | None = self.opened.resolved.get("data", {}).get("system")
        return found

    @property
    def context(self) -> int | None:
        return self.sampler.context

    def prompt(self, talk: Sequence[Message]) -> list[int]:
        return self.opened.template.prompt_ids(talk)

    def write(self, prompt: list[int], show: Show, *, max_new_tokens: int, temperature: float = 0.0, seed: int = 0) -> Answer:
        from hone.rollout.answer import Detokenizer

        stream, stops = Detokenizer(self.opened.tokenizer), frozenset(self.opened.template.stop_ids)

        def on_token(_: int, token: int) -> None:
            show("" if token in stops else stream.add(token))

        how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        with self._alone():
            (answer,) = self.sampler.generate([prompt], stop_ids=stops, on_token=on_token, **how)
        show(stream.rest())
        return answer

    def _alone(self) -> AbstractContextManager[None]:
        policy = self.opened.policy
        return policy.tuning.disabled(policy.model) if self.aside else nullcontext()


@dataclass
class LlamaCpp:
    """llama.cpp on a GGUF file, with the file's own template and tokenizer: what Ollama and llama-server would say."""

    file: Path
    context: int
    session: Session
    render: Callable[[Sequence[Message]], str]
    encode: Callable[[str, bool], list[int]]
    spaced: bool = False
    """Whether the tokenizer puts a blank in front of a text, which is then not the model's."""
    folder: None = None
    system: None = None
    template: str = "the file's own, run by llama.cpp"

    @property
    def name(self) -> str:
        return str(self.file)

    def prompt(self, talk: Sequence[Message]) -> list[int]:
        return self.encode(self.render(talk), True)

    def write(self, prompt: list[int], show: Show, *, max_new_tokens: int, temperature: float = 0.0, seed: int = 0) -> Answer:
        from hone.rollout.answer import Answer

        tokens, text, stopped, recalled = list[int](), "", False, 0
        for step in islice(self.session.write(prompt, temperature=temperature, seed=seed), min(max_new_tokens, self.context - len(prompt))):
            tokens.append(step.token)
            recalled, stopped = step.recalled, step.ends
            if stopped:
                break
            piece = step.text.removeprefix(" ") if self.spaced and not text else step.text
            text += piece
            show(piece)
        return Answer(tokens, [], "stop" if stopped else "length", text, recalled)


def writer_of(name: str, stack: ExitStack) -> Writer:
    """Open a run, a model, or a GGUF file, which a process holds open until the stack ends."""
    from hone.recipe.opening import open_model
    from hone.recipe.verifying import gguf_file

    path = Path(name)
    file = gguf_file(path) if path.exists() and not (path / "resolved.json").is_file() else None
    return Own(open_model(name)) if file is None else _llama_cpp(file, stack)


def _llama_cpp(file: Path, stack: ExitStack) -> LlamaCpp:
    """Raises F044 without llama.cpp, F047 for a file that it cannot load, T040 for one without a template."""
    from datetime import datetime

    import torch

    from hone.data.rendering import Renderer, dicts
    from hone.export.gguf.header import read_header
    from hone.export.gguf.session import Session
    from hone.export.gguf.subject import encode_as_llama_cpp, special_names, templates_of

    header = read_header(file)
    source = templates_of(header.metadata).get("default")
    if source is None:
        fix = "export it again from its run, which writes the template of the training into it"
        raise HoneError("T040", "this GGUF file has no chat template", where=str(file), fix=fix)
    context = min(int(header.own("context_length", MOST_CONTEXT)), MOST_CONTEXT)
    session = stack.enter_context(Session(file, context=context, threads=torch.get_num_threads()))
    session.tokens("")  # a file that cannot be loaded is to fail now
    renderer = Renderer(source, name="the file's", variables=special_names(header.metadata), now=datetime.now())
    encode = encode_as_llama_cpp(header, session.tokens)
    spaced = header.metadata["tokenizer.ggml.model"] == "llama" and bool(header.metadata.get("tokenizer.ggml.add_space_prefix", True))
    return LlamaCpp(file, context, session, lambda talk: renderer.render(dicts(talk), prompt=True).text, encode, spaced)


def base_writer(writer: Writer) -> Writer:
    """The base of a tuned model. Raises C043 where none is known."""
    from hone.cli.asking import base_of
    from hone.recipe.opening import open_model

    if isinstance(writer, Own):
        with base_of(writer.opened) as base:
            return Own(base, aside=base is writer.opened)
    assert isinstance(writer, LlamaCpp)
    about = _certificate(writer.file)
    base = open_model(about["base"]["name"])
    return Own(replace(base, template=_template(base, about["template"])))


def _certificate(file: Path) -> dict[str, Any]:
    from hone.export.proof.golden import Golden
    from hone.recipe import certificate

    place = certificate.beside(file.parent)
    about = Golden.load(place).about if place is not None else {}
    if not about.get("base", {}).get("name"):
        what = "this file does not say what it was made from: there is no certificate (golden.json) beside it"
        raise HoneError("C043", what, where=str(file), fix="name the base: --against FOLDER-OR-HUB-ID")
    return about


def _template(base: Opened, source: Any) -> Any:
    """The template of the training on the base's tokenizer."""
    import copy

    from hone.data.chat import ChatTemplate

    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = source
    return ChatTemplate.of(tokenizer)
