"""A tiny model that answers every question with a tool call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_caller(folder: Path, model: Any, tokenizer: Any) -> None:
    """After a line break it writes a call, which is a token of its own here, and after that the end."""
    tokenizer.add_tokens([CALL])
    tokenizer.chat_template = WITH_TOOLS
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    (line_break,), call = tokenizer.encode("\n"), tokenizer.convert_tokens_to_ids(CALL)
    with torch.no_grad():
        known = model.model.embed_tokens.weight.normal_(generator=torch.Generator().manual_seed(0))
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        model.lm_head.weight[call], model.lm_head.weight[1] = known[line_break], known[call]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
