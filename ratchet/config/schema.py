"""The sections of a recipe. Each field: type, unit, bound, sentence; its default exists only here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.config.cluster import ClusterSection
from ratchet.config.combinations import refused
from ratchet.config.curve import PositiveCurve, WholeCurve
from ratchet.config.guard import GuardSection
from ratchet.config.learning import (
    AlgorithmSection,
    CurriculumSection,
    PositivesSection,
    RewardSection,
    TrainSection,
)
from ratchet.config.loggers import LogSection
from ratchet.config.section import Section


class RunSection(Section):
    """Where the run lives and what makes it repeatable."""

    study: str = Field("", description="Name of the study; decides the figure drawn at the end.")
    name: str = Field("", description="Name of the run's folder; empty chooses the study's name and the next number.")
    folder: str = Field("runs", description="Folder that holds run folders.")
    seed: int = Field(0, ge=0, description="Every random choice of the run derives from this number.")
    threads: int = Field(0, ge=0, description="CPU threads for arithmetic; 0 uses all cores.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the policy lives; auto takes a GPU if there is one."
    )


class TinySection(Section):
    """A small model made from nothing; its words and characters come from the environment."""

    family: Literal["llama", "mistral", "qwen2", "qwen3"] = Field("qwen3", description="Form of the decoder.")
    hidden: int = Field(64, ge=8, description="Width of the residual stream, in channels.")
    layers: int = Field(2, ge=1, description="Number of layers.")
    query_heads: int = Field(4, ge=1, description="Query heads per layer.")
    key_heads: int = Field(4, ge=1, description="Key/value heads per layer; divides query_heads.")
    head_size: int = Field(16, ge=2, multiple_of=2, description="Channels per head.")
    intermediate: int = Field(192, ge=8, description="Width of the feed-forward layer, in channels.")
    context: int = Field(256, ge=8, description="Most positions, in tokens.")
    rope_base: float = Field(100.0, gt=1, description="Base of the rotary frequencies; small for short contexts.")
    tied: bool = Field(False, description="Whether the output head is the embedding.")
    characters: str = Field("", description="Further characters the tokenizer must know.")
    words: tuple[str, ...] = Field((), description="Further strings that are single tokens.")

    @model_validator(mode="after")
    def _heads(self) -> TinySection:
        if self.query_heads % self.key_heads:
            raise ValueError(f"query_heads = {self.query_heads} must be a multiple of key_heads = {self.key_heads}")
        return self


class LoraSection(Section):
    """A low-rank adapter, trained by the library peft in place of the weights themselves."""

    rank: int = Field(0, ge=0, description="Rank of the adapter's matrices; 0 trains all weights.")
    alpha: float = Field(32.0, gt=0, description="Their product counts alpha / rank.")
    targets: tuple[str, ...] = Field(
        (), description="Names of the layers that get one, such as q_proj; empty takes all linear layers but the head."
    )
    four_bit: bool = Field(
        False, description="Keep the frozen weights in four bits (QLoRA); needs bitsandbytes and a GPU."
    )


class PolicySection(Section):
    """The model that is trained."""

    model: str = Field(
        "",
        description="Folder of a Hugging Face checkpoint, or a hub id, owner/name or owner/name@revision; empty makes "
        "a tiny model.",
    )
    decoder: Literal["auto", "own", "transformers"] = Field(
        "auto",
        description="What computes the model: own refuses what the project's decoder cannot run, transformers takes "
        "that library; auto takes our own where it can.",
    )
    chat_template: str = Field(
        "", description="File of a chat template (Jinja) to use in place of the model's own; kept in checkpoints."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of matrix products; weights stay float32."
    )
    attention: Literal["sdpa", "flex"] = Field(
        "sdpa",
        description="What computes attention in our decoder's training on a GPU: torch's scaled_dot_product_attention "
        "over padded rows, or its FlexAttention, compiled, without padding.",
    )
    teacher: str = Field("", description="Folder of a Hugging Face checkpoint to learn from, for algorithms that do.")
    context: int = Field(
        0, ge=0, description="Most tokens of prompt and answer together; 0 takes the model's own limit."
    )
    lora: LoraSection = Field(default_factory=LoraSection)
    tiny: TinySection = Field(default_factory=TinySection)


class WarmStartSection(Section):
    """Supervised fine-tuning on the environment's demonstrations before RL; cached by the hash of its settings."""

    steps: int = Field(0, ge=0, description="Updates; 0 skips the warm start.")
    batch: int = Field(16, ge=1, description="Demonstrations per update.")
    lr: PositiveCurve = Field(3e-3, description="Learning rate.")
    options: dict[str, object] = Field(
        default_factory=dict, description="Environment options that hold during the warm start only."
    )
    cache: str = Field("", description="Folder of finished warm starts; empty uses the user's cache folder.")


