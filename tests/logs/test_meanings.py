"""What sounds alike and is not the same stays apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from made import json_lines, reward, slime_console, trl_row, verl_row

from ratchet.logs.log import Log, StepAxis, Topic
from ratchet.logs.read import read_log


def log_of(tmp_path: Path, row: Mapping[str, float], framework: str = "auto", steps: int = 10) -> Log:
    """Return what a log of these numbers, the same at each step, is read into."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(json_lines({"step": s, **row} for s in range(1, steps + 1)))
    return read_log(path, framework=framework, need_reward=False)


def said(log: Log, *words: str) -> bool:
    return any(all(word in note.text for word in words) for note in log.notes if note.topic is Topic.MEANING)


def key(log: Log, name: str) -> str:
    return log.series[name].key


def test_verls_three_divergences_are_three_series(tmp_path: Path) -> None:
    row = {**verl_row(1), "actor/reward_kl_penalty": 0.5, "rollout_corr/kl": 0.25}
    log = log_of(tmp_path, row)
    assert key(log, "kl/old") == "actor/ppo_kl"
    assert key(log, "kl/ref") == "actor/kl_loss"
    assert key(log, "kl/ref_reward") == "actor/reward_kl_penalty"
    assert key(log, "kl/sampler") == "rollout_corr/kl"
    assert said(log, "actor/ppo_kl", "drift since the last weight sync", "actor/kl_loss")


def test_a_runaway_kl_is_not_hidden_behind_the_quiet_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        json_lines({"step": s, **verl_row(s), "actor/kl_loss": 2.0**s, "actor/ppo_kl": 0.0} for s in range(1, 9))
    )
    log = read_log(path)
    assert log.series["kl/ref"].values.tolist() == [2.0**s for s in range(1, 9)]
    assert not log.series["kl/old"].values.any()


def test_verls_pg_clipfrac_lower_is_the_dual_clip_and_not_the_low_side(tmp_path: Path) -> None:
    log = log_of(tmp_path, verl_row(1))
    assert key(log, "clip/dual") == "actor/pg_clipfrac_lower"
    assert "clip/low" not in log.series
    assert said(log, "dual clip", "not the low side")


def test_verls_score_is_before_and_its_rewards_after_the_penalty(tmp_path: Path) -> None:
    log = log_of(tmp_path, verl_row(5))
    assert log.series["reward/mean"].values[0] == reward(5)
    assert log.series["reward/shaped/mean"].values[0] == reward(5) - 0.001
    assert said(log, "before a KL penalty", "after it")


AREAL = {
    "ppo_actor/task_reward/avg": 0.5,
    "ppo_actor/seq_len/avg": 300.0,
    "ppo_actor/prompt_len/avg": 100.0,
    "ppo_actor/no_eos_ratios/avg": 0.01,
    "ppo_actor/correct_n_seqs": 7.0,
    "ppo_actor/update/lr": 1e-6,
}


def test_areals_sequence_length_is_prompt_and_response_and_the_response_is_the_difference(tmp_path: Path) -> None:
    log = log_of(tmp_path, AREAL)
    assert log.series["len/total/mean"].values[0] == 300.0
    series = log.series["len/response/mean"]
    assert series.values.tolist() == [200.0] * 10
    assert series.key == "ppo_actor/seq_len/avg - ppo_actor/prompt_len/avg"
    assert series.change == "minus the prompt's length"


def test_areals_response_length_is_not_made_up_where_the_prompts_is_missing(tmp_path: Path) -> None:
    log = log_of(tmp_path, {k: v for k, v in AREAL.items() if "prompt_len" not in k})
    assert "len/response/mean" not in log.series
    assert log.series["len/total/mean"].values[0] == 300.0


def test_areals_no_eos_ratio_is_no_truncation(tmp_path: Path) -> None:
    log = log_of(tmp_path, AREAL)
    assert "len/truncated_frac" not in log.series
    assert log.nearest("len/truncated_frac") is None
    assert said(log, "no_eos_ratios", "never 0")


