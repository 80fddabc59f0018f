"""vLLM behind HTTP: tokens in, tokens out, weights updated in place.

Called by `engines.build` for ``engine.name = "vllm"`` with an ``engine.url``. The server must be started so that it
lets itself be updated, takes tokens, and reports the distribution it draws from:

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs \\
        --worker-extension-cls ratchet.engines.vllm_inside.RatchetWorker

Written against vLLM 0.32: `entrypoints/scale_out/token_in_token_out`, `entrypoints/rl/online`,
`entrypoints/serve/dev/rpc`. What a request and an answer look like is shared with `vllm_inside`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ratchet.core.errors import ConfigError, EngineError
from ratchet.core.protocols import Request, Sampling
from ratchet.core.rollout import StopReason
from ratchet.engines.elsewhere import Answer, EngineGone, Label
from ratchet.engines.http import Http
from ratchet.engines.server import Reached
from ratchet.engines.weight_folder import WeightFolder

EXTENSION = "ratchet.engines.vllm_inside.RatchetWorker"
"""What vLLM's workers must be extended with to take weights."""
ABORT = "/inference/v1/abort_requests"
MOST_TOP_K = 1024
"""Largest top-k whose kept mass is worth asking for: as many log-probabilities come with every token."""
COLDEST, HOTTEST = 0.01, 2.0
"""Temperatures that vLLM samples at, besides 0. It raises lower ones without a word, and refuses higher."""
SEEDS = (1 << 63) - 1
"""vLLM's seeds are signed."""


def logprobs_mode(sampling: Sampling) -> str:
    """Return the mode in which vLLM must report log-probabilities for this way of sampling.

    Uncut distributions: those of the tempered one, `processed_logprobs`. Cut ones: the mass that was kept must be
    known too, and it follows from the top-k of the plain distribution, `raw_logprobs`, if nothing tempers it.

    **Raises**: `ConfigError` for a cut whose mass vLLM does not tell, and a temperature that it does not sample at.
    """
    if sampling.temperature and not COLDEST <= sampling.temperature <= HOTTEST:
        raise ConfigError(
            f"explore.temperature = {sampling.temperature:g}: vLLM samples at {COLDEST:g} to {HOTTEST:g}. Change "
            'it, or use engine.name = "ratchet".'
        )
    if sampling.top_p >= 1 and sampling.top_k == 0:
        return "processed_logprobs"
    if sampling.temperature not in (0.0, 1.0) or not 0 < sampling.top_k <= MOST_TOP_K:
        raise ConfigError(
            f"explore.top_p = {sampling.top_p:g} and explore.top_k = {sampling.top_k} at explore.temperature = "
            f"{sampling.temperature:g}: vLLM does not tell how much mass such a cut keeps, so the trainer could not "
            f"know the distribution sampled from. Set explore.temperature = 1 and explore.top_k to 1 .. {MOST_TOP_K}, "
            'or top_p = 1 and top_k = 0; engine.name = "ratchet" and "sglang" take any cut.'
        )
    return "raw_logprobs"


def check_facts(facts: Mapping[str, Any], sampling: Sampling, *, context: int, dtype: str) -> None:
    """Raise `ConfigError` if vLLM cannot compute the policy, computes in another precision, has a shorter context than
    the run, or does not report log-probabilities of the distribution that it will be asked to draw from. `facts`:
    `RatchetWorker.ratchet_facts`."""
    wanted, found = logprobs_mode(sampling), facts["logprobs_mode"]
    if found != wanted:
        raise ConfigError(
            f'vLLM reports log-probabilities in the mode "{found}", but with this explore.temperature, top_p and top_k '
            f'only "{wanted}" are those of the distribution sampled from: start it with --logprobs-mode {wanted}.'
        )
    if 0 <= int(facts["max_logprobs"]) < sampling.top_k:
        raise ConfigError(
            f"explore.top_k = {sampling.top_k} needs as many log-probabilities per token, but vLLM gives "
            f"{facts['max_logprobs']} at most: start it with --max-logprobs {sampling.top_k}."
        )
    if facts["dtype"] != dtype:
        raise ConfigError(
            f'vLLM computes in {facts["dtype"]}, but policy.dtype = "{dtype}": start it with --dtype {dtype}, or '
            "change policy.dtype."
        )
    if context > facts["max_model_len"]:
        raise ConfigError(
            f"Prompt and answer of this run may have {context} tokens together, but vLLM as it was started leaves room "
            f"for {facts['max_model_len']}: start it with --max-model-len {context} or more, or set policy.context = "
            f"{facts['max_model_len']}."
        )
    if facts["unfit"]:
        raise ConfigError(f"This vLLM would fail in the middle of a run: {facts['unfit']}.")


