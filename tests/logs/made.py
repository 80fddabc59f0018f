"""Logs as the frameworks write them, made up: the shapes are theirs, and what stands around rows; not the numbers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

RAY = "\x1b[36m(TaskRunner pid=87031)\x1b[0m "
NOISE = (
    "(WorkerDict pid=82641) INFO 09-15 14:42:21 [executor_base.py:188] It took 1.46 seconds to fall asleep.",
    "Training Progress:   1%|▏         | 1/624 [10:00<103:53:21, 600.32s/it]",
    "/usr/lib/python3/site-packages/torch/utils/checkpoint.py:87: UserWarning: None of the inputs have requires_grad",
    "Traceback (most recent call last):",
    '  File "train.py", line 12, in reward',
    "    config = {'threshold': 0.5,",
    "KeyError: 'answer'",
    "wandb:              actor/entropy ▁▂▃▅▇█",
)


def reward(step: int) -> float:
    """Return the reward every made-up log has at a step: it rises by a hundredth a step."""
    return round(step / 100, 6)


def verl_row(step: int) -> dict[str, float]:
    return {
        "actor/entropy": 0.0977,
        "actor/pg_loss": -0.0036,
        "actor/pg_clipfrac": 0.0013,
        "actor/pg_clipfrac_lower": 0.0002,
        "actor/ppo_kl": -8.1e-06,
        "actor/kl_loss": 0.0133,
        "actor/grad_norm": 0.2057,
        "critic/score/mean": reward(step),
        "critic/rewards/mean": reward(step) - 0.001,
        "response_length/mean": 1267.02,
        "response_length/clip_ratio": 0.021,
        "timing_s/step": 300.1,
    }


def verl_line(step: int, row: Mapping[str, float] | None = None) -> str:
    row = verl_row(step) if row is None else row
    return f"step:{step} - " + " - ".join(f"{key}:{value}" for key, value in row.items())


def verl_console(steps: Iterable[int]) -> str:
    """Return what Ray shows of a run of verl: noise of every kind between the rows, validation in some of them."""
    lines = [
        RAY + "{'actor_rollout_ref': {'actor': {'optim': {'lr': 1e-06}},",
        RAY + "                       'rollout': {'n': 8}}}",
        RAY + "(\"Initial validation metrics: {'val-core/gsm8k/acc/mean@1': 0.1, \"",
        RAY + "\"'val-aux/gsm8k/reward/mean@1': 0.1}\")",
    ]
    for i, step in enumerate(steps):
        lines.append(f"{NOISE[i % len(NOISE)]}\rTraining Progress:   2%|▏    | {step}/624 [10:00<1:53:43, 49.09s/it]")
        row = verl_row(step)
        if step % 5 == 0:
            row["val-core/gsm8k/acc/mean@1"] = reward(step)
        repeated = " [repeated 2x across cluster]" if i == 3 else ""
        lines.append(RAY + verl_line(step, row) + repeated)
    return "\n".join(lines) + "\n"


def trl_row(step: int) -> dict[str, float]:
    return {
        "loss": 0.0,
        "grad_norm": 0.2999,
        "learning_rate": 9.947e-06,
        "num_tokens": 42830.0 * step,
        "completions/mean_length": 126.84,
        "completions/clipped_ratio": 0.05,
        "completions/mean_terminated_length": 120.0,
        "rewards/accuracy_reward/mean": reward(step),
        "rewards/accuracy_reward/std": 0.1481,
        "reward": reward(step),
        "reward_std": 0.1326,
        "frac_reward_zero_std": 0.25,
        "kl": 0.0007,
        "entropy": 0.41,
        "clip_ratio/region_mean": 0.0,
        "epoch": round(step / 50, 4),
    }


def trl_eval_row(step: int) -> dict[str, float]:
    return {"eval_loss": 0.0, "eval_reward": reward(step) / 2, "eval_completions/mean_length": 130.0, "epoch": 0.1}


def trl_console(steps: Sequence[int], *, quoted: bool = True, bars: bool = False) -> str:
    """Return what a TRL script prints: dicts with quoted numbers, progress bars and warnings in between."""
    lines = ["`max_new_tokens` (=256) and `max_length`(=32768) seem to have been set.", "{'model': 'tiny', 'seed': 3}"]
    for step in steps:
        row = {key: f"{value:.4g}" if quoted else value for key, value in trl_row(step).items()}
        before = f" 16%|█▌        | {step - 1}/96 [21:02<1:36:54, 71.79s/it]" if bars else ""
        lines.append(f"{before}{row}")
        if bars:
            lines.append(f" 16%|█▌        | {step}/96 [22:02<1:36:54, 71.79s/it]Both `max_new_tokens` (=256)")
    lines.append("{'train_runtime': '148.9', 'train_loss': '0.01', 'epoch': '1'}")
    return "\n".join(lines) + "\n"


def trainer_state(steps: Iterable[int]) -> str:
    """Return a ``trainer_state.json``: evaluation rows between the others, a summary at the end."""
    history: list[dict[str, float]] = []
    last = 0
    for step in steps:
        history.append({**trl_row(step), "step": step})
        if step % 10 == 0:
            history.append({**trl_eval_row(step), "step": step})
        last = step
    history.append({"train_runtime": 148.9, "train_loss": 0.01, "epoch": 1.0, "step": last})
    tree = {"best_metric": None, "epoch": 1.0, "global_step": last, "log_history": history, "max_steps": 96}
    return json.dumps(tree, indent=2)


def slime_console(rollouts: Iterable[int]) -> str:
    """Return slime's console: two optimiser steps a rollout, evaluation every fifth, NumPy numbers."""
    lines = []
    for r in rollouts:
        at = f"[2026-09-02 18:00:{r % 60:02d}.887 actor_cell0_rank0] log_utils.py:259 -"
        lines.append(
            f"(MegatronTrainRayActor pid=1) {at} rollout {r}: {{'rollout/raw_reward': {reward(r)}, "
            "'rollout/rewards': 0.0, 'rollout/response_lengths': 98.0, 'rollout/truncated': 0.1}"
        )
        lines.append(f"(RolloutManager pid=2) {at} perf {r}: {{'perf/rollout_time': np.float64(12.5)}}")
        lines.extend(
            f"(MegatronTrainRayActor pid=1) {at} step {2 * r + j}: {{'train/loss': 0.002, 'train/pg_loss': 0.0018, "
            f"'train/kl_loss': 0.01, 'train/ppo_kl': -1e-05, 'train/grad_norm': 0.62, 'train/step': {2 * r + j}}}"
            for j in range(2)
        )
        if r % 5 == 0:
            lines.append(f"(RolloutManager pid=2) {at} eval {r}: {{'eval/aime': {reward(r)}, 'eval/step': {r}}}")
    return "\n".join(lines)


