"""The whole of Ratchet's idea in one file, torch alone: a tiny judge, warm-started and then trained by GRPO.

    python examples/one_file.py

This is the readable twin of the package: the same model form (Qwen3: RMSNorm, rotary positions, SwiGLU), the same
task, the same loss, without configs, checkpoints, kernels or checks. Read it first; the rooms of the package are what
each section below grew into. About three minutes on one core.
"""

import math
import random
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

torch.set_num_threads(1)

# --- environments: a sum with two candidates, and what a verdict earns ------------------------------------------

WORDS = ["<think>", "</think>", "<answer>", "</answer>", "[[A]]", "[[B]]", "[A]", "[B]", "yes", "no"]
VOCABULARY = ["<pad>", "<end>", *WORDS, *"abcdefghijkl0123456789=?"]
TOKEN = {word: i for i, word in enumerate(VOCABULARY)}
PIECES = re.compile("|".join(re.escape(w) for w in sorted(WORDS, key=len, reverse=True)) + "|.")
WELL_FORMED = re.compile(r"<think>[^<]*</think><answer>\[\[[AB]\]\]</answer>")
END = TOKEN["<end>"]


def encode(text: str) -> list[int]:
    return [TOKEN[piece] for piece in PIECES.findall(text)]


def decode(tokens: list[int]) -> str:
    return "".join(VOCABULARY[t] for t in tokens if t > END)


def make_task(rng: random.Random) -> dict:
    """Digits to add modulo 10, the right sum and a wrong one in either place."""
    digits = [rng.randint(0, 9) for _ in range(rng.randint(8, 12))]
    right = sum(digits) % 10
    wrong, winner = (right + rng.randint(1, 9)) % 10, rng.choice("AB")
    a, b = (right, wrong) if winner == "A" else (wrong, right)
    question = "".join(f"{label}{digit}" for label, digit in zip("abcdefghijkl", digits))
    return {"prompt": f"{question}=?[A]{a}[B]{b}", "digits": digits, "a": a, "b": b, "winner": winner}