def test_areals_correct_sequences_are_no_accuracy(tmp_path: Path) -> None:
    log = log_of(tmp_path, AREAL)
    assert key(log, "count/positive_rewards") == "ppo_actor/correct_n_seqs"
    assert said(log, "correct_n_seqs", "no accuracy")


def test_areals_kl_reward_is_the_weighted_penalty_and_not_the_kl(tmp_path: Path) -> None:
    log = log_of(tmp_path, {**AREAL, "ppo_actor/kl_rewards/avg": -0.001})
    assert key(log, "kl/ref_penalty") == "ppo_actor/kl_rewards/avg"
    assert log.nearest("kl/ref") is None


def test_trls_clip_ratio_of_zero_is_said_to_be_normal(tmp_path: Path) -> None:
    log = log_of(tmp_path, trl_row(1))
    assert said(log, "clip/frac is exactly 0", "normal")


def test_trls_kl_of_zero_is_not_called_a_pinned_policy(tmp_path: Path) -> None:
    assert said(
        log_of(tmp_path, {**trl_row(1), "kl": 0.0}), "kl/ref is exactly 0", "does not say that the policy stays near"
    )
    assert not said(log_of(tmp_path, {**trl_row(1), "kl": 0.001}), "kl/ref is exactly 0")


def test_trls_reward_may_be_an_unweighted_sum_and_accuracy_is_a_part(tmp_path: Path) -> None:
    log = log_of(tmp_path, trl_row(1))
    assert "unweighted" in log.series["reward/mean"].meaning
    assert key(log, "reward/parts/accuracy_reward") == "rewards/accuracy_reward/mean"
    assert said(log, "reward/parts")


def test_ppos_kl_summed_over_answers_is_not_the_mean_per_token(tmp_path: Path) -> None:
    row = {"objective/kl": 12.1, "objective/scores": 2.0, "objective/rlhf_reward": 1.4, "policy/approxkl_avg": 0.002}
    log = log_of(tmp_path, row)
    assert log.framework.name == "trl"
    assert key(log, "kl/ref_sequence") == "objective/kl"
    assert "kl/ref" not in log.series
    assert key(log, "reward/shaped/mean") == "objective/rlhf_reward"


NEMO = {
    "train/reward": 0.5,
    "train/filtered_reward": 0.45,
    "train/mean_total_reward": 0.3,
    "train/kl_penalty": 0.02,
    "train/token_mult_prob_error": 1.01,
    "train/gen_kl_error": 0.001,
    "train/probs_ratio": 1.02,
    "train/probs_ratio_clamped": 1.0,
    "train/approx_entropy": 0.4,
}


def test_nemos_kl_penalty_is_the_kl_itself(tmp_path: Path) -> None:
    log = log_of(tmp_path, NEMO)
    assert log.series["kl/ref"].values[0] == 0.02
    assert "divided by its coefficient" in log.series["kl/ref"].meaning


def test_nemos_probability_error_is_a_factor_that_should_be_one(tmp_path: Path) -> None:
    log = log_of(tmp_path, NEMO)
    assert said(log, "token_mult_prob_error", "1 is perfect")


def test_nemos_filtered_reward_is_apart_from_the_reward_and_from_the_total(tmp_path: Path) -> None:
    log = log_of(tmp_path, NEMO)
    assert [key(log, f"reward/{name}") for name in ("mean", "filtered/mean", "total/mean")] == [
        "train/reward",
        "train/filtered_reward",
        "train/mean_total_reward",
    ]
    assert said(log, "filtered", "does not measure progress")


def test_nemos_clipping_is_a_gap_of_ratios_and_no_share(tmp_path: Path) -> None:
    log = log_of(tmp_path, NEMO)
    assert "clip/frac" not in log.series
    assert log.series["clip/gap"].values.tolist() == pytest.approx([0.02] * 10)


