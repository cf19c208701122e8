"""`--to adapter`: the small file beside the base, in peft's format."""

from __future__ import annotations

import shutil

from hone.core.errors import HoneError
from hone.core.files import staged_folder
from hone.export.base import TARGETS, Artifact, Order
from hone.export.papers import write_readme, write_tokenizer

SLACK = 64 << 20
"""Tokenizer, certificate and papers."""
FILES = ("adapter_config.json", "adapter_model.safetensors")


@TARGETS.add("adapter")
class Adapter:
    """A copy of the adapter with tokenizer, template and certificate. Serves on top of the base that it was trained on."""

    quants: tuple[str, ...] = ("",)

    def needed(self, order: Order) -> int:
        source = order.source
        if source.adapter is None:
            what = f"'{source.name}' was trained with {source.method}, which leaves a whole model and no adapter"
            raise HoneError("F045", what, where="--to adapter", fix="use --to merged, which is the whole model")
        return SLACK + sum((source.adapter / name).stat().st_size for name in FILES)

    def write(self, order: Order) -> Artifact:
        source = order.source
        assert source.adapter is not None
        base = source.base.get("name", "BASE")
        commands = [f"vllm serve {base} --enable-lora --lora-modules {source.name}=./{order.folder.name}", f"hone chat {order.folder.name}"]
        with staged_folder(order.folder) as stage:
            write_tokenizer(stage, source)
            for name in FILES:
                shutil.copyfile(source.adapter / name, stage / name)
            source.golden.save(stage)
            checked = order.check(stage)
            write_readme(stage, order, what=f"An adapter for `{base}`, in peft's format.", commands=commands, checked=checked)
        return Artifact(target="adapter", path=order.folder, commands=tuple(commands), checked=checked)