def sampling_fields(request: Request, ends: Sequence[int], top_k: int) -> dict[str, Any]:
    """Return vLLM's sampling parameters. `top_k` is the run's: that many log-probabilities come back if it cuts."""
    sampling = request.sampling
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": request.seed & SEEDS,
        "stop": list(sampling.stop),
        "stop_token_ids": sorted({*ends, *sampling.stop_tokens}),
        "ignore_eos": True,  # what ends a turn is the policy's own end tokens, which are all named above
        "logprobs": top_k if sampling.top_k else 0,
        "detokenize": bool(sampling.stop),
        "skip_special_tokens": True,
    }


def log_kept(top: Sequence[Sequence[float]], sampling: Sampling) -> list[float]:
    """Return the log of the mass that top-k, then top-p keep, from the largest log-probabilities of each place.

    Top-p is the smallest set whose mass among the top k reaches it, as in `engines.sampling`.
    """
    kept = []
    for row in top:
        probs = np.exp(np.sort(np.array(row, dtype=np.float64))[::-1][: sampling.top_k])
        if sampling.top_p < 1:
            share = probs / probs.sum()
            probs = probs[share.cumsum() - share < sampling.top_p]
        kept.append(min(0.0, float(np.log(probs.sum()))))
    return kept


def answer_of(
    tokens: Sequence[int],
    logprobs: Sequence[float],
    top: Sequence[Sequence[float]],
    request: Request,
    *,
    finish: str,
    stop: object,
    ends: Sequence[int],
    spans: tuple[tuple[int, Label], ...],
) -> Answer:
    """Return an answer from what vLLM says of it; `top` are the largest log-probabilities where something was cut."""
    sampling = request.sampling
    given = np.array(logprobs, dtype=np.float32)
    kept = np.zeros(0, dtype=np.float32)
    if sampling.top_k and sampling.temperature:
        kept = np.array(log_kept(top, sampling), dtype=np.float32)
        given = given - kept
    return Answer(
        tokens=np.array(tokens, dtype=np.int32),
        logprobs=given,
        log_kept=kept,
        stop=stop_reason(tokens, finish, stop, (*ends, *sampling.stop_tokens)),
        spans=spans,
    )


def stop_reason(tokens: Sequence[int], finish: str, stop: object, ends: Sequence[int]) -> StopReason:
    """Return why an answer ended. **Raises**: `EngineGone` if the server gave it up."""
    if finish == "length":
        return StopReason.END if tokens and tokens[-1] in ends else StopReason.LENGTH
    if finish == "stop":
        return StopReason.STOP if isinstance(stop, str) else StopReason.END
    raise EngineGone(f"An answer ended without being finished ({finish}).")


async def check_server(http: Http, sampling: Sampling, *, context: int, dtype: str) -> None:
    """Raise `ConfigError` if a vLLM that is up cannot serve a run, for what `check_facts` says or as it was started."""
    try:
        facts = await _call(http, "ratchet_facts")
    except EngineGone as gone:  # how vLLM answers where its workers have no such method
        raise _cannot_take(http, gone) from None
    check_facts(facts, sampling, context=context, dtype=dtype)
    try:
        await http.post(ABORT, {"request_ids": []})
    except EngineError as error:
        raise ConfigError(f"{http.url} takes no tokens ({error}). Start it with --enable-scale-out.") from None


