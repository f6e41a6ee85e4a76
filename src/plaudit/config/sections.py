"""Typed, inert settings. The docstring under a field is its help text, in `--help` and in the docs.

A section is a table of the TOML file. On the command line the table's name is left out: `[optimizer] lr` is
`--lr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from annotated_types import Ge, Gt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from plaudit.config.moved import renewed
from plaudit.errors import ConfigError

Auto = Literal["auto"]


def _joined(value: Any) -> Any:
    return ",".join(value) if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value) else value


Sources = Annotated[str, BeforeValidator(_joined)]
"""A file, a folder or a hub name, or several: a list, or one text with commas between them."""
EvalEvery = Annotated[int, Ge(0)] | Auto


class Section(BaseModel):
    """Base of every table: frozen, unknown keys refused, docstrings are descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataSection(Section):
    """How data files are read and cut."""

    max_length: int = Field(512, ge=8)
    """Longest prompt plus response, in tokens. A response is never cut."""
    on_long: Literal["truncate_prompt", "drop", "error"] = "truncate_prompt"
    """Longer rows: cut the prompt from the left (chats lose first turns), leave the row out, or stop. Always said."""
    eval_fraction: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the prompts held out for evaluation. Split by prompt, so no prompt is on both sides."""
    fields: dict[str, str] = {}
    """Which column a field of the dataset is read from, where its name does not say it: prompt=ask. a+b joins two
    columns; prompt= says that there is none."""
    limit: int = Field(0, ge=0)
    """Use only the first rows of the file (0 = all)."""
    max_gb: float = Field(16.0, gt=0)
    """Largest data file, unpacked; a row may take a 256th of it (64 MB). What is larger is refused, and not cut."""
    chat_template: Literal["auto", "never"] = "auto"
    """auto: messages go through the tokenizer's chat template; never: they are joined as plain text."""


class OptimizerSection(Section):
    """AdamW and its schedule."""

    lr: Annotated[float, Gt(0)] | Auto = "auto"
    """Peak learning rate; auto: by the method, the size of the model, and whether adapters are trained."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay; never on biases and norms."""
    warmup_fraction: float = Field(0.03, ge=0, le=1)
    """Share of the steps in which the learning rate rises linearly from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay after the warm-up. cosine ends at 10 % of the peak, linear at 0."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this global norm (0: never); the norm before it is logged as grad_norm."""

    @property
    def rate(self) -> float:
        """The learning rate as a number; a backend puts it in the place of "auto" when it knows the model."""
        assert self.lr != "auto", "the backend that builds the model sets the rate"
        return self.lr


class LoraSection(Section):
    """Low-rank adapters instead of training all weights (peft). Heads are always trained in full."""

    rank: int = Field(0, ge=0)
    """Rank of the adapters; 0 trains all weights. 8 is a good start."""
    alpha: int = Field(16, ge=1)
    """Adapters are scaled by alpha / rank."""
    targets: tuple[str, ...] | Auto = "auto"
    """Linear layers that get an adapter; auto: the attention and MLP layers of the architecture."""
    last_layers: int = Field(0, ge=0)
    """Adapters in the last so many layers only (0: in all). The layers below need no backward pass."""
    quantize: Literal["none", "4bit"] = "none"
    """4bit: QLoRA, the frozen base in NF4 (needs the extra `plaudit[qlora]` and a GPU)."""
    save: Literal["both", "merged", "adapter"] = "both"
    """What model/ holds: the merged model with its adapter in model/adapter, the merged model alone, or the adapter
    alone, in the layout of peft. A base in 4 bit gives the merged model."""

    @model_validator(mode="after")
    def _adapters(self) -> Self:
        fields = type(self).model_fields
        unused = [f for f in ("targets", "last_layers", "alpha", "save") if getattr(self, f) != fields[f].default]
        if not self.rank and unused:
            raise ConfigError(
                f"{unused[0]} is about adapters, and rank 0 means that there are none: all weights would be trained",
                where=f"lora.{unused[0]}",
                cure=f"set --rank, e.g. 8, or leave out --{unused[0].replace('_', '-')}",
            )
        return self


