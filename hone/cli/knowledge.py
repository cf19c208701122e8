"""What `hone explain` knows: codes of errors, words of the trade, and every setting with its type, default and help."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hone.core.errors import HoneError, catalogue
from hone.core.registry import nearest
from hone.core.terms import Term, glossary

CODE = re.compile(r"[A-Z]\d{3}")


class Page(NamedTuple):
    """One explanation: a title, a text, a few labelled lines, and what to look at next."""

    title: str
    text: str
    lines: tuple[tuple[str, str], ...] = ()
    see: tuple[str, ...] = ()


def look_up(query: str, lang: str = "en") -> Page:
    """The page of a code (D012), a word (learning rate), a section (optim) or a setting (optim.learning_rate).

    Words are found by any of their names. Raises C003, with the nearest name, for what is nowhere to be found.
    """
    code = query.strip().upper()
    if CODE.fullmatch(code):
        return _code(code, lang)
    key = _names().get(_simple(query))
    if key is not None:
        return _term(glossary()[key], lang)
    pages = settings_pages()
    found = pages.get(query.strip().replace(" ", "_").casefold())
    if found is not None:
        return found
    known = [*(name for term in glossary().values() for name in term.names), *pages]
    raise HoneError("C003", f"hone has no explanation of '{query}'", where="hone explain", fix=_hint(query, known))


def _hint(query: str, known: list[str]) -> str:
    hint = nearest(query, known)
    return hint if hint.startswith("did you mean") else "`hone explain` without a word lists all that it knows"


def _code(code: str, lang: str) -> Page:
    known = catalogue()
    if code not in known:
        family = ", ".join(sorted(each for each in known if each[0] == code[0])) or "none"
        raise HoneError("C003", f"there is no code {code}", where="hone explain", fix=f"codes with this letter: {family}")
    entry = known[code]
    if lang == "zh":
        title, _, rest = entry.zh.partition("。")
        return Page(f"{code}: {title}", rest) if rest else Page(code, entry.zh)
    return Page(f"{code}: {entry.title}", entry.why.strip(), (("fix", entry.fix.strip()),))


def _term(term: Term, lang: str) -> Page:
    others = ", ".join(term.names[1:])
    lines = tuple((label, text) for label, text in (("also", others), ("setting", term.setting)) if text)
    return Page(term.names[0], term.zh if lang == "zh" else term.en, lines, tuple(glossary()[key].names[0] for key in term.see))


def _names() -> dict[str, str]:
    """Simplified name -> key of its term."""
    return {_simple(name): key for key, term in glossary().items() for name in (key, *term.names)}


def _simple(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def settings_pages() -> dict[str, Page]:
    """A page for every section, method, objective and setting, under its name and under the names that other tools use."""
    from hone.objectives import OBJECTIVES
    from hone.recipe.settings import PLAIN
    from hone.recipe.words import ALIASES
    from hone.rollout.settings import RolloutSettings
    from hone.tuning import METHODS

    pages = {"seed": Page("seed", "From which all chance of the run is drawn.", (("type", "integer"), ("default", "42")))}
    for name, cls in {**PLAIN, "rollout": RolloutSettings}.items():
        pages |= _section(name, cls)
    pages |= _choices("tuning", "method", dict(METHODS.items()))
    pages |= _choices("objective", "name", {name: objective.settings() for name, objective in OBJECTIVES.items()})
    for habit, ours in ALIASES.items():
        if habit not in pages and ours in pages:
            pages[habit] = pages[ours]._replace(title=f"{habit} is called {ours} here")
    return pages


def _choices(section: str, field: str, classes: Mapping[str, type]) -> dict[str, Page]:
    """Pages of a section whose settings depend on what is chosen by name: the choice, each thing, and each of its settings."""
    made = {name: _section(section, cls) for name, cls in classes.items()}
    rows = tuple((name, _first_sentence(pages[section].text)) for name, pages in made.items())
    see = dict.fromkeys(key for pages in made.values() for key in pages if key != section)
    found = {section: Page(section, f"Chosen with {section}.{field}=NAME, or {section}=NAME for short.", rows, tuple(see))}
    for name, pages in made.items():
        found[name] = pages[section]._replace(title=f"{section}.{field}={name}")
        found = pages | found
    return found


def _section(section: str, cls: type) -> dict[str, Page]:
    """The page of a settings class, and one for each of its fields."""
    from hone.core.config import schema

    described = schema(cls)
    required = described.get("required", ())
    fields = {}
    for name, part in described.get("properties", {}).items():
        default = "none, it must be given" if name in required else _plain(part.get("default"))
        lines = (("type", kind(part, described)), ("default", default))
        fields[f"{section}.{name}"] = Page(f"{section}.{name}", part.get("description", ""), lines)
    rows = tuple((name.partition(".")[2], page.text or dict(page.lines)["type"]) for name, page in fields.items())
    return {section: Page(section, " ".join((cls.__doc__ or "").split()), rows)} | fields


def kind(part: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """A JSON schema in words: "number > 0, < 1 or none"."""
    if "$ref" in part:
        return kind(whole["$defs"][part["$ref"].rpartition("/")[2]], whole)
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(kind(each, whole) for each in part["anyOf"]))
    if "enum" in part or "const" in part:
        return " | ".join(_plain(value) for value in part.get("enum", [part.get("const")]))
    if part.get("type") == "array":
        return f"list of ({kind(part['items'], whole)})" if "items" in part else "list"
    if part.get("type") == "object" and "properties" in part:
        return "{" + ", ".join(part["properties"]) + "}"
    names = {"null": "none", "boolean": "true | false", "string": "text", "object": "mapping"}
    bounds = (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
    limits = ", ".join(f"{sign} {part[key]:g}" for key, sign in bounds if key in part)
    return " ".join(filter(None, (names.get(str(part.get("type")), str(part.get("type", "anything"))), limits)))


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(each) for each in value) or "empty"
    return {None: "none", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value) or '""'


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".") + "."
