"""The `model` and `hardware` sections of a run file."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge

from hone.core.config import settings
from hone.plan.packed import Scheme


@settings
class ModelSettings:
    """The model to start from."""

    name: str
    """Hub id or folder of any causal language model of transformers."""
    revision: str | None = None
    """Branch, tag or commit of the hub repository."""
    quantise: Literal["none", "nf4", "fp4", "int8"] = "none"
    """Keep the linear layers in 4 or 8 bits: a quarter to a half of the memory, a little quality. Only adapters can be trained then."""
    double_quant: bool | None = None
    """Quantise the scales of 4-bit weights again, which saves 0.37 bits of each. None means yes."""
    teacher: str | None = None
    """The model that a distilling objective learns from: a run, an adapter, a folder or a hub id."""
    trust_remote_code: bool = False
    """Allow the repository's own Python code to run. Off unless you have read it."""

    @property
    def scheme(self) -> Scheme | None:
        """How the base is to be quantised; None leaves it as its files are."""
        if self.quantise == "none":
            return None
        return Scheme(self.quantise, double=self.quantise != "int8" and self.double_quant is not False)


@settings
class HardwareSettings:
    """Where and how the numbers are computed. None of this changes what is learned."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes a GPU when there is one."""
    dtype: Literal["auto", "bfloat16", "float16", "float32", "float64"] = "auto"
    """Type of the frozen weights and of the arithmetic; auto asks a one-second probe. What is trained is kept in fp32."""
    token_budget: Annotated[int, Ge(1)] | None = None
    """Tokens of a micro-batch. None fits it to the machine's cache or memory."""
    recompute: Literal["auto", "never", "always"] = "auto"
    """Compute blocks again in the backward instead of keeping what they need: a third more time, far less memory. auto does it
    where the plan does not fit otherwise."""
    threads: Annotated[int, Ge(1)] | None = None
    """CPU threads; None leaves the choice to the machine."""
    signals: Literal["auto", "live", "cached"] = "auto"
    """When the reference and the teacher are asked: at each step, or once before training, kept on disk; the loss is the same. auto
    asks once where rows are seen several times, and where the method moves the base itself."""
    compile: bool = False
    """Compile the model's layers with torch.compile: faster on long runs, after a slow start."""
