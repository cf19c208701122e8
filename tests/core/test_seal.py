from __future__ import annotations

import json

from hone.core.seal import sealed, whole


def test_a_seal_survives_json_and_order_and_no_change() -> None:
    document = sealed({"b": [1, 2.5, None], "a": {"x": "wörter"}})
    again = json.loads(json.dumps(document, indent=3))
    assert whole(dict(reversed(list(again.items()))))
    assert not whole(again | {"a": {"x": "words"}})
    assert not whole({"a": 1})