async def _call(http: Http, method: str, *args: str) -> Mapping[str, Any]:
    """Call a method of the worker extension; return what the first worker answers."""
    try:
        found = await http.post("/collective_rpc", {"method": method, "args": list(args)})
        return dict(found["results"][0])
    except (EngineError, KeyError, IndexError, TypeError, ValueError) as error:
        raise _cannot_take(http, error) from None


def _cannot_take(http: Http, error: Exception) -> ConfigError:
    return ConfigError(
        f"{http.url} cannot take weights ({error}). Start it as VLLM_SERVER_DEV_MODE=1 vllm serve ... "
        f"--enable-scale-out --worker-extension-cls {EXTENSION}, in an environment where ratchet is installed too."
    )


class VllmServer:
    """A `Place`."""

    def __init__(
        self, server: Reached, folder: WeightFolder, ends: Sequence[int], sampling: Sampling, *, context: int
    ) -> None:
        """`sampling` is the run's way of exploring, `context` its most tokens of prompt and answer together; `ends` are
        the policy's end tokens."""
        self._server, self._folder, self._ends = server, folder, tuple(ends)
        self._sampling, self._context = sampling, context
        self._salt = ""

    async def open(self) -> None:
        await self._server.open()
        await check_server(self._server.http, self._sampling, context=self._context, dtype=self._folder.dtype)

    async def reopen(self) -> None:
        await self._server.reopen()

    async def generate(self, request: Request, name: str) -> Answer:
        body = {
            "request_id": name,
            "token_ids": request.prompt.tolist(),
            "sampling_params": sampling_fields(request, self._ends, self._sampling.top_k),
            # What older weights computed for this prompt must not be used: prompts share within a version only.
            "cache_salt": self._salt,
        }
        found = await self._server.http.post("/inference/v1/generate", body)
        try:
            choice = found["choices"][0]
            content = choice["logprobs"]["content"]
            spans = tuple((int(s["start"]), Label.read(str(s["version"]))) for s in choice.get("weight_versions") or ())
            return answer_of(
                [int(t) for t in choice["token_ids"]],
                [float(one["logprob"]) for one in content],
                [[float(other["logprob"]) for other in one["top_logprobs"]] for one in content],
                request,
                finish=str(choice["finish_reason"]),
                stop=choice.get("stop_reason"),
                ends=self._ends,
                spans=spans,
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self._server.http.url} answered in no form that this version knows ({error!r}). It must be a vLLM "
                "server with /inference/v1/generate."
            ) from None

    async def abort(self, name: str) -> None:
        await self._server.http.post(ABORT, {"request_ids": [name]})

    async def load(self, weights: Mapping[str, Tensor], label: Label) -> None:
        http, folder = self._server.http, self._folder.write(weights, label.version)
        await http.post("/pause?mode=keep&clear_cache=false")
        try:
            facts = await _call(http, "ratchet_load", str(folder))
            await http.post("/update_weight_version", {"new_version": str(label)})
        finally:
            await http.post("/resume")
        self._salt = str(label)
        check_read_back(facts, label, self._folder, weights)

    async def close(self) -> None:
        await self._server.close()
        self._folder.remove()


def check_read_back(
    facts: Mapping[str, Any], label: Label, folder: WeightFolder, weights: Mapping[str, Tensor]
) -> None:
    """Raise `EngineError` if the weights a worker holds after a load are not those it was given.

    A worker says nothing where it keeps them in a form that cannot be read back: split over devices, or packed for
    its own kernels and too large to unpack; and of adapters and other architectures nothing is asked. Then the
    log-probabilities of the next step are the check.
    """
    found, expected = facts.get("digest"), folder.digest(weights)
    if not found or not expected:
        return
    if found != expected:
        raise EngineError(
            f"After version {label.version} was loaded, vLLM holds weights {found}, not {expected}. What it samples "
            "would be another policy's. Report this with the model's form and vLLM's version; meanwhile use "
            'engine.name = "ratchet".'
        )
