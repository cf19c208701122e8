"""The house rules: sizes, arrows, light imports, no patching, no dangerous calls, every code explained, no stray words."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from hone.core.errors import catalogue
from tests.house import source
from tests.house.patches import changes
from tests.house.source import ROOT, nodes, place, python_files, tree

LINES, FUNCTION_LINES, ARGUMENTS, NESTING = 400, 60, 7, 3
BANNED = {
    "eval": "runs code",
    "exec": "runs code",
    "torch.load": "unpickles, which runs code: weights are safetensors",
    "torch.save": "pickles: weights are safetensors",
    "pickle.load": "runs code",
    "pickle.loads": "runs code",
    "pickle.dump": "JSON and safetensors only",
    "pickle.dumps": "JSON and safetensors only",
    "yaml.load": "runs code: use safe_load",
    "os.system": "runs a shell",
}
LIGHT = (
    "hone",
    "hone.plan",
    "hone.core",
    "hone.cli",
    "hone.data.formats",
    "hone.data.loaders",
    "hone.data.jsonlines",
    "hone.data.checks",
    "hone.data.ledger",
)
HEAVY = {"torch", "transformers", "datasets", "pydantic", "numpy", "pandas", "pyarrow", "huggingface_hub", "tokenizers"}
BASE = {"torch", "transformers", "pydantic", "datasets"}
BROUGHT = {
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "jinja2",
    "markupsafe",
    "numpy",
    "yaml",
    "typer",
    "rich",
    "annotated_types",
    "packaging",
    "pyarrow",
}
"""What the base dependencies bring along, and what may therefore be imported like them."""
OPTIONAL = {
    "tensorboard", "wandb", "trackio", "mlflow", "fastapi", "starlette", "uvicorn", "openai", "math_verify", "reasoning_gym", "vllm",
    "peft", "gguf", "bitsandbytes", "llama_cpp", "optuna",
}  # fmt: skip
"""Packages of extras: imported only inside functions."""
FORBIDDEN = [
    word.replace("_", "") for word in ("/wo_rk/", "/ro_ot/", "pyp_i.org", "python_hosted", "download._pytorch", "tsin_ghua", "aliyun_cs")
]
"""Paths of one machine and hosts of package registries. Written with a stroke inside, so that this file does not find itself."""


def test_files_and_functions_are_small() -> None:
    offences = [f"{place(file)}: {lines} lines" for file in python_files() if (lines := len(file.read_text("utf-8").splitlines())) > LINES]
    for file, node in nodes():
        if isinstance(node, source.Function):
            lines, count, deep = node.end_lineno - node.lineno + 1, len(source.arguments(node)), source.depth(node.body)
            where = f"{place(file, node)} {node.name}"
            offences += [f"{where}: {lines} lines"] * (lines > FUNCTION_LINES)
            offences += [f"{where}: {count} arguments"] * (count > ARGUMENTS)
            offences += [f"{where}: {deep} blocks deep"] * (deep > NESTING)
    assert not offences, "\n".join(offences)


def test_every_module_says_what_it_is_for() -> None:
    silent = [place(file) for file in python_files("hone", "examples", "bench") if tree(file).body and not ast.get_docstring(tree(file))]
    assert not silent, "\n".join(silent)


def test_imports_go_down_only() -> None:
    """The arrows themselves are contracts in pyproject.toml."""
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True) == 0


def test_light_rooms_import_nothing_heavy() -> None:
    """Planning, reading data and every command's help work without loading torch, and at once."""
    wanted = [name for room in LIGHT for name in [room, *_modules_of(room)]]
    loaded = _loaded_by(f"import importlib; [importlib.import_module(name) for name in {wanted!r}]")
    assert "hone.core.types" in loaded
    assert "hone.plan.shapes" in loaded
    assert not HEAVY & loaded


def test_import_hone_imports_next_to_nothing() -> None:
    mine = {name for name in _loaded_by("import hone") if name.partition(".")[0] == "hone"}
    assert mine == {"hone"}


def test_help_imports_no_verb() -> None:
    loaded = _loaded_by(
        "import sys; out, sys.stdout = sys.stdout, sys.stderr; from hone.cli.main import main; main(['--help']); sys.stdout = out"
    )
    assert {name for name in loaded if name.startswith("hone.")} == {"hone.cli", "hone.cli.main"}
    assert not (HEAVY | {"yaml", "rich"}) & loaded


def test_public_names_are_where_the_table_says() -> None:
    import hone

    assert "Engine" in dir(hone)
    assert [name for name in hone.__all__ if not hasattr(hone, name)] == []


def _modules_of(room: str) -> list[str]:
    folder = ROOT.joinpath(*room.split("."))
    deep = folder.is_dir() and room != "hone"
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in sorted(folder.glob("*.py")) if deep and file.stem != "__init__"
    ]


def _loaded_by(script: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a script."""
    script += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_nothing_is_assigned_into_imported_modules_or_classes() -> None:
    offences = []
    for file in python_files("hone", "examples", "bench"):
        imported = source.imported_names(tree(file))
        offences += [f"{place(file, node)}: {ast.unparse(node)}" for node in ast.walk(tree(file)) if _patched(node) & imported.keys()]
    assert not offences, "\n".join(offences)


def _patched(node: ast.AST) -> set[str]:
    """Names whose attributes a statement sets or deletes."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr") and node.args:
        targets = [ast.Attribute(node.args[0], "", ast.Store())]
    flat = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple | ast.List) else [target])]
    return {source.root_name(each) for each in flat if isinstance(each, ast.Attribute)}