def openrlhf_console(steps: Iterable[int]) -> str:
    return "\n".join(
        f"(PPOTrainer pid=1) INFO 08-01 12:00:00 ppo_trainer.py:300] ✨ Global step {s}: {{'policy_loss': 0.01, "
        f"'reward': {reward(s)}, 'return': 0.3, 'kl': 0.01, 'ppo_kl': 0.0001, 'vllm_kl': 0.002, "
        f"'logprobs_diff': 0.011, 'response_length': 300.0, 'total_length': 400.0, 'ppo_clip_ratio': 0.01, "
        "'entropy_loss': 0.3, "
        f"'actor_grad_norm': tensor(0.5000, device='cuda:0', dtype=torch.float64), 'actor_lr': 1e-06}}"
        for s in steps
    )


def areal_console(steps: Iterable[int]) -> str:
    blocks = []
    for s in steps:
        at = "(AReaL) 20260814-01:00:00.000 StatsLogger INFO:"
        blocks.append(
            f"\x1b[92m{at} Epoch 1/10 Step {s}/934 Train step {s}/9340 done.\x1b[0m\n"
            f"{at} Stats (1/1):\n{at} \n"
            "╒═══════════════════════════╤════════════╤══════════════════════════════╤════════════╕\n"
            f"│ ppo_actor/task_reward/avg │ {reward(s):.4e} │ ppo_actor/seq_len/avg        │ 3.0000e+02 │\n"
            "├───────────────────────────┼────────────┼──────────────────────────────┼────────────┤\n"
            "│ ppo_actor/prompt_len/avg  │ 1.0000e+02 │ ppo_actor/no_eos_ratios/avg  │ 1.0000e-02 │\n"
            "│ ppo_actor/update/lr       │ 1.0000e-06 │ ppo_actor/update/entropy/avg │ 1.0000e-01 │\n"
            "╘═══════════════════════════╧════════════╧══════════════════════════════╧════════════╛\n"
        )
    return "".join(blocks)


def tinker_console(steps: Iterable[int]) -> str:
    """Return tinker-cookbook's console: a drawn table a step, with long keys broken over two lines."""
    return "\n".join(
        f"INFO:tinker_cookbook.utils.ml_log:\n                     Step {s}\n"
        "┏━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━┓\n"
        "┃ Metric                   ┃ Value    ┃\n"
        "┡━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━┩\n"
        f"│ env/all/reward/total     │ {reward(s):.6f} │\n"
        "│ env/all/ac_tokens_per_tu │ 50.00000 │\n"
        "│ rn                       │          │\n"
        "│ env/all/turns_per_episod │ 2.000000 │\n"
        "│ e                        │          │\n"
        "│ optim/kl_sample_train_v1 │ 0.001000 │\n"
        "└──────────────────────────┴──────────┘"
        for s in steps
    )


