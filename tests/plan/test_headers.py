"""safetensors headers: read as the library reads them, and never a traceback for a damaged file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from hone.core.errors import HoneError
from hone.plan.headers import BITS, Stored, read_header, stored_tensors, weight_files

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.c": np.ones(5, dtype=np.float16),
    "empty": np.zeros((0, 4), dtype=np.int64),
}


def test_places_are_those_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(TENSORS, file, metadata={"format": "pt"})
    found = stored_tensors(tmp_path)
    assert found.keys() == TENSORS.keys()
    raw = file.read_bytes()
    for name, stored in found.items():
        assert raw[stored.start : stored.stop] == TENSORS[name].tobytes()
        assert stored.shape == TENSORS[name].shape


def read(file: Path) -> tuple[dict[str, Stored], HoneError | None]:
    """The header, or the fault that it is refused for."""
    try:
        return read_header(file), None
    except HoneError as fault:
        return {}, fault


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 250), st.binary(min_size=1, max_size=12), st.integers(-40, 40))
def test_damage_is_told_or_harmless(tmp_path: Path, at: int, patch: bytes, longer: int) -> None:
    """Whatever is overwritten, cut or added: we name it with M005, and never accept what the library refuses."""
    file = tmp_path / "model.safetensors"
    save_file(TENSORS, file)
    raw = file.read_bytes()
    raw = raw[:at] + patch + raw[at + len(patch) :]
    file.write_bytes(raw[: len(raw) + longer] if longer < 0 else raw + b"x" * longer)
    found, fault = read(file)
    if fault is not None:
        assert fault.code == "M005"
        assert str(file) in fault.where
        return
    if all(stored.dtype in BITS for stored in found.values()):
        with safe_open(file, framework="np") as library:
            assert set(library.keys()) == set(found)


def header_of(entries: object, size: int = 0) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


@pytest.mark.parametrize(
    "content",
    [
        header_of([]),
        header_of({"a": 1}),
        header_of({"a": {"dtype": "F32", "shape": [2]}}),
        header_of({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, 8),
        header_of({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, 8),
        header_of({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, 8),
        header_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, 8),
        header_of(
            {"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}, 6
        ),
        header_of({"a": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}, 6),
        header_of({"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}, 8),
        (20).to_bytes(8, "little") + b"[" * 20,
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(HoneError) as caught:
        read_header(file)
    assert caught.value.code == "M005"


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_file(TENSORS, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b.c": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [file.name for file in weight_files(tmp_path)] == ["one.safetensors", "two.safetensors"]
    with pytest.raises(HoneError) as caught:
        stored_tensors(tmp_path)
    assert caught.value.code == "M005"
    assert "in two files" in caught.value.what


@pytest.mark.parametrize("weight_map", [{"a": 1}, [], {"a": "/etc/passwd"}, {"a": "..\\x"}, {"a": "sub/x.safetensors"}])
def test_an_index_that_lies(tmp_path: Path, weight_map: object) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(HoneError) as caught:
        weight_files(tmp_path)
    assert caught.value.code == "M005"
