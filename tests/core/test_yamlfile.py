"""Files of our own are read as the plain loader reads them, and nothing in them can run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hone.core.yamlfile import read_yaml
from tests.house.source import ROOT


def test_both_loaders_read_the_same(tmp_path: Path) -> None:
    file = ROOT / "hone" / "core" / "codes" / "prove.yaml"
    assert read_yaml(file) == yaml.safe_load(file.read_text("utf-8"))
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") is None


def test_a_tag_that_would_run_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(yaml.YAMLError):
        read_yaml(tmp_path / "evil.yaml")