def forge_console(steps: Iterable[int]) -> str:
    return "\n".join(
        f"2026-01-01 00:00:00 INFO === [METRICS STEP {s} ===\n"
        "  buffer/sample/avg_sampled_policy_age: 0.5\n"
        f"  reward/evaluate_response/avg_total_reward: {reward(s)}\n"
        "  rl_trainer/avg_loss: 0.1\n"
        "==============================\n"
        for s in steps
    )


def nemo_console(steps: Iterable[int]) -> str:
    blocks = []
    for s in steps:
        blocks.append(
            f"\n========================= Step {s}/100 =========================\n▶ Preparing batch...\n\n"
            "📊 Training Results:\n  • Loss: 0.0000\n  • Generation KL Error: 0.0010\n"
            f"  • Avg Reward: {reward(s):.4f}\n  • Mean Generation Length: 201.2197\n\n"
            "⏱️  Timing:\n  • Total step time: 35.70s\n  • policy_training: 10.97s (30.7%)\n\n"
            "🔍 Performance Metrics:\n  • Mean Total Tokens per Sample: 204.01\n  • Throughputs (per GPU):\n"
            "    - E2E (Samples/sec/gpu): 3.59\n"
        )
        if s % 5 == 0:
            blocks.append(
                "\n📊 Validation Results:\n    • Accuracy: 0.4500\n    • Average response length: 345.6 tokens\n"
            )
    return "".join(blocks)


def prime_console(steps: Iterable[int]) -> str:
    return "\n".join(
        "Generating rollouts (train): 100%|██████████| 512/512 [01:13<00:00,  6.97it/s]\n"
        f"02:33:26 SUCCESS Step {s} | Time: 73.77s | Reward: {reward(s):.4f} | Throughput: 2408.9 tokens/s | "
        "Seq. Length: 345.6 tokens/sample | Async Level: 1 | Max. Off-Policy Level: 2 | Error 20.0% | "
        f"Trainable 2/20 (10.0%)\n02:33:26    INFO Starting orchestrator step {s + 1}"
        for s in steps
    )


def roll_console(steps: Iterable[int]) -> str:
    return "\n".join(
        "[2026-01-01 00:00:00] [tracking.py (170)] [INFO] [driver] metrics_tag: "
        + json.dumps(
            {
                "step": s,
                "metrics": {
                    "critic/score/mean": reward(s),
                    "critic/rewards/mean": reward(s) - 0.001,
                    "actor/pg_loss@sum": 0.1,
                    "actor/approxkl@sum": 0.001,
                    "critic/kl": 0.01,
                    "tokens/response_length/mean": 100.0,
                },
            }
        )
        for s in steps
    )


def skyrl_console(steps: Iterable[int]) -> str:
    return "\n".join(
        f"(skyrl_entrypoint pid=9) {{'reward/avg_raw_reward': '{reward(s)}', 'policy/policy_entropy': '0.5', "
        f"'policy/policy_kl': '0.001', 'generate/avg_num_tokens': '700', 'trainer/global_step': {s}, "
        "'async/staleness_max': 0}"
        for s in steps
    )


def trinity_console(steps: Iterable[int]) -> str:
    return "\n".join(
        f"INFO 10-01 10:00:00 [monitor.py:174] Step {s}: {{'rollout/reward/mean': {reward(s)}, 'experience_count': 64, "
        "'sample/model_version/mean': 3, 'actor/ppo_kl': 1e-05, 'actor/kl_loss': 0.02}"
        for s in steps
    )


CONSOLES = {
    "verl": verl_console,
    "trinity": trinity_console,
    "openrlhf": openrlhf_console,
    "areal": areal_console,
    "slime": slime_console,
    "prime_rl": prime_console,
    "skyrl": skyrl_console,
    "nemo_rl": nemo_console,
    "roll": roll_console,
    "tinker": tinker_console,
    "torchforge": forge_console,
}
"""Framework -> its console, for frameworks whose rows name their steps."""


