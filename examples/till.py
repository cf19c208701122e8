"""A till that a model must work with tool calls: an environment in one screen. `python examples/till.py` plays a round by script.

In a run: hone train grpo model=... rollout.prompts=prompts.jsonl rollout.environment=examples/till.py:Till
"""

from __future__ import annotations

from hone.core.types import Conversation, Message
from hone.rollout.env import Reply
from hone.rollout.prompts import Prompt

PRICE = {"type": "object", "properties": {"price": {"type": "integer"}}, "required": ["price"]}
EMPTY = {"type": "object", "properties": {}}


class Till:
    """Ring up every price with `add`, ask for the `total`, and say it. Rewards: 1 for the right sum said, 0.2 for the right sum rung up."""

    tools = (
        {"type": "function", "function": {"name": "add", "description": "ring up one price", "parameters": PRICE}},
        {"type": "function", "function": {"name": "total", "description": "the sum so far", "parameters": EMPTY}},
    )

    def reset(self, prompt: Prompt) -> Conversation:
        self.sum, self.wanted = 0, int(prompt.row["answer"])
        return prompt.conversation

    def step(self, said: Message) -> Reply:
        if not said.tool_calls:
            right = said.content.rstrip(".").split()[-1:] == [str(self.wanted)]
            return Reply(rewards={"said": float(right), "rung_up": 0.2 * (self.sum == self.wanted)}, done=True)
        return Reply(tuple(Message("tool", self.work(call["function"])) for call in said.tool_calls))

    def work(self, call: dict) -> str:
        """What the till shows after one call; a wrong one is told, never raised."""
        if call["name"] == "total":
            return f"{self.sum} coins"
        price = call["arguments"].get("price")
        if call["name"] != "add" or not isinstance(price, int):
            return 'the till knows {"name": "add", "arguments": {"price": 7}} and {"name": "total", "arguments": {}}'
        self.sum += price
        return "ok"


def main() -> float:
    """A scripted round; returns what it earned."""
    from hone.core.types import Origin
    from hone.rollout.env import spoken

    till, earned = Till(), 0.0
    asked = (Message("user", "A lamp is 7 coins and a rope is 5 coins. What do I pay?"),)
    till.reset(Prompt(asked, [], {"answer": "12"}, Origin("example", 1)))
    adding = [f'<tool_call>{{"name": "add", "arguments": {{"price": {price}}}}}</tool_call>' for price in (7, 5)]
    for text in (" ".join(adding), '<tool_call>{"name": "total", "arguments": {}}</tool_call>', "That is 12"):
        reply = till.step(spoken(text))
        earned += sum(reply.rewards.values())
        print(f"model: {text}\ntill:  {', '.join(m.content for m in reply.messages) or dict(reply.rewards)}")
    return earned


if __name__ == "__main__":
    main()
