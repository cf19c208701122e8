"""Makes text that comes from data or from a model safe to print: it can never steer the terminal."""

from __future__ import annotations


def tame(text: str) -> str:
    """Control characters as signs; line breaks and tabs stay."""
    return "".join(char if char in "\n\t" else _sign(char) for char in text)


def visible(token: str) -> str:
    """The same with line breaks shown, for looking at tokens."""
    return tame(token).replace("\n", "↵\n")


def _sign(char: str) -> str:
    code = ord(char)
    if code < 32:
        return chr(0x2400 + code)
    return "�" if 127 <= code < 160 or 0xD800 <= code < 0xE000 else char
