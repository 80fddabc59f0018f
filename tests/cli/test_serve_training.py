"""`ratchet serve --train`: the same run as `ratchet train`, on the model that is named, waiting for sessions."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from ratchet.cli.main import main
from ratchet.cli.serve_training import Training, config_of
from ratchet.store.run_store import RunStore

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from ratchet.serve.address import listen  # noqa: E402
from ratchet.serve.driver import Session, play  # noqa: E402

LETTERS = f"{Path(__file__).parents[1] / 'run' / 'letters.py'}:Letters"
TINY = """
[policy.tiny]
hidden = 16
layers = 1
query_heads = 1
key_heads = 1
head_size = 16
intermediate = 16
context = 64
"""


def recipe(folder: Path, *, environment: str = f'name = "{LETTERS}"', more: str = "") -> str:
    """Write the recipe of a run of two steps; return its path."""
    path = folder / "recipe.toml"
    path.write_text(f"""
[run]
folder = "{folder / "runs"}"
name = "first"
device = "cpu"
threads = 1
[environment]
{environment}
[explore]
prompts_per_step = 2
samples_per_prompt = 4
max_tokens = 6
[algorithm]
name = "grpo"
[train]
steps = 2
{more}""")
    return str(path)


def config_for(folder: Path, *settings: str, **address: str | int) -> dict[str, object]:
    asked = Training(folder / "model", None, recipe(folder), settings, address)
    return config_of(asked).model_dump(mode="json")


def test_an_environment_of_ours_makes_the_tasks_of_the_sessions_and_the_model_is_the_one_named(tmp_path: Path) -> None:
    config = config_for(tmp_path, "train.steps=7", "environment.size=5", port=0)
    assert config["policy"]["model"] == str(tmp_path / "model")  # type: ignore[index]
    assert config["train"]["steps"] == 7  # type: ignore[index]
    assert config["environment"] == {"name": "agents", "inner": LETTERS, "inner_options": {"size": 5}, "port": 0}


def test_a_config_of_sessions_stays_as_it_is(tmp_path: Path) -> None:
    path = recipe(tmp_path, environment='name = "agents"\ntasks = 3\nport = 8100')
    config = config_of(Training(Path("Qwen/Qwen3-0.6B"), None, path, (), {}))
    assert config.policy.model == "Qwen/Qwen3-0.6B"
    assert config.environment.model_dump() == {"name": "agents", "tasks": 3, "port": 8100}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "model", "a.b=1"], '"a.b=1" would change the config of a run'),
        (["serve", "model", "--train", "CONFIG", "--dtype", "float32"], "write policy.dtype=... instead"),
        (["serve", "model", "--train", "CONFIG", "--rows", "3"], "--rows is about a frozen model"),
        (["serve", "model", "--train", "CONFIG", "--step", "3"], "model is no run folder"),
        (["serve", "model", "--train", "nothing.toml"], 'There is no file "nothing.toml"'),
        (["serve", "model", "--train", "CONFIG", "train.stepps=3"], "train.stepps is not a setting"),
        (["serve", "model", "--train", "CONFIG", "cluster.ranks=2"], "use ratchet train"),
        (["serve", "model", "--train", "CONFIG", "environment.name=verifiers"], "waits for no program"),
        (["serve", "nowhere", "--train", "CONFIG"], '"nowhere": there is no such folder'),
    ],
)
def test_words_that_do_not_go_together_are_a_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    done = CliRunner().invoke(main, [path if word == "CONFIG" else word for word in words])
    assert (done.exit_code, said in done.output) == (2, True), done.output


@pytest.mark.slow
def test_sessions_from_outside_train_the_model_that_another_run_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATCHET_SERVE_TOKEN", raising=False)
    path = recipe(tmp_path, more=TINY)
    first = CliRunner().invoke(main, ["train", path, "train.steps=1", "--plain"])
    assert first.exit_code == 0, first.output
    with listen("127.0.0.1", 0, "", "") as free:
        port = free.getsockname()[1]
    over = threading.Event()
    program = threading.Thread(target=lambda: played.append(sessions(port, over)))
    played: list[int] = []
    program.start()
    words = ["serve", str(tmp_path / "runs" / "first"), "--train", path, "run.name=second", "--port", str(port)]
    done = CliRunner().invoke(main, [*words, "--plain"])
    over.set()
    program.join(60)
    assert done.exit_code == 0, done.output
    assert sum(played) == 2 * 2 * 4
    second = RunStore.open(tmp_path / "runs" / "second")
    assert [row["reward/mean"] for row in second.metrics()] == [0.5, 0.5]
    left = RunStore.open(tmp_path / "runs" / "first").folder / "checkpoints" / "step_000001"
    assert second.config_tree()["policy"]["model"] == str(left)
    (group, _) = second.read_groups(1)
    assert group.task.extras["inner"] == {"index": 2}


def sessions(port: int, over: threading.Event) -> int:
    """Play, as a program of somebody's, as soon as the endpoint is there; return the number of attempts."""
    url = f"http://127.0.0.1:{port}"

    def attempt(session: Session) -> float:
        header = {"authorization": f"Bearer {session.key}"}
        body = {"model": "any", "messages": session.task["messages"]}
        httpx.post(f"{session.base_url}/chat/completions", json=body, headers=header, timeout=60).raise_for_status()
        return 0.5

    while not over.wait(0.05):
        try:
            httpx.get(f"{url}/health")
        except httpx.TransportError:
            continue
        return play(url, attempt, workers=4)
    return 0