def test_other_libraries_are_what_they_were() -> None:
    """Compares every module and class of torch, transformers and peft before and after all of hone is imported and used."""
    done = subprocess.run([sys.executable, "-m", "tests.house.patches"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["compared"] > 10_000
    assert result["changed"] == []


def test_a_patch_would_be_seen() -> None:
    old, new, counter = (lambda: 0), (lambda: 1), 7
    before = {"torch": {"f": old, "calls": counter}, "torch:Tensor": {"add": old}}
    assert changes(before, before) == []
    assert changes(before, {"torch": {"f": old, "calls": 8}, "torch:Tensor": {"add": old}}) == []
    assert len(changes(before, {"torch": {"f": new, "calls": 8}, "torch:Tensor": {}})) == 2
    assert len(changes(before, before | {"torch:Tensor": {"add": old, "ours": test_no_dangerous_call}})) == 1


def test_no_dangerous_call() -> None:
    offences = []
    for file, node in nodes("hone", "examples", "bench"):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            why = "runs a shell" if any(word.arg == "shell" for word in node.keywords) else BANNED.get(name)
            offences += [f"{place(file, node)}: {name} {why}"] * (why is not None)
    assert not offences, "\n".join(offences)


def test_no_hidden_defaults_and_no_hidden_state() -> None:
    """No three-argument getattr, no `global`, no bare `except`."""
    offences = []
    for file, node in nodes("hone"):
        guess = isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and len(node.args) == 3
        bare = isinstance(node, ast.ExceptHandler) and node.type is None
        if guess or bare or isinstance(node, ast.Global):
            offences.append(f"{place(file)}:{node.lineno}: {ast.unparse(node).splitlines()[0]}")
    assert not offences, "\n".join(offences)


def test_only_known_packages_are_imported() -> None:
    allowed = BASE | BROUGHT | {"hone", "_typeshed"} | set(sys.stdlib_module_names)
    offences = []
    for file in python_files("hone"):
        top = {node for node in tree(file).body if isinstance(node, ast.Import | ast.ImportFrom)}
        for node in ast.walk(tree(file)):
            for name in _imported(node) - (allowed if node in top else allowed | OPTIONAL):
                offences.append(f"{place(file, node)}: {name}")
    assert not offences, "\n".join(offences)


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {(node.module or "hone").partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def test_dependencies_are_the_four_and_the_tested_versions_are_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {_name(each) for each in project["dependencies"]}
    assert names == BASE
    pinned = {_name(line): line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line}
    assert names | {_name(each) for each in project["optional-dependencies"]["dev"]} <= pinned.keys()
    assert "+" not in pinned["torch"]


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_-]+", requirement)
    return found[0].lower().replace("_", "-") if found else ""


def test_every_code_is_explained_and_every_explanation_is_used() -> None:
    used: dict[str, str] = {}
    for file, node in nodes("hone"):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"([CDTPMRSF]\d|[HV]0)\d\d(:|$)", node.value):
            used[node.value[:4]] = place(file, node)
    assert len(used) > 20
    assert {code: where for code, where in used.items() if code not in catalogue()} == {}, "not in hone/core/codes/*.yaml"
    assert sorted(catalogue().keys() - used.keys()) == [], "described, but nothing raises it"


def test_explanations_are_written_out() -> None:
    for code, entry in catalogue().items():
        assert len(entry.title) <= 80 and not entry.title.endswith("."), code
        assert len(entry.why) > 60 and len(entry.fix) > 20, code


def test_codes_are_raised_by_name() -> None:
    """A code that is put together at run time could not be found by the test above."""
    odd = []
    for file, node in nodes("hone"):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "HoneError":
            first = node.args[0] if node.args else None
            odd += [place(file, node)] * isinstance(first, ast.JoinedStr | ast.BinOp | None)
    assert odd == []


def test_no_stray_words() -> None:
    offences = []
    for file in _texts():
        for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
            offences += [f"{place(file)}:{number}: {word}" for word in FORBIDDEN if word in line]
    assert not offences, "\n".join(offences)


def _texts() -> list[Path]:
    kinds = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".jsonl", ".jinja", ".css", ".c", ".sh", ""}
    found = [file for file in ROOT.iterdir() if file.is_file()]
    for room in (*source.ROOMS, "docs", ".ci"):
        found += [file for file in (ROOT / room).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return [file for file in found if file.suffix in kinds]


def test_the_readme_shows_the_real_tree() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    shown = re.findall(r"^(?:  )?([a-z_]+)/ ", text[text.index("\nhone/") :].partition("\n```")[0], flags=re.MULTILINE)
    rooms = {file.parent.name for file in (ROOT / "hone").glob("*/__init__.py")}
    assert rooms | {"examples", "bench", "tests"} <= set(shown)
    assert [name for name in shown if not (ROOT / name).is_dir() and not (ROOT / "hone" / name).is_dir()] == []
    assert len(text.splitlines()) <= 200