class ComputeSection(Section):
    """Where and how the arithmetic is done. Changes speed and memory, not what is learned."""

    device: str = "auto"
    """cpu, mps, cuda, cuda:1 and so on; auto: the first GPU if there is one, of Apple too."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the matrix products; weights, optimizer, log-probs and losses are fp32 always.
    auto: bf16 on a GPU that has it, and on a processor with native bf16 (avx512_bf16, amx_bf16) for a model at least
    256 wide; else fp32. A run that goes on keeps the precision that it began with."""
    tokens_per_microbatch: int = Field(8192, ge=16)
    """Tokens of one forward and backward pass. Lower it when memory is short: only rounding changes."""
    packing: bool = True
    """Compute nothing twice, where the architecture allows it: no padding; a prompt once for all its responses; the
    states of frozen lower layers ([lora] last_layers) once, kept in 1 GB; on a GPU a step of generation recorded and
    replayed. false: the plain way, slower and with other rounding."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about 1.3x the time, a fraction of the memory."""
    threads: Annotated[int, Ge(1)] | Auto = "auto"
    """CPU threads; auto leaves PyTorch's choice, in processes of the ray backend it is 1. In the manifest, because it
    changes the last bits."""
    backend: Literal["local", "ray"] = "local"
    """local: all models in this process. ray: sharded over workers of a Ray cluster; needs the package ray."""
    workers: int = Field(1, ge=1)
    """Of the ray backend: processes that each model that is trained or read is sharded over."""
    generators: int = Field(1, ge=1)
    """Of the ray backend: processes that draw responses, each with a whole policy."""
    ray_address: str = ""
    """Of a Ray cluster that runs already, as host:port or auto; empty: one is started on this machine."""


class SamplingSection(Section):
    """How responses are drawn."""

    temperature: float = Field(1.0, gt=0)
    """Divides the logits, in sampling and in every log-prob that is trained on."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling. Below 1 the sampled distribution is not the trained one: biased in training."""
    top_k: int = Field(0, ge=0)
    """Sample among the k most likely tokens (0 = all). Biased in training, as top_p."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Sample tokens at least this times as likely as the likeliest (0 = all). Biased in training, as top_p."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest response. Responses that reach it are counted, and penalised if the algorithm says so."""
    min_new_tokens: int = Field(0, ge=0)
    """The end token cannot be drawn before this length."""
    stop: tuple[str, ...] = ()
    """Texts that end a response besides the end token; special tokens may be among them."""
    text: Literal["whole", "plain"] = "whole"
    """What rewards, environments and samples see of a response: whole, with special tokens but its end; or plain,
    without them."""

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError(
                f"min_new_tokens {self.min_new_tokens} is above max_new_tokens {self.max_new_tokens}",
                where="sampling.min_new_tokens",
                cure="lower --min-new-tokens, or raise --max-new-tokens",
            )
        return self

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a run that trains on these samples should say of them."""
        cut = [
            f"{name} {value:g}"
            for name, value, all_of_it in (
                ("top_p", self.top_p, 1),
                ("top_k", self.top_k, 0),
                ("min_p", self.min_p, 0),
            )
            if value != all_of_it
        ]
        cautions = []
        if cut:
            cautions.append(
                f"{', '.join(cut)}: responses are not drawn from the distribution that is trained, so gradients are "
                "biased"
            )
        if self.min_new_tokens == self.max_new_tokens and not self.stop:
            cautions.append(
                f"min_new_tokens is max_new_tokens, {self.max_new_tokens}: no response can end by itself, so all "
                "count as cut by the length limit"
            )
        return tuple(cautions)

    def origin(self, samples: int, seed: int) -> dict[str, Any]:
        """What the provenance of a response keeps of how it was drawn; JSON-ready."""
        return {"sampling": self.model_dump(mode="json"), "samples": samples, "seed": seed}


Correction = Literal[
    "none", "truncate", "mask", "truncate_sequence", "mask_sequence", "truncate_geometric", "mask_geometric", "drop"
]


class MismatchSection(Section):
    """Correction for a sampler whose probabilities are not quite the trainer's: other precision, engine, or weights."""

    correction: Correction = "truncate"
    """Weight of a token's policy loss: trainer's over sampler's probability, truncated at weight_high; mask: 0 where
    it is above weight_high or below its inverse; none: 1. With _sequence the ratio is the product over the response,
    with _geometric its geometric mean. drop leaves out whole responses whose geometric mean is beyond (weight_high
    1.01 is strict, 2 loose), and weighs the others 1."""
    weight_high: float = Field(2.0, ge=1)
    """Largest weight; mask keeps no ratio above it, nor one below its inverse."""
    reuse_below: Annotated[float, Ge(0)] | Auto = "auto"
    """Take the sampler's log-probs for the trainer's where they agree to this on one row in eight (nats, each token);
    else, or at 0, score every row again. auto: 1e-4, and 0.2 with bf16 products, whose rounding is of that size. An
    iteration with one optimizer step needs neither."""
    max_staleness: int = Field(0, ge=0)
    """Iterations by which the weights that a response was drawn from may be older than the policy; beyond it the run
    stops. Above 0 only for a generator that samples ahead."""

    def with_products(self, precision: str) -> Self:
        """With the limit that ``auto`` stands for."""
        if self.reuse_below != "auto":
            return self
        return self.model_copy(update={"reuse_below": 0.2 if precision == "bf16" else 1e-4})

    @property
    def reuse_limit(self) -> float:
        """Nats; ``auto`` is that of fp32."""
        return 1e-4 if self.reuse_below == "auto" else self.reuse_below

    @property
    def treatment(self) -> Literal["none", "truncate", "mask"]:
        """What is done with the ratio of a token that is learned from."""
        if self.correction == "drop":  # leaves responses out, and weighs those that stay alike
            return "none"
        return cast("Literal['none', 'truncate', 'mask']", self.correction.partition("_")[0])

    @property
    def level(self) -> Literal["token", "sequence", "geometric"]:
        """What the ratio is of."""
        return cast("Literal['token', 'sequence', 'geometric']", self.correction.partition("_")[2] or "token")


