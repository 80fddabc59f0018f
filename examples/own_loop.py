"""A whole GRPO loop over the library's parts, to be changed: your sampling, your reward, your loss.

    python examples/own_loop.py

It warm-starts a tiny judge (or takes it from the cache), then trains it for 30 steps and prints reward and length.
"""

import asyncio

import torch

from ratchet.config.read import read_config
from ratchet.core.protocols import Request, Sampling
from ratchet.core.seeds import derive
from ratchet.core.task import Split
from ratchet.engines.build import local_engine
from ratchet.kernels.layout import layout_of, pack
from ratchet.run.observer import Silent
from ratchet.run.parts import make_environment
from ratchet.run.policies import fresh_policy
from ratchet.run.warm_start import warm_started

PROMPTS, SAMPLES, STEPS, CLIP, LR = 32, 8, 30, 0.2, 3e-4


async def main() -> None:
    torch.set_num_threads(1)
    config = read_config(["judge"])
    environment = make_environment(config)
    policy = warm_started(config, fresh_policy(config, environment), Silent())
    engine = local_engine(policy, context=policy.shape.context, max_rows=PROMPTS * SAMPLES)
    optimiser = torch.optim.AdamW(policy.decoder.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    split, sampling, cpu = Split("train", seed=0), Sampling(max_tokens=64), torch.device("cpu")

    for step in range(STEPS):
        # Sample: every task is asked SAMPLES times, all at once.
        engine.load(policy.weights(), step, policy.fingerprint())
        tasks = [environment.task(split, step * PROMPTS + i) for i in range(PROMPTS) for _ in range(SAMPLES)]
        prompts = [policy.tokenizer.chat(task.prompt) for task in tasks]
        requests = [Request(p, sampling, derive("own loop", step, i)) for i, p in enumerate(prompts)]
        answers = await asyncio.gather(*(engine.generate(r) for r in requests))

        # Score, and compare each answer with the others to the same question.
        texts = [policy.tokenizer.decode(a.output) for a in answers]
        scores = [await environment.score(task, text) for task, text in zip(tasks, texts, strict=True)]
        reward = torch.tensor([s.value for s in scores]).view(PROMPTS, SAMPLES)
        advantage = ((reward - reward.mean(1, True)) / (reward.std(1, keepdim=True) + 1e-6)).flatten()

        # One forward pass over all answers without padding: a prompt and its answers share the prompt's tokens.
        segments, parents = [], []
        for i, answer in enumerate(answers):
            if i % SAMPLES == 0:
                segments.append(prompts[i])
                parents.append(-1)
                shared = len(segments) - 1
            segments.append(answer.output[:-1])
            parents.append(shared)
        layout = layout_of([len(s) for s in segments], parents, cpu)
        hidden = policy.decoder(pack(segments, cpu), layout)

        # The token that predicts an answer's first token is the prompt's last one.
        start, own = layout.start, [i for i, p in enumerate(parents) if p >= 0]
        places = [torch.cat([start[parents[i] + 1 :][:1] - 1, torch.arange(start[i], start[i + 1])]) for i in own]
        target = pack([a.output for a in answers], cpu)
        logp = (hidden[torch.cat(places)] @ policy.decoder.head.t()).log_softmax(-1).gather(1, target[:, None])[:, 0]

        # GRPO: -min(ratio A, clip(ratio) A), averaged over each answer's tokens, then over answers.
        lengths = torch.tensor([len(a.output) for a in answers])
        credit, share = advantage.repeat_interleave(lengths), (1 / lengths / len(answers)).repeat_interleave(lengths)
        ratio = (logp - torch.cat([torch.from_numpy(a.logprobs) for a in answers])).exp()
        loss = -(share * torch.minimum(ratio * credit, ratio.clamp(1 - CLIP, 1 + CLIP) * credit)).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.decoder.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        print(f"step {step:2d}  reward {reward.mean():.3f}  length {lengths.float().mean():.1f}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
