"""The real libraries, on this machine alone: what they keep is read back with their own readers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from ratchet.config.read import config_from_tree
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.loggers.table import make_loggers
from ratchet.run.launch import resume, train
from ratchet.store.run_store import RunStore

LETTERS = f"{Path(__file__).parent.parent / 'run' / 'letters.py'}:Letters"
Make = Callable[..., RunConfig]


@pytest.fixture
def config(tmp_path: Path) -> Make:
    tiny = {"hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1, "intermediate": 16, "context": 24}

    def make(**log: object) -> RunConfig:
        tree = {
            "run": {"threads": 1, "device": "cpu", "folder": str(tmp_path), "name": "run"},
            "environment": {"name": LETTERS},
            "policy": {"tiny": tiny},
            "explore": {"prompts_per_step": 2, "samples_per_prompt": 2, "max_tokens": 4},
            "train": {"steps": 2},
            "eval": {"tasks": 2},
            "log": log,
        }
        return config_from_tree(tree)

    return make


def rewards(store: RunStore) -> list[tuple[int, float]]:
    return [(r["step"], pytest.approx(r["reward/mean"])) for r in store.metrics()]


def test_tensorboard_shows_every_step_and_a_resumed_run_goes_on_in_the_same_place(config: Make) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(config(to=["tensorboard"])).folder
    resume(folder, words=["train.steps=4"], accept_changes=True)
    store = RunStore.open(folder)
    shown = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in shown.Scalars("reward/mean")] == rewards(store)
    assert [e.step for e in shown.Scalars("eval/test/reward_mean")] == [2, 4]
    assert [row["loggers/failed"] for row in store.metrics()] == [0.0] * 4
    assert b"train.steps = 2" in shown.Tensors("settings")[0].tensor_proto.string_val[0]


def test_tensorboard_keeps_runs_side_by_side_in_a_folder_of_ones_own(config: Make, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(config(to=["tensorboard"], tensorboard={"folder": str(tmp_path / "board")}))
    assert list((tmp_path / "board" / "run").glob("events.*"))


def test_a_logger_added_on_resume_gets_the_whole_history_without_being_agreed_to(config: Make) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(config()).folder
    (folder / "report.md").unlink()  # as if it had been killed at the end
    resume(folder, words=['log.to=["tensorboard"]'])
    shown = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [e.step for e in shown.Scalars("reward/mean")] == [0, 1]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_offline_files_of_wandb_hold_every_step_and_a_resumed_run_keeps_its_id(config: Make) -> None:
    pytest.importorskip("wandb")
    from ratchet.logs.read import read_log

    folder = train(config(to=["wandb"], wandb={"mode": "offline"})).folder
    resume(folder, words=["train.steps=3"], accept_changes=True)
    store = RunStore.open(folder)
    begun = [e["what"] for e in store.events() if e["kind"] == "logger_begun"]
    assert len(begun) == 2
    assert len(set(begun)) == 1
    files = sorted(folder.glob(f"wandb/offline-run-*-{begun[0]}/run-{begun[0]}.wandb"))
    steps = []
    for file in files:
        log = read_log(file, need_reward=False)
        steps += [int(step) for step in log.series["reward/mean"].steps]
    assert sorted(steps) == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_mlflow_keeps_every_step_and_a_resumed_run_is_the_same_run(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "mlruns").as_uri()
    folder = train(config(to=["mlflow"], mlflow={"uri": uri})).folder
    resume(folder, words=["train.steps=3"], accept_changes=True)
    store = RunStore.open(folder)
    assert not [e for e in store.events() if e["kind"] == "logger_failed"]
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("ratchet").experiment_id])
    history = client.get_metric_history(run.info.run_id, "reward/mean")
    assert sorted((m.step, m.value) for m in history) == rewards(store)
    assert run.data.params["train.steps"] == "2"
    assert run.info.status == "FINISHED"
    assert any("pass_at_1" in name for name in run.data.metrics)


@pytest.mark.filterwarnings("default")
def test_mlflow_says_at_once_that_a_store_cannot_be_used(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    with pytest.raises(ConfigError, match=r"log\.mlflow\.uri = .* cannot be used"):
        make_loggers(config(to=["mlflow"], mlflow={"uri": (tmp_path / "m").as_uri()}).log)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_trackio_keeps_every_step_and_a_resumed_run_is_the_same_run(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when the library is imported
    pytest.importorskip("trackio")
    from ratchet.logs.read import read_log

    folder = train(config(to=["trackio"])).folder
    resume(folder, words=["train.steps=3"], accept_changes=True)
    assert not [e for e in RunStore.open(folder).events() if e["kind"] == "logger_failed"]
    log = read_log(tmp_path / "trackio" / "ratchet.db", need_reward=False)
    assert [int(step) for step in log.series["reward/mean"].steps] == [0, 1, 2]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_library_is_named_with_what_to_install(config: Make, name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed here")
    with pytest.raises(ConfigError, match=rf"needs the library {name}.*pip install 'ratchet\[{name}\]'"):
        train(config(to=[name]))
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("default")
def test_wandb_without_a_login_stops_before_anything_is_made(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match="wandb login"):
        make_loggers(config(to=["wandb"]).log)
    (tmp_path / "netrc").write_text("machine wandb.example login user password key\n")
    assert len(make_loggers(config(to=["wandb"]).log)) == 1
