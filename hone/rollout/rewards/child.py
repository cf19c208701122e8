"""The process in which a reward function runs that may fail, hang or print: `python -m hone.rollout.rewards.child TARGET SETTINGS`.

It reads a JSON line for each question and writes one for each answer, on the stream that was its standard output; what the
function itself prints goes to its standard error.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hone.core.errors import HoneError
from hone.core.functions import function_at

MANY = "answers"
"""A function whose first argument has this name is asked once about all answers, any other once about each."""


def serve(target: str, settings: Mapping[str, Any]) -> None:
    """Say whether the function is there, then answer questions until the parent closes the pipe."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        function = function_at(target)
        names = list(inspect.signature(function).parameters)
    except (Exception, SystemExit) as error:  # the user's file may fail in any way
        _say(out, {"error": error.what if isinstance(error, HoneError) else f"{type(error).__name__}: {error}"})
        return
    many = bool(names) and names[0] == MANY
    _say(out, {"many": many})
    call = partial(function, **settings)
    for line in sys.stdin:
        request = json.loads(line)
        asked = (request["answers"], request["rows"]) if many else (request["answer"], request["row"])
        try:
            _say(out, {"score": _plain(call(*asked))})
        except (Exception, SystemExit) as error:  # as above
            _say(out, {"error": f"{type(error).__name__}: {error}"})


def _plain(found: Any) -> Any:
    """Numbers of numpy and torch become Python's."""
    if hasattr(found, "tolist"):
        found = found.tolist()
    if isinstance(found, str | bytes) or found is None:
        return found
    return [_plain(each) for each in found] if isinstance(found, Sequence) else float(found)


def _say(out: Any, message: Mapping[str, Any]) -> None:
    out.write(json.dumps(message, default=repr) + "\n")
    out.flush()


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