class LogSection(Section):
    """What is shown and kept."""

    trackers: tuple[Literal["console", "tensorboard", "wandb", "mlflow", "trackio"], ...] = ("console", "tensorboard")
    """Who receives the figures besides the files of the run: a progress bar and status line on the console, TensorBoard
    files where the package is installed, Weights & Biases, MLflow, Trackio (docs/howto/trackers.md)."""
    samples: int = Field(8, ge=0)
    """Held-out prompts whose responses are kept in samples.jsonl at each evaluation."""

    @model_validator(mode="before")
    @classmethod
    def _as_today(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # What comes out of a validator is no JSON any more, in which a list is a tuple.
        return {k: tuple(v) if isinstance(v, list) else v for k, v in renewed(cls, values).items()}


class CheckpointSection(Section):
    """How much work a crash may cost."""

    every: int = Field(50, ge=0)
    """Optimizer steps (offline) or iterations (online) between checkpoints; 0: none by their number."""
    every_minutes: float = Field(10.0, ge=0)
    """A checkpoint is also due after so many minutes without one, at the end of the step; 0: none by time."""
    stuck_minutes: float = Field(30.0, ge=0)
    """A run in which nothing happens for so many minutes says what it waits for and writes the stacks of its threads; a
    command then starts again from the last checkpoint. 0: it waits for ever."""
    grace: float = Field(30.0, ge=0)
    """Seconds after SIGTERM in which the step that is under way may end; then it is given up, and the last checkpoint
    is the one that stays."""
    keep: int = Field(2, ge=1)
    """Checkpoints kept; older ones are deleted after a newer one is complete."""
    resume: bool = False
    """Go on from the newest valid checkpoint in the run directory."""


class Job(Section):
    """What every command that trains has in common."""

    relatives: ClassVar[Mapping[str, Any]] = {}
    """Further values of ``[algorithm] type``: name -> an algorithm, or a value of one that gives other defaults."""

    dataset: Sources = ""
    """What is learned from: a file, several, a directory, or a hub name."""
    out: str = "auto"
    """Run directory; auto: runs/<command>-<date>-<time>."""
    overwrite: bool = False
    """Replace a run directory that exists already. Without it such a directory is an error."""
    seed: int = Field(0, ge=0)
    """Seed of everything random: order of the data, sampling, fresh weights."""
    data: DataSection = DataSection()
    optimizer: OptimizerSection = OptimizerSection()
    lora: LoraSection = LoraSection()
    compute: ComputeSection = ComputeSection()
    log: LogSection = LogSection()
    checkpoint: CheckpointSection = CheckpointSection()

    @property
    def inputs(self) -> dict[str, str]:
        """What a run reads, by role ("model", "dataset"): files are hashed, and a resumed run must read the same."""
        return {}

    @property
    def takes_endpoint(self) -> bool:
        """Whether a model that only answers, over HTTP, may stand in the place of the model: nothing is trained."""
        return False

    @property
    def code(self) -> dict[str, str]:
        """Files and directories that a run computes with, by role: hashed too, but they may be mended on the way."""
        return {}

    @classmethod
    def as_recorded(cls, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """The manifest of an earlier start with the names that are written today."""
        return manifest

    @classmethod
    def comparable(cls, was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of an earlier start and of now, each with what must be the same and is not one value of them."""
        return dict(was), dict(now)


class PassesJob(Job):
    """What the commands share that make passes over rows."""

    epochs: int = Field(1, ge=1)
    """Passes over the data."""
    batch_size: int = Field(16, ge=1)
    """Demonstrations, pairs, ranked prompts or rated responses per optimizer step."""


class EvaluatedJob(Job):
    """What the commands share that are evaluated while they train."""

    eval_every: EvalEvery = "auto"
    """Iterations (online) or optimizer steps between evaluations, besides the one at the end; auto: some in the run."""


class OfflineJob(PassesJob):
    """What the commands share that learn from a fixed data set."""

    model: str = ""
    """Model to start from: hub name, directory, or GGUF file."""

    @property
    def inputs(self) -> dict[str, str]:
        """What a run reads, by role."""
        return {"model": self.model, "dataset": self.dataset}
