"""SGLang behind HTTP: tokens in, tokens out, weights updated from a folder.

Called by `engines.build` for ``engine.name = "sglang"``. The server is one that repeats itself:

    python -m sglang.launch_server --model-path MODEL --enable-deterministic-inference

Written against SGLang 0.5.23: `srt/entrypoints/http_server`, `srt/managers/io_struct`, `srt/layers/sampler`. Its
`output_token_logprobs` are those of the tempered distribution before it is cut, its `output_token_sampling_logprobs`
those of the cut one; the mass that was kept is their ratio. It tells the latter only for a top-k of up to
`--sampling-mask-max-tokens`, and cuts by top-p and top-k each on the whole distribution, where ours cuts by top-p what
top-k has left: the mass that is recorded is that of its cut.
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

SEEDS = (1 << 31) - 1
"""Its seeds become 32-bit integers on some devices."""
_KEPT_BACK = 5
"""Positions of its context that SGLang gives to no request."""


def cuts(sampling: Sampling) -> bool:
    """Return whether top-k or top-p cut the distribution that is drawn from."""
    return sampling.temperature > 0 and (sampling.top_k > 0 or sampling.top_p < 1)


def check_facts(facts: Mapping[str, Any], sampling: Sampling, *, context: int, vocab: int, dtype: str) -> None:
    """Raise `ConfigError` if SGLang does not draw by the seeds of requests, computes in another precision, takes
    shorter prompts than the run has, or does not tell how much mass the cut of `sampling` keeps. `facts`: its
    `/server_info`."""
    if not facts.get("enable_deterministic_inference", False):
        raise ConfigError(
            "SGLang does not draw by the seed of each request, so a run could not be repeated: start it with "
            "--enable-deterministic-inference."
        )
    found = {"float": "float32"}.get(str(facts["dtype"]), facts["dtype"])
    if found != dtype and (found, dtype) != ("auto", "bfloat16"):  # float32 models are float16 to its "auto"
        raise ConfigError(
            f'SGLang computes in {found}, but policy.dtype = "{dtype}": start it with --dtype {dtype}, or change '
            "policy.dtype."
        )
    if context > (longest := int(facts["max_req_input_len"]) + 1):
        raise ConfigError(
            f"Prompt and answer of this run may have {context} tokens together, but SGLang as it was started leaves "
            f"room for {longest}: start it with --context-length {context + _KEPT_BACK} or more and a cache as large, "
            f"or set policy.context = {longest}."
        )
    widest, most = sampling.top_k or vocab, int(facts["sampling_mask_max_tokens"])
    if cuts(sampling) and widest > most:
        raise ConfigError(
            f"explore.top_p = {sampling.top_p:g} and explore.top_k = {sampling.top_k} may leave {widest} tokens. This "
            f"SGLang tells how much mass a cut keeps for up to {most}; beyond, the trainer could not know the "
            f"distribution sampled from. Set explore.top_k to 2 .. {most}, or start SGLang with "
            f"--sampling-mask-max-tokens {widest}."
        )
    if sampling.top_k == 1 and sampling.temperature not in (0.0, 1.0):
        raise ConfigError(
            f"explore.top_k = 1 at explore.temperature = {sampling.temperature:g}: SGLang takes the likeliest token "
            "and tells its log-probability without the temperature. Set explore.temperature = 1, or another top_k."
        )


async def check_server(http: Http, sampling: Sampling, *, context: int, vocab: int, dtype: str) -> None:
    """Raise `ConfigError` if an SGLang that is up cannot serve a run, for what `check_facts` says."""
    facts = await http.get("/server_info") or {}
    try:
        check_facts(facts, sampling, context=context, vocab=vocab, dtype=dtype)
    except KeyError as missing:
        raise ConfigError(f"{http.url} does not tell its {missing}. It must be SGLang 0.5.23 or newer.") from None


class SglangServer:
    """A `Place`."""

    def __init__(
        self,
        server: Reached,
        folder: WeightFolder,
        ends: Sequence[int],
        sampling: Sampling,
        *,
        context: int,
        vocab: int,
    ) -> None:
        """`sampling` is the run's way of exploring, `context` its most tokens of prompt and answer together; `ends` are
        the policy's end tokens, `vocab` how many it knows."""
        self._server, self._folder, self._ends = server, folder, tuple(ends)
        self._sampling, self._context, self._vocab = sampling, context, vocab
        self._read_back = "", ""
        """Fingerprint of the weights that were handed over last, and what the server makes of those it holds."""

    async def open(self) -> None:
        await self._server.open()
        await check_server(
            self._server.http, self._sampling, context=self._context, vocab=self._vocab, dtype=self._folder.dtype
        )

    async def reopen(self) -> None:
        await self._server.reopen()

    async def generate(self, request: Request, name: str) -> Answer:
        sampling, cut = request.sampling, cuts(request.sampling)
        body: dict[str, Any] = {
            "rid": name,
            "input_ids": request.prompt.tolist(),
            "sampling_params": {
                "max_new_tokens": sampling.max_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k or (self._vocab if cut else -1),
                "sampling_seed": request.seed & SEEDS,
                "stop": list(sampling.stop),
                "stop_token_ids": sorted({*self._ends, *sampling.stop_tokens}),
                "no_stop_trim": True,
                "skip_special_tokens": True,
            },
            "return_logprob": True,
            **({"return_sampling_mask": True, "sampling_logprobs_mode": "selected"} if cut else {}),
        }
        found = await self._server.http.post("/generate", body)
        try:
            meta = found["meta_info"]
            sampled = [(float(one[0]), int(one[1])) for one in meta["output_token_logprobs"]]
            drawn = [float(x) for x in meta["output_token_sampling_logprobs"]] if cut else []
            spans = tuple((int(s["start"]), Label.read(str(s["version"]))) for s in meta.get("weight_versions") or ())
            return self._answer(request, sampled, drawn, dict(meta["finish_reason"]), spans)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self._server.http.url} answered in no form that this version knows ({error!r}). It must be an "
                "SGLang server whose /generate returns log-probabilities, of cut distributions too (0.5.23 does)."
            ) from None

    def _answer(
        self,
        request: Request,
        sampled: Sequence[tuple[float, int]],
        drawn: Sequence[float],
        finish: Mapping[str, Any],
        spans: tuple[tuple[int, Label], ...],
    ) -> Answer:
        """Return an answer from the tokens with their uncut log-probabilities, and the cut ones where there are any."""
        whole = np.array([logprob for logprob, _ in sampled], dtype=np.float32)
        kept = np.zeros(0, dtype=np.float32)
        if drawn:
            if len(drawn) != len(whole):
                raise ValueError(f"{len(whole)} tokens, but {len(drawn)} log-probabilities of the cut distribution")
            cut = np.array(drawn, dtype=np.float32)
            whole, kept = cut, np.minimum(whole - cut, 0.0)
        tokens = np.array([token for _, token in sampled], dtype=np.int32)
        return Answer(tokens, whole, kept, self._stop(request, tokens.tolist(), finish), spans)

    def _stop(self, request: Request, tokens: Sequence[int], finish: Mapping[str, Any]) -> StopReason:
        kind, ends = finish.get("type"), (*self._ends, *request.sampling.stop_tokens)
        if kind == "stop":
            return StopReason.STOP if isinstance(finish.get("matched"), str) else StopReason.END
        if kind == "length":
            return StopReason.END if tokens and tokens[-1] in ends else StopReason.LENGTH
        raise EngineGone(f"An answer ended without being finished: {finish.get('message') or kind}.")

    async def abort(self, name: str) -> None:
        await self._server.http.post("/abort_request", {"rid": name})

    async def load(self, weights: Mapping[str, Tensor], label: Label) -> None:
        http, folder = self._server.http, self._folder.write(weights, label.version)
        # Answers in flight go back to the queue: what the old weights computed for them is computed anew.
        await http.post("/pause_generation", {"mode": "retract"})
        try:
            body = {"model_path": str(folder), "flush_cache": True, "weight_version": str(label)}
            found = await http.post("/update_weights_from_disk", body)
            if not (isinstance(found, dict) and found.get("success")):
                raise EngineError(
                    f"{http.url} did not take version {label.version}: {found}. It reads {folder}: if it runs on "
                    "another machine, set engine.folder to one that both can reach."
                )
            await self._check_held(self._folder.digest(weights), label)
        finally:
            await http.post("/continue_generation", {})
        held = (await http.get("/model_info") or {}).get("weight_version")
        if held != str(label):
            raise EngineError(
                f'{http.url} says that it holds weights "{held}" after "{label}" was loaded: somebody else updates '
                "this server too. Give the run a server of its own."
            )

    async def _check_held(self, fingerprint: str, label: Label) -> None:
        """Raise `EngineError` if the server holds the same weights as before although others were handed over, or
        others although the same were: it hashes its tensors."""
        http = self._server.http
        found = (await http.post("/weights_checker", {"action": "checksum"}) or {}).get("per_engine_checksum")
        if not found:
            raise EngineError(f"{http.url} does not tell what weights it holds; SGLang 0.5.23 does.")
        (before, held), self._read_back = self._read_back, (fingerprint, str(found))
        if before and fingerprint and (before == fingerprint) != (held == found):
            kept = "the weights it held before" if held == found else "other weights than when it got the same before"
            raise EngineError(
                f"{http.url} says that it took version {label.version}, but it holds {kept}. What it samples would not "
                "be the policy's: look into its log, and start it anew."
            )

    async def close(self) -> None:
        await self._server.close()
        self._folder.remove()