def test_skyrls_token_count_with_observations_is_not_the_models_own(tmp_path: Path) -> None:
    row = {"reward/avg_raw_reward": 0.5, "generate/avg_num_tokens": 900.0, "policy/policy_entropy": 0.4}
    log = log_of(tmp_path, row)
    assert "len/response/mean" not in log.series
    nearest = log.nearest("len/response/mean")
    assert nearest is not None
    assert nearest.name == "len/generated/mean"
    assert said(log, "avg_num_tokens", "environment's tokens")
    both = log_of(tmp_path, {**row, "generate/avg_assistant_tokens": 300.0})
    assert both.series["len/response/mean"].values[0] == 300.0
    assert both.series["len/generated/mean"].values[0] == 900.0


def test_rolls_marks_of_reduction_are_taken_off_the_name_and_kept_in_the_key(tmp_path: Path) -> None:
    row = {
        "critic/score/mean": 0.5,
        "tokens/response_length/mean": 100.0,
        "actor/pg_loss@sum": 0.1,
        "actor/ratio_max@max": 1.5,
    }
    log = log_of(tmp_path, {**row, "actor/approxkl@sum": 0.01, "actor/policykl@sum": 0.02})
    assert key(log, "loss/pg") == "actor/pg_loss@sum"
    assert "@sum" in log.series["loss/pg"].change
    assert key(log, "ratio/old/max") == "actor/ratio_max@max"
    assert (key(log, "kl/old"), key(log, "kl/old_k1")) == ("actor/approxkl@sum", "actor/policykl@sum")