class EnvironmentSection(BaseModel):
    """What is asked and how it is judged. All keys but `name` are the environment's own options."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str = Field(min_length=1, description="A built-in environment, or file.py:Class.")

    @property
    def options(self) -> dict[str, object]:
        return dict(self.model_extra or {})


class ExploreSection(Section):
    """How the policy is asked."""

    prompts_per_step: int = Field(32, ge=1, description="Different tasks per step.")
    samples_per_prompt: int = Field(8, ge=1, description="Attempts per task: the group.")
    max_tokens: int = Field(512, ge=1, description="Most new tokens per turn.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Smallest likely set whose mass reaches this is kept; 1 keeps all."
    )
    top_k: int = Field(0, ge=0, description="Likeliest tokens kept; 0 keeps all.")
    stop: tuple[str, ...] = Field((), description="Strings that end a turn.")
    rollout_timeout_s: float = Field(
        600.0, gt=0, description="Most seconds one attempt may take, then it is dropped and counted."
    )
    max_failed_share: float = Field(
        0.5, ge=0, le=1, description="The run stops when more than this share of a step's attempts fails."
    )


class SyncSection(Section):
    """When the sampler gets new weights."""

    interval: WholeCurve = Field(1, description="Steps between refreshes of the sampler.")
    offset: int = Field(0, ge=0, description="Steps the sampler may run ahead of the trainer.")
    offline: bool = Field(False, description="Never refresh the sampler: every batch comes from the starting policy.")
    partial_rollouts: bool = Field(
        False,
        description="Load new weights as soon as they are there, in the middle of answers too; each token knows its "
        "version. Such a run is not repeatable.",
    )


class DataSection(Section):
    """Where groups come from, if not from the sampler."""

    from_run: str = Field("", description="Folder of a run whose recorded groups are trained on, step by step.")


class BufferSection(Section):
    """Where groups wait between explorer and trainer, on disk."""

    kind: Literal["fifo", "replay"] = Field(
        "fifo", description="fifo trains each group once, in its step; replay trains the groups of highest priority."
    )
    url: str = Field("", description="SQLAlchemy URL of the database; empty keeps buffer.sqlite in the run's folder.")
    name: str = Field("", description="Name of the buffer within its database; empty takes the run's name.")
    train_prompts: int = Field(
        0, ge=0, description="Groups trained per step under replay; 0 takes explore.prompts_per_step."
    )
    priority: str = Field(
        "freshness",
        min_length=1,
        description="What replay prefers: freshness, advantage (largest mean |advantage|), or file.py:function.",
    )
    reuse_penalty: float = Field(1.0, ge=0, description="Taken off a group's priority for each use.")
    cooldown: int = Field(0, ge=0, description="Steps a group rests after a use under replay.")
    max_uses: int = Field(0, ge=0, description="Most uses of a group under replay; 0 sets no limit.")
    capacity: int = Field(0, ge=0, description="Most groups kept under replay, lowest priority first out; 0: no limit.")
    max_staleness: int = Field(
        -1,
        ge=-1,
        description="Most steps a group's weights may be behind the trainer, else it is dropped; -1: no limit.",
    )


class EngineSection(Section):
    """The sampler."""

    name: Literal["ratchet", "transformers", "vllm", "sglang"] = Field(
        "ratchet",
        description="ratchet is the project's own decoder in this process, where the model has its form; transformers "
        "is that library in this process; vllm runs in this process or, with url, behind a server; sglang behind one.",
    )
    max_rows: int = Field(512, ge=1, description="Most sequences generated at once; the rest wait their turn.")
    graphs: bool = Field(True, description="On a GPU, replay the steps of ratchet's decoder as CUDA graphs.")
    compile: bool = Field(False, description="On a GPU, let torch.compile fuse ratchet's decoder; the start is slower.")
    url: str = Field(
        "", pattern=r"^(https?://.+)?$", description="Address of the engine's server, http://127.0.0.1:8000 say."
    )
    command: str = Field(
        "",
        description="Words that start the server, and start it again if it dies; {model} stands for the folder of the "
        "policy it begins with. Empty: somebody else starts it.",
    )
    folder: str = Field(
        "", description="Folder in which a server finds new weights; empty takes this machine's shared memory."
    )
    start_s: float = Field(600.0, gt=0, description="Most seconds a server may take to come up, or back.")
    timeout_s: float = Field(1800.0, gt=0, description="Most seconds a server may take for one answer or one load.")
    memory: float = Field(0.4, gt=0, le=1, description="Share of the GPU's memory that vLLM in this process takes.")
    options: dict[str, object] = Field(
        default_factory=dict, description="Further engine arguments of vLLM in this process, as its own page has them."
    )


class SubagentSection(Section):
    """Who speaks for the frozen agents that an environment spawns."""

    policy: str = Field(
        "start",
        min_length=1,
        description='"start" is the policy the run begins with; else a folder of a Hugging Face checkpoint, or the URL '
        "of a server that speaks OpenAI's chat completions, http://127.0.0.1:8000/v1 say.",
    )
    model: str = Field("", description="Name of the model that a server is asked for.")
    max_tokens: int = Field(256, ge=1, description="Most new tokens per turn of an agent.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Smallest likely set whose mass reaches this is kept.")
    top_k: int = Field(0, ge=0, description="Likeliest tokens kept; 0 keeps all.")
    timeout_s: float = Field(120.0, gt=0, description="Most seconds a server may take for one answer.")

    @property
    def is_server(self) -> bool:
        """Whether the agents live behind a URL."""
        return self.policy.startswith(("http://", "https://"))

    @model_validator(mode="after")
    def _named(self) -> SubagentSection:
        if self.is_server and not self.model:
            raise ValueError(f'policy = "{self.policy}" is a server: set model to the name it knows the model by')
        return self


class SandboxSection(Section):
    """Where code written by the policy runs, and what it may use. Limits are those of one check."""

    backend: Literal["auto", "bubblewrap", "linux", "docker", "podman", "none"] = Field(
        "auto", description="What makes the boxes; auto takes bubblewrap, else namespaces and Landlock by ourselves."
    )
    allow_unsafe: bool = Field(
        False, description="Run untrusted code without isolation where none can be had; recorded in the run."
    )
    workers: int = Field(
        0, ge=0, description="Warm workers that check at the same time; 0 takes one more than there are CPU cores."
    )
    wall_s: float = Field(2.0, gt=0, description="Most seconds of one check, then everything in it is killed.")
    cpu_s: float = Field(2.0, gt=0, description="Most CPU seconds of one process, rounded up to whole ones.")
    memory_mb: int = Field(256, ge=64, description="Most memory of one process, in MiB of address space.")
    processes: int = Field(8, ge=0, description="Most processes and threads that a check may start.")
    file_mb: int = Field(4, ge=1, description="Largest file that may be written, in MiB.")
    scratch_mb: int = Field(8, ge=1, description="Size of a scratch folder, in MiB.")
    image: str = Field("", description="Image of docker and podman.")
    readable: tuple[str, ...] = Field((), description="Further paths that can be read inside; never name secrets.")


class EvalSection(Section):
    """Held-out evaluation during and after training."""

    every: int = Field(0, ge=0, description="Steps between evaluations; 0 evaluates at the end only.")
    at_start: bool = Field(False, description="Evaluate the starting policy too, before the first step.")
    tasks: int = Field(0, ge=0, description="Held-out tasks per evaluation; 0 evaluates never.")
    samples: int = Field(1, ge=1, description="Attempts per held-out task.")


class RecordSection(Section):
    """What is kept on disk. Metrics and events always are."""

    checkpoint_every: int = Field(10, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, description="Newest checkpoints kept; the best and the last always are.")
    rollouts: bool = Field(True, description="Keep every group of every step, tokens included.")


class RunConfig(Section):
    """A whole recipe."""

    run: RunSection = Field(default_factory=RunSection)
    policy: PolicySection = Field(default_factory=PolicySection)
    environment: EnvironmentSection
    warm_start: WarmStartSection = Field(default_factory=WarmStartSection)
    explore: ExploreSection = Field(default_factory=ExploreSection)
    reward: RewardSection = Field(default_factory=RewardSection)
    algorithm: AlgorithmSection = Field(default_factory=AlgorithmSection)
    train: TrainSection = Field(default_factory=TrainSection)
    sync: SyncSection = Field(default_factory=SyncSection)
    data: DataSection = Field(default_factory=DataSection)
    curriculum: CurriculumSection = Field(default_factory=CurriculumSection)
    positives: PositivesSection = Field(default_factory=PositivesSection)
    buffer: BufferSection = Field(default_factory=BufferSection)
    engine: EngineSection = Field(default_factory=EngineSection)
    subagent: SubagentSection = Field(default_factory=SubagentSection)
    sandbox: SandboxSection = Field(default_factory=SandboxSection)
    eval: EvalSection = Field(default_factory=EvalSection)
    record: RecordSection = Field(default_factory=RecordSection)
    log: LogSection = Field(default_factory=LogSection)
    guard: GuardSection = Field(default_factory=GuardSection)
    cluster: ClusterSection = Field(default_factory=ClusterSection)

    @property
    def train_prompts(self) -> int:
        """Groups trained per step."""
        return self.buffer.train_prompts or self.explore.prompts_per_step

    @model_validator(mode="after")
    def _combinations(self) -> RunConfig:
        if sentences := list(refused(self)):
            raise ValueError(". ".join(sentences))
        return self
