"""`--to hub`: an artifact and its model card on the Hugging Face hub; a broken push goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError

from hone.core.errors import HoneError
from hone.core.files import MANIFEST
from hone.export.adapter import Adapter, unknown_to_vllm
from hone.export.base import TARGETS, Artifact, Order, Target, folder_name
from hone.export.merged import Merged
from hone.export.papers import README
from hone.tuning.folder import CONFIG

LARGE = 10 << 20
"""Bytes from which on a file gets a commit of its own."""
LEFT = (MANIFEST, "serve.sh")
"""Files that mean nothing on the hub."""


@TARGETS.add("hub")
class Hub:
    """A push to the hub with a model card: what else the command makes (--to gguf,hub), or else the adapter or the merged model."""

    quants: tuple[str, ...] = ("",)

    def needed(self, order: Order) -> int:
        _repo(order)
        _token()
        target, inner = _own(order)
        return target.needed(inner)

    def write(self, order: Order) -> Artifact:
        repo, api = _repo(order), HfApi(token=_token())
        folders = list(order.made.values())
        checked: Any = "see the artifact that was pushed"
        if not folders:
            target, inner = _own(order)
            made = target.write(inner)
            folders, checked = [made.path], made.checked
        with _explained(order, repo, folders[0]):
            api.create_repo(repo, private=bool(order.options.get("private")), exist_ok=True)
            for i, folder in enumerate(folders):
                _push(api, order, folder, "" if i == 0 else f"{folder.name}/")
        url = f"{constants.ENDPOINT}/{repo}"
        return Artifact(
            target="hub",
            path=folders[0],
            what="A repository on the hub.",
            commands=tuple(_lines(order, folders[0])),
            notes=(f"pushed to {url}",),
            checked=checked,
        )


def _own(order: Order) -> tuple[Target, Order]:
    """What is pushed where nothing else was asked for."""
    target: Target = Adapter() if order.source.adapter is not None else Merged()
    name = "adapter" if order.source.adapter is not None else "merged"
    inner = replace(order, quant=target.quants[0], folder=order.folder.parent / folder_name(order.source, name, target.quants[0]))
    return target, inner


def _repo(order: Order) -> str:
    repo = order.options.get("repo")
    if not repo or str(repo).count("/") != 1:
        raise HoneError("F048", f"'{repo or ''}' is no repository of the hub", where="--repo", fix="name one: --repo OWNER/NAME")
    return str(repo)


def _token() -> str:
    """From the environment or the hub's own cache; it is never written anywhere by hone."""
    if constants.is_offline_mode():
        raise HoneError("F048", "HF_HUB_OFFLINE is set, so nothing can be pushed", where="--to hub", fix="unset it")
    token = get_token()
    if not token:
        fix = "run `hf auth login`, or set HF_TOKEN, with a token that may write"
        raise HoneError("F048", "there is no token for the hub", where="--to hub", fix=fix)
    return token


def _card(order: Order, folder: Path) -> bytes:
    """README.md on the hub: the run's model card, with the artifact's own use and measurements under it."""
    card = order.source.card(_repo(order), not any(folder.glob("*.gguf"))) or _plain_front(order)
    return f"{card.rstrip()}\n\n## This copy\n\n{_deeper(_at_home(order, folder))}\n".encode()


def _at_home(order: Order, folder: Path) -> str:
    """The artifact's README, whose lines to copy name the repository instead of a folder that only this machine has."""
    said, _, used = (folder / README).read_text("utf-8").partition("\n")[2].strip().partition("## Use")
    verify = f"hf download {_repo(order)} --local-dir copy\nhone verify copy"
    checked = used.partition("## Check")[2].replace(f"hone verify {folder.name}", verify)
    return "\n".join([f"{said}## Use", "", "```bash", *_lines(order, folder), "```", "", f"## Check{checked}"])


def _lines(order: Order, folder: Path) -> list[str]:
    """What uses the repository."""
    repo, name, base = _repo(order), order.source.name, order.source.base.get("name", "")
    if any(folder.glob("*.gguf")):
        return [f"llama-cli -hf {repo} --jinja", f"ollama run hf.co/{repo}"]
    if not (folder / CONFIG).is_file():
        return [f"hone chat {repo}", f"vllm serve {repo} --served-model-name {name}"]
    served = f"vllm serve {base} --enable-lora --lora-modules {name}={repo}"
    return [f"hone chat {repo}", *([] if unknown_to_vllm(folder) or Path(base).exists() else [served])]


def _plain_front(order: Order) -> str:
    """Front matter for a model that no run of ours has made."""
    base = order.source.base.get("name", "")
    known = f"base_model: {base}\n" if base.count("/") == 1 and not Path(base).exists() else ""
    return f"---\npipeline_tag: text-generation\n{known}tags:\n- hone\n---\n\n# {order.source.name}\n"


def _deeper(text: str) -> str:
    """Headings one level down."""
    return "\n".join(f"#{line}" if line.startswith("## ") else line for line in text.splitlines())


def _push(api: HfApi, order: Order, folder: Path, prefix: str) -> None:
    """Large files first, each in a commit of its own; the hub skips what it has. README.md comes last, with the small ones."""
    repo, message = _repo(order), str(order.options.get("message") or "Upload by hone")
    files = sorted((file for file in folder.rglob("*") if file.is_file() and file.name not in LEFT), key=lambda f: -f.stat().st_size)
    small = []
    for file in files:
        place = prefix + file.relative_to(folder).as_posix()
        if file.stat().st_size < LARGE:
            small.append(CommitOperationAdd(place, _card(order, folder) if place == README else file))
            continue
        order.tell(f"pushing {place}")
        api.create_commit(repo, [CommitOperationAdd(place, file)], commit_message=f"{message}: {place}")
    order.tell(f"pushing {len(small)} small files")
    api.create_commit(repo, small, commit_message=message)


@contextmanager
def _explained(order: Order, repo: str, folder: Path) -> Iterator[None]:
    """What a refusal or a broken line means. The artifact stays, and the same command goes on."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = {401: "the token is not valid", 403: "the token may not write there", 404: "there is no such owner"}.get(
            status, f"HTTP {status}"
        )
        fix = f"give a token that may write to {repo} (hf auth login); the artifact is in {folder}, and the same command goes on"
        raise HoneError("F049", f"the hub refused the push: {why}", where=repo, fix=fix) from None
    except (OSError, ValueError, RuntimeError) as error:
        line = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        fix = f"the artifact is in {folder}; the same command goes on where this one stopped"
        raise HoneError("F049", f"the push broke off ({line})", where=repo, fix=fix) from None
