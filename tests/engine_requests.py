"""What tests ask engines, and what the answers should be by one full forward pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import torch
from builders import tiny_policy
from torch import Tensor

from ratchet.core.protocols import Completion, Engine, Request, Sampling
from ratchet.core.rollout import Tokens
from ratchet.kernels.layout import layout_of
from ratchet.policy.policy import Policy

CONTEXT = 96


def model(seed: int = 0, **changes: object) -> Policy:
    return tiny_policy(seed=seed, **{"head_size": 16, "query_heads": 2, "key_heads": 1, **changes})


def request_for(policy: Policy, text: str = "1+2=?", seed: int = 1, **sampling: object) -> Request:
    return Request(policy.tokenizer.encode(text), Sampling(**{"max_tokens": 12, **sampling}), seed)


def ask(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    async def gather() -> list[Completion]:
        return list(await asyncio.gather(*(engine.generate(r) for r in requests)))

    return asyncio.run(gather())


def logits_after(policy: Policy, prompt: Tokens, output: Tokens) -> Tensor:
    """Return the (T, V) logits each output token was drawn from, by one full forward pass."""
    tokens = np.concatenate([prompt, output[:-1]]).astype(np.int64)
    with torch.no_grad():
        hidden = policy.decoder(torch.from_numpy(tokens), layout_of([len(tokens)], [-1], policy.device))
        return (hidden @ policy.decoder.head.T)[len(prompt) - 1 :].double()


def kept_by_hand(logits: np.ndarray, temperature: float, top_p: float, top_k: int) -> tuple[list[int], np.ndarray]:
    """Return the tokens that survive, likeliest first, and the tempered probabilities of all."""
    p = np.exp(logits / temperature - (logits / temperature).max())
    p /= p.sum()
    ranked = sorted(range(len(p)), key=lambda v: (-p[v], v))
    ranked = ranked[: top_k or len(ranked)]
    mass, kept = 0.0, []
    for v in ranked:
        kept.append(v)
        mass += p[v] / p[ranked].sum()
        if mass >= top_p:
            break
    return kept, p