def json_lines(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def verl_json_lines(steps: Iterable[int]) -> str:
    return json_lines({"step": s, "data": verl_row(s)} for s in steps)


def notebook(text: str, html: str = "") -> str:
    """Return a notebook whose second cell printed a text, and drew a page."""
    outputs: list[dict[str, object]] = [
        {"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}
    ]
    if html:
        outputs.append({"output_type": "display_data", "data": {"text/html": [html], "text/plain": ["<table>"]}})
    cells = [
        {"cell_type": "markdown", "source": ["# Train"]},
        {"cell_type": "code", "source": ["trainer.train()"], "outputs": outputs},
    ]
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5})


def progress_page(steps: Iterable[int]) -> str:
    """Return the page transformers draws in a notebook while it trains."""
    names = ("Step", "Training Loss", "reward", "reward_std", "completions / mean_length", "kl")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(
        f"<tr><td>{s}</td><td>0.000000</td><td>{reward(s)}</td><td>0.1</td><td>126.8</td><td>0.0007</td></tr>"
        for s in steps
    )
    return (
        f"<progress value='7' max='96'></progress> [96/96 02:28, Epoch 1/1]<table border='1' class='dataframe'>"
        f"<thead><tr style='text-align: left;'>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def kaggle(text: str, *, array: bool) -> str:
    """Return a Kaggle log of a printed text: records of pieces that begin and end in the middle of lines."""
    pieces = [text[i : i + 211] for i in range(0, len(text), 211)]
    records = [json.dumps({"stream_name": "stdout", "time": 1.5, "data": piece}) for piece in pieces]
    return "[" + "\n,".join(records) + "\n]" if array else "\n".join(records)


def wandb_csv(steps: Iterable[int], runs: Sequence[str] = ("run-a",)) -> str:
    """Return a chart of W&B as its page exports it."""
    head = ["Step"]
    for run in runs:
        head += [f"{run} - train/reward", f"{run} - train/reward__MIN", f"{run} - train/reward__MAX"]
    lines = [",".join(f'"{name}"' for name in head)]
    for s in steps:
        cells = [str(s)]
        for i in range(len(runs)):
            cells += [str(reward(s) + i)] * 3 if i == 0 or s % 2 else ["", "", ""]
        lines.append(",".join(f'"{cell}"' if cell else "" for cell in cells))
    return "\n".join(lines) + "\n"


def trackio_database(path: Path, runs: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    """Write a project of trackio: one row of JSON per step, not-finite numbers as texts."""
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT, timestamp TEXT NOT NULL, "
        "run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL, log_id TEXT)"
    )
    for run, rows in runs.items():
        database.executemany(
            "INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES ('2026-01-01', ?, ?, ?)",
            [(run, i + 1, json.dumps(row)) for i, row in enumerate(rows)],
        )
    database.commit()
    database.close()


def mlflow_run(folder: Path, steps: Iterable[int], name: str = "a run") -> None:
    """Write a run of MLflow's file store: keys are paths, and hold no ``@``."""
    (folder / "tags").mkdir(parents=True)
    (folder / "meta.yaml").write_text("artifact_uri: here\nrun_name: a run\n")
    (folder / "tags" / "mlflow.runName").write_text(name)
    steps = list(steps)
    for key in (*verl_row(1), "val-core/gsm8k/acc/mean_at_1"):
        file = folder / "metrics" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"17600000{s:05d} {verl_row(s).get(key, reward(s))} {s}\n" for s in steps))


def wandb_file(rows: Sequence[tuple[int, Mapping[str, object]]], *, typed: bool = False) -> bytes:
    """Return the file of an offline run of W&B, records broken over blocks of 32 KiB as they are there.

    `typed` writes numbers in fields of their own, as the library does since 2026; before, all values were JSON.
    """
    out = bytearray(b":W&B" + (0xBEE1).to_bytes(2, "little") + b"\x00")
    for step, row in rows:
        items = b"".join(_field(1, _item(key, value, typed)) for key, value in row.items())
        history = items + _field(2, b"\x08" + _varint(step))
        record = b"\x08\x05" + _field(2, history)
        begin = True
        while True:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += b"\x00" * room
                room = 32768
            part, record = record[: room - 7], record[room - 7 :]
            kind = (1 if begin else 4) if not record else (2 if begin else 3)
            out += b"\x00\x00\x00\x00" + len(part).to_bytes(2, "little") + bytes([kind]) + part
            begin = False
            if not record:
                break
    return bytes(out)


def _item(key: str, value: object, typed: bool) -> bytes:
    import struct

    if typed and isinstance(value, float):
        return _field(1, key.encode()) + b"\x31" + struct.pack("<d", value)
    if typed and isinstance(value, int):
        return _field(1, key.encode()) + b"\x28" + _varint(value << 1)
    return _field(1, key.encode()) + _field(16, json.dumps(value).encode())


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
