"""Programs that a model wrote run in a jail; what they gave is judged outside, so no program can award itself the score."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.rollout.rewards import REWARDS, Fault, Tools, Written
from hone.rollout.rewards.code import Limits, isolated, program, read_tests, run, same

TESTS = [
    "assert double(2) == 4",
    {"call": "double", "args": ["ab"], "equals": "abab"},
    "assert double(0) is not None",
    "assert double([1])",
]
RIGHT = "Here it is:\n```python\ndef double(x):\n    return x * 2\n```\nDone."


def score(text: str, tests: Any = TESTS, seconds: float = 10.0, **settings: Any) -> Any:
    return REWARDS["code"].bind(Tools(seconds=seconds), settings)([Written(text, row={"tests": tests})])[0]


def test_the_share_of_tests_that_pass() -> None:
    assert score(RIGHT, TESTS[:3]) == 1.0
    assert score(RIGHT) == 0.75, "a list is not True"
    assert score(RIGHT, whole=True) == 0.0
    assert score("def double(x): return 4", TESTS[:2]) == 0.5
    assert score("this is no Python", TESTS[:2]) == 0.0


def test_dialogues_compare_what_is_printed() -> None:
    echo = "a, b = map(int, input().split())\nprint(a + b)"
    assert score(echo, {"inputs": ["1 2", "3 4"], "outputs": ["3\n", "8"]}) == 0.5
    assert score(echo, [{"stdin": "20 22\n", "stdout": "42"}]) == 1.0


@pytest.mark.parametrize(
    "cheat",
    [
        "class Yes:\n    def __eq__(self, other): return True\n    def __repr__(self): return '4'\ndef double(x): return Yes()\n",
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        'import json\njson.dumps = lambda x: \'["4", "abab", "1"]\'\ndef double(x): return 0',
        "def double(x): raise SystemExit",
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'[true, true]')\n    except OSError: pass\ndef double(x): return 0",
        "def double(x): return 'x' * 10**7",
        "def double(x): return double(x)",
    ],
)
def test_no_program_awards_itself_the_score(cheat: str) -> None:
    assert score(cheat, [{"call": "double", "args": [3], "equals": 6}, {"call": "double", "args": [5], "equals": 10}]) == 0.0


@pytest.mark.parametrize(
    "hostile",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "x = ['a' * 10**6 for _ in range(10**5)]",
        "import signal, os\nfor s in range(1, 60):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass",
        "print('x' * 10**9)",
    ],
)
def test_a_hostile_program_ends_in_time(hostile: str) -> None:
    assert score(hostile, ["assert 1 == 1"], seconds=0.6) == 0.0


def test_a_hostile_dialogue_ends_in_time() -> None:
    assert score("while True: print('x' * 10**6)", [{"stdin": "", "stdout": "42"}], seconds=0.6) == 0.0


def test_a_program_sees_no_environment_and_no_files_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    nosy = "import os\ndef look(): return ('OPENAI_API_KEY' in os.environ, sorted(os.listdir('.')))"
    assert score(nosy, [{"call": "look", "args": [], "equals": [False, ["given.txt", "program.py"]]}]) == 1.0


def test_a_program_cannot_reach_the_network() -> None:
    if not isolated():
        pytest.skip("this system does not allow user namespaces, so the jail cannot cut off the network")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        call = f"import socket\ndef call():\n    try: socket.create_connection(('127.0.0.1', {port}), 2)\n    except OSError: return 'cut'\n    return 'open'"
        assert score(call, [{"call": "call", "args": [], "equals": "cut"}], isolate="require") == 1.0


def test_required_isolation_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from hone.rollout.rewards import code

    monkeypatch.setattr(code, "isolated", lambda: False)
    with pytest.raises(HoneError) as caught:
        REWARDS["code"].bind(Tools(), {"isolate": "require"})
    assert caught.value.code == "C064"


@pytest.mark.parametrize("tests", [None, [], "", ["f(1) == 2"], ["assert f(1) == 2; import os"], ["for x in y: pass"], [{"args": [1]}]])
def test_tests_that_cannot_be_judged_are_a_fault(tests: Any) -> None:
    found = score(RIGHT, tests)
    assert isinstance(found, Fault) and found.code == "R003"


def test_leftovers_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run("open('junk', 'w').write('x')", read_tests(["assert 1 == 1"]), Limits(5, 256))
    assert list(tmp_path.iterdir()) == []


def test_values_are_equal_up_to_json_and_rounding() -> None:
    assert same((1, [2.0, "a"]), [1, (2.0000000001, "a")])
    assert same(0.1 + 0.2, 0.3) and not same(True, 1) and not same({1}, {2}) and same({1: 2}, {1: 2})
    assert program("a\n```py\nx = 1\n```\nb\n```\ny = 2\n```") == "y = 2\n"