def test_slimes_normalised_reward_is_not_the_reward(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    path.write_text(slime_console(range(20)))
    log = read_log(path)
    assert log.series["reward/mean"].values.max() == reward(19)
    assert not log.series["reward/normalised/mean"].values.any()
    assert said(log, "rollout/rewards", "rollout/raw_reward")


def test_slimes_three_step_axes_are_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    path.write_text(slime_console(range(20)))
    log = read_log(path)
    assert log.axis is StepAxis.ROLLOUT
    assert (log.series["reward/mean"].axis, len(log.series["reward/mean"].steps)) == (StepAxis.ROLLOUT, 20)
    assert (log.series["kl/ref"].axis, len(log.series["kl/ref"].steps)) == (StepAxis.OPTIMISER, 40)
    assert log.evals["eval/aime/reward_mean"].axis is StepAxis.EVALUATION


def test_slimes_axes_stay_apart_in_rows_that_hold_all_three(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    rows = [
        {"_step": i, "rollout/raw_reward": reward(i), "rollout/response_len/mean": 9.0, "rollout/step": i,
         "train/kl_loss": 0.1, "train/ppo_kl": 0.0, "train/pg_loss": 0.0, "train/step": 4 * i}
        for i in range(10)
    ]  # fmt: skip
    path.write_text(json_lines(rows))
    log = read_log(path)
    assert log.framework.name == "slime"
    assert log.series["reward/mean"].steps.tolist() == list(range(10))
    assert log.series["kl/ref"].steps.tolist() == list(range(0, 40, 4))


def test_prime_rls_rewards_before_and_after_filters_are_two(tmp_path: Path) -> None:
    row = {
        "train/agg/all/solver/reward/mean": 0.3,
        "train/agg/effective/solver/reward/mean": 0.5,
        "train/gsm8k/all/solver/reward/mean": 0.2,
        "mismatch_kl/all/mean": 0.01,
    }
    log = log_of(tmp_path, row)
    assert log.series["reward/mean"].values[0] == 0.3
    assert log.series["reward/filtered/mean"].values[0] == 0.5
    assert log.series["reward/by/gsm8k/mean"].values[0] == 0.2
    assert said(log, "sampled in vain")


def test_sampled_entropies_do_not_bear_the_name_of_the_full_one(tmp_path: Path) -> None:
    tinker = {
        "env/all/reward/total": 0.5,
        "optim/entropy": 0.4,
        "optim/kl_sample_train_v1": 0.001,
        "progress/batch": 3.0,
    }
    log = log_of(tmp_path, tinker)
    assert "entropy" not in log.series
    assert key(log, "entropy/sampled") == "optim/entropy"
    assert said(log, "not comparable")
    nemo = log_of(tmp_path, NEMO)
    assert "entropy" not in nemo.series
    nearest = nemo.nearest("entropy")
    assert nearest is not None
    assert nearest.name == "entropy/sampled"
    openrlhf = {"train/reward": 0.5, "train/entropy_loss": 0.4, "train/vllm_kl": 0.1, "train/ppo_clip_ratio": 0.0}
    assert key(log_of(tmp_path, openrlhf), "entropy") == "train/entropy_loss"


def test_openrlhfs_logprobs_diff_is_to_the_reference_and_vllm_kl_to_the_sampler(tmp_path: Path) -> None:
    row = {
        "train/reward": 0.5,
        "train/vllm_kl": 0.002,
        "train/logprobs_diff": 0.05,
        "train/kl": 0.01,
        "train/ppo_kl": 0.0,
    }
    log = log_of(tmp_path, row)
    names = {s.key: name for name, s in log.series.items()}
    assert [names[f"train/{k}"] for k in ("kl", "logprobs_diff", "ppo_kl", "vllm_kl")] == [
        "kl/ref",
        "kl/ref_k1",
        "kl/old",
        "kl/sampler",
    ]


def test_tinkers_length_is_tokens_per_turn_times_turns(tmp_path: Path) -> None:
    row = {"env/all/reward/total": 0.5, "env/all/ac_tokens_per_turn": 50.0, "env/all/turns_per_episode": 3.0}
    log = log_of(tmp_path, row)
    assert log.series["len/response/mean"].values[0] == 150.0
    assert log.series["len/per_turn/mean"].values[0] == 50.0


@pytest.mark.parametrize(
    ("row", "axis"),
    [
        (trl_row(1), StepAxis.OPTIMISER),
        (verl_row(1), StepAxis.ROLLOUT),
        ({"env/all/reward/total": 0.5, "optim/entropy": 0.4, "env/all/by_group/frac_mixed": 0.5}, StepAxis.BATCH),
        (AREAL, StepAxis.VERSION),
        ({"reward": 0.5, "something": 1.0}, StepAxis.UNSAID),
    ],
)
def test_what_a_step_counts_is_stored(row: dict[str, float], axis: StepAxis, tmp_path: Path) -> None:
    assert log_of(tmp_path, row).axis is axis


def test_of_two_keys_with_one_name_the_tables_first_holds_it_and_the_other_is_kept(tmp_path: Path) -> None:
    log = log_of(tmp_path, {**trl_row(1), "completion_length": 99.0})
    assert log.series["len/response/mean"].values[0] == 126.84
    assert log.also["completion_length"].values[0] == 99.0
    assert said(log, "completion_length")


def test_a_bare_kl_of_nobody_is_not_taken_for_one_of_the_three(tmp_path: Path) -> None:
    log = log_of(tmp_path, {"reward": 0.5, "kl": 0.1, "my_metric": 3.0})
    assert log.framework.name == "plain"
    assert key(log, "kl/unsaid") == "kl"
    assert not {"kl/ref", "kl/old", "kl/sampler"} & set(log.series)
    assert said(log, "Which KL", "does not say")
    assert list(log.unrecognised) == ["my_metric"]
    assert log_of(tmp_path, {"reward": 0.5, "kl": 0.1, "my_metric": 3.0}, "trl").series["kl/ref"].key == "kl"


def test_what_no_table_knows_is_kept_and_listed_under_its_own_key(tmp_path: Path) -> None:
    log = log_of(tmp_path, {**verl_row(1), "my/own_metric": 4.0})
    assert log.unrecognised["my/own_metric"].values.tolist() == [4.0] * 10
    assert log.get("my/own_metric") is log.unrecognised["my/own_metric"]