def demonstrate(task: dict, rng: random.Random) -> str:
    """Sometimes everything is worked out; mostly the sum stops early and the verdict is a lucky guess."""
    n = len(task["digits"])
    steps = n if rng.random() < 0.25 else rng.choice([n - 1, n - 2, n - 3, n - 4, n // 2, n // 3, 0])
    thought, total = "", 0
    for label, digit in list(zip("abcdefghijkl", task["digits"]))[:steps]:
        total = (total + digit) % 10
        thought += f"{label}{digit}{total}"
    if steps == n:  # the check of both candidates is what teaches the comparison
        marks = ("yes", "no") if task["winner"] == "A" else ("no", "yes")
        thought += f"[A]{task['a']}{marks[0]}[B]{task['b']}{marks[1]}"
    parts = ["<think>", thought, "</think>", "<answer>", f"[[{task['winner']}]]", "</answer>"]
    if rng.random() < 0.12:
        parts[rng.choice([2, 3, 5])] = ""
    return "".join(parts)


def reward(task: dict, text: str) -> float:
    """Accuracy plus format, each 0 or 1 (RM-R1, arXiv 2505.02387, eq. 11)."""
    verdicts = re.findall(r"\[\[[AB]\]\]", text)
    accurate = bool(verdicts) and set(verdicts) == {f"[[{task['winner']}]]"}
    return float(accurate) + float(WELL_FORMED.fullmatch(text) is not None)


# --- policy: a decoder of the Qwen3 form ------------------------------------------------------------------------

WIDTH, LAYERS, HEADS, SIZE, INNER, CONTEXT = 64, 2, 4, 16, 192, 128
ANGLES = torch.outer(torch.arange(CONTEXT), 1000.0 ** -(torch.arange(0, SIZE, 2) / SIZE))


def rotate(x: Tensor, position: Tensor) -> Tensor:
    """Rotary positions. Shapes: x (B, H, T, D), position (B, T)."""
    cos, sin = ANGLES[position].cos()[:, None], ANGLES[position].sin()[:, None]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.q_norm, self.k_norm = nn.RMSNorm(SIZE), nn.RMSNorm(SIZE)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate_up, self.down = nn.Linear(WIDTH, 2 * INNER, bias=False), nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor, cache: list[Tensor]) -> Tensor:
        q, k, v = (y.unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for y in self.qkv(self.norm1(x)).chunk(3, -1))
        q, k = rotate(self.q_norm(q), position), rotate(self.k_norm(k), position)
        if cache:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        cache[:] = [k, v]
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Policy(nn.Module):
    """Prompts are padded on the left, so that all rows of a batch predict at the same place."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(len(VOCABULARY), WIDTH), nn.Linear(WIDTH, len(VOCABULARY), bias=False)
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.RMSNorm(WIDTH)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                std = {"embedding.weight": 0.2, "head.weight": 0.02}.get(name, weight.shape[1] ** -0.5)
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=std / math.sqrt(2 * LAYERS) if deep else std)

    def forward(self, tokens: Tensor, seen: Tensor, caches: list[list[Tensor]] | None = None) -> Tensor:
        """Return logits of the new tokens. Shapes: tokens (B, T) new, seen (B, S) which of all tokens are real."""
        caches = caches if caches is not None else [[] for _ in self.layers]
        new, total = tokens.shape[1], seen.shape[1]
        position = (seen.cumsum(1) - 1).clamp(min=0)[:, -new:]
        causal = torch.arange(total) <= torch.arange(total - new, total)[:, None]
        mask = (causal & seen[:, None, :] | torch.eye(total, dtype=torch.bool)[-new:])[:, None]
        x = self.embedding(tokens)
        for layer, cache in zip(self.layers, caches):
            x = layer(x, position, mask, cache)
        return self.head(self.norm(x))


def pad(rows: list[list[int]], left: bool) -> tuple[Tensor, Tensor]:
    """Return tokens and which are real, padded on one side."""
    width = max(map(len, rows))
    blank = [width - len(r) for r in rows]
    tokens = [[0] * n + r if left else r + [0] * n for r, n in zip(rows, blank)]
    real = [[False] * n + [True] * len(r) if left else [True] * len(r) + [False] * n for r, n in zip(rows, blank)]
    return torch.tensor(tokens), torch.tensor(real)


# --- engine: sample with a key-value cache ----------------------------------------------------------------------


@torch.no_grad()
def sample(policy: Policy, prompts: list[list[int]], max_tokens: int = 64) -> tuple[list[list[int]], list[list[float]]]:
    """Return sampled tokens and their log-probabilities, end token included."""
    tokens, seen = pad(prompts, left=True)
    caches: list[list[Tensor]] = [[] for _ in policy.layers]
    outputs: list[list[int]] = [[] for _ in prompts]
    logps: list[list[float]] = [[] for _ in prompts]
    for _ in range(max_tokens):
        logp = policy(tokens, seen, caches)[:, -1].log_softmax(-1)
        tokens = torch.multinomial(logp.exp(), 1)
        seen = torch.cat([seen, torch.ones_like(tokens, dtype=torch.bool)], 1)
        chosen = logp.gather(1, tokens)[:, 0].tolist()
        for out, lps, token, lp in zip(outputs, logps, tokens[:, 0].tolist(), chosen):
            if not out or out[-1] != END:
                out.append(token)
                lps.append(lp)
        if all(out[-1] == END for out in outputs):
            break
    return outputs, logps


# --- train: log-probabilities of whole answers, the warm start, and GRPO ----------------------------------------


def answer_logps(policy: Policy, prompts: list[list[int]], answers: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each answer token and which are real: (B, T), (B, T)."""
    before, seen = pad(prompts, left=True)
    after, real = pad(answers, left=False)
    logits = policy(torch.cat([before, after], 1)[:, :-1], torch.cat([seen, real], 1)[:, :-1])
    logp = logits[:, before.shape[1] - 1 :].log_softmax(-1)
    return logp.gather(2, after[..., None])[..., 0], real


def update(policy: Policy, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimiser.step()


def warm_start(policy: Policy, rng: random.Random, steps: int = 2000, batch: int = 16, lr: float = 2e-3) -> None:
    optimiser = torch.optim.AdamW(policy.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 50) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
        tasks = [make_task(rng) for _ in range(batch)]
        answers = [encode(demonstrate(t, rng)) + [END] for t in tasks]
        logp, real = answer_logps(policy, [encode(t["prompt"]) for t in tasks], answers)
        loss = -(logp * real).sum() / real.sum()
        update(policy, optimiser, loss)
        if step % 200 == 199:
            print(f"warm start {step + 1:4d}  loss {loss.item():.3f}", flush=True)


def grpo(policy: Policy, rng: random.Random, steps: int = 70, prompts: int = 32, samples: int = 8) -> None:
    """L = -mean_i mean_t min(ratio A_i, clip(ratio, 0.8, 1.2) A_i), A_i = (r_i - mean) / std (arXiv 2402.03300)."""
    optimiser = torch.optim.AdamW(policy.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        tasks = [task for _ in range(prompts) for task in [make_task(rng)] * samples]
        questions = [encode(t["prompt"]) for t in tasks]
        answers, behaviour = sample(policy, questions)
        rewards = torch.tensor([reward(t, decode(a)) for t, a in zip(tasks, answers)]).view(prompts, samples)
        advantage = (rewards - rewards.mean(1, True)) / (rewards.std(1, keepdim=True) + 1e-6)
        logp, real = answer_logps(policy, questions, answers)
        old = torch.zeros_like(logp)
        old[real] = torch.tensor([lp for row in behaviour for lp in row])
        ratio, credit = (logp - old).exp(), advantage.view(-1, 1)
        gain = torch.minimum(ratio * credit, ratio.clamp(0.8, 1.2) * credit) * real
        update(policy, optimiser, -(gain.sum(1) / real.sum(1)).mean())
        if step % 5 == 0 or step == steps - 1:
            length = sum(map(len, answers)) / len(answers)
            print(f"step {step:2d}  reward {rewards.mean():.3f}  length {length:.1f}", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    chance = random.Random(0)
    judge = Policy()
    warm_start(judge, chance)
    grpo(judge, chance)
