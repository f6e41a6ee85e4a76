"""The built-in generator: a batched decoding loop over a preallocated key/value cache.

Each distinct prompt is prefilled once and its cache copied to all responses of its group. Finished rows leave the batch
at once; waiting responses take their slots when a quarter of the rows is free.

`NativeGenerator.generate` is the way in; `steps.py` draws one token of each row; `batches.py` knows which
responses are being drawn, and reads their tokens. `live.py` runs the same steps for requests that come one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from plaudit.awaited import beat
from plaudit.config.sections import SamplingSection
from plaudit.data.chat import Tokens
from plaudit.errors import DataError
from plaudit.generation.batches import Batch, Response, Rules, Slots, WholeRows
from plaudit.generation.decoder import Decoder
from plaudit.generation.fixed_shapes import CudaGraphs, Record
from plaudit.generation.sampling import Distribution, sample_seed
from plaudit.generation.steps import draw_one
from plaudit.generation.texts import ResponseTexts
from plaudit.models.files.vocabulary import Words
from plaudit.records import Rollout
from plaudit.runtime import Progress, TokenPrompt, Weights


class NativeGenerator:
    """Draws responses from a Hugging Face decoder in this process.

    Log-probs are recorded in fp32 under softmax(logits / temperature) over the full vocabulary, the next-token
    distribution that is trained; so they equal a recomputation in training, also where top-k, top-p, min-p or
    min_new_tokens change what is drawn.

    Args:
        lm: causal LM, or a peft model around one. Its weights are those that are trained, not a copy.
        tokenizer: decodes ids into the text of a response; also finds stop texts.
        ends: tokens that end a response, the one drawn stays in ``response_ids``; and texts that end every response,
            besides those of a call's sampling settings.
        rows: responses decoded side by side. Changes speed and memory, not the responses.
        precision: torch.bfloat16 runs the trunk under autocast.
        cuda_graphs: on a GPU, record steps and replay them; see `fixed_shapes`.
    """

    def __init__(
        self,
        lm: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        ends: Sequence[int | str],
        *,
        rows: int = 64,
        precision: torch.dtype = torch.float32,
        cuda_graphs: bool = True,
        record: Record | None = None,
    ) -> None:
        assert rows >= 1, "at least one row"
        self._version = 0
        self._decoder = Decoder(lm, precision, Words.known_to(tokenizer))
        self._tokens = Tokens(tokenizer)
        self._end_ids = tuple(end for end in ends if isinstance(end, int))
        self._stop_texts = tuple(end for end in ends if isinstance(end, str))
        self._rows = rows
        self._cuda_graphs, self._record = cuda_graphs, record
        self._recorded: CudaGraphs | None = None  # of the last call of `generate`

    def publish(self, weights: Weights, version: int) -> None:
        """See `Generator.publish`. Nothing is copied: what is drawn from are the tensors that training changes.

        Only the version is noted, by which a rollout says after which update it was drawn.
        """
        self._version = version

    def generate(
        self,
        prompts: Sequence[TokenPrompt],
        n: int,
        sampling: SamplingSection,
        *,
        seed: int,
        iteration: int,
        progress: Progress | None = None,
    ) -> list[Rollout]:
        """See `Generator.generate`. A stop text is cut off ``response``, its tokens stay in ``response_ids``.

        Raises:
            DataError: a prompt without tokens.
            ConfigError: prompt and max_new_tokens exceed what the model can read.
            ModelError: the model gives logits that are not finite.
        """
        _check_prompts(prompts)
        if not prompts or n < 1:
            return []
        most = [min(p.max_new_tokens or sampling.max_new_tokens, sampling.max_new_tokens) for p in prompts]
        longest, room = max((len(p.ids) + m, m) for p, m in zip(prompts, most, strict=True))
        self._decoder.check_length(longest - room, room)
        texts = ResponseTexts(self._tokens, (*self._stop_texts, *sampling.stop), sampling.text)
        rules = Rules(Distribution.of(sampling), texts, self._end_ids, sampling.min_new_tokens)
        responses = [
            Response(p, i, sample_seed(seed, iteration, p.prompt.id, k), most[i], rules)
            for i, p in enumerate(prompts)
            for k in range(n)
        ]
        with self._decoder.ready(min(self._rows, len(responses)), room):
            for finished in _drawn(self._batch(responses, longest)):
                if progress is not None:
                    progress(finished, len(responses))
        return [self._rollout(r, texts) for r in responses]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a run should say of how the model is sampled, in words for the user.

        Raises:
            ModelError: the model cannot be sampled from.
        """
        with self._decoder.ready():
            return (self._decoder.note,) if self._decoder.note else ()

    def _batch(self, responses: Sequence[Response], longest: int) -> Batch:
        rows = min(self._rows, len(responses))
        batch: Batch = WholeRows(self._decoder, rows)
        if self._decoder.in_slots(longest):
            batch = Slots(self._decoder, rows, longest, self._recorder())
            # Longest prompts first, so that rows decoded together are of similar length, and memory is at its largest
            # early, where a failure costs least. Sorting by ids puts equal prompts together, which are prefilled once.
            responses = sorted(responses, key=lambda r: (len(r.prompt.ids), r.prompt.ids), reverse=True)
        batch.join(responses)
        return batch

    def _recorder(self) -> Record | None:
        """What records steps of this call of `generate`; None where they run as they are."""
        # A new one for each call: a graph holds the addresses of that call's cache. One failed attempt is enough: a
        # model that cannot be recorded would fail again, and warn again, in every iteration.
        if self._record is not None:
            return self._record
        device, failed = self._decoder.device, self._recorded is not None and not self._recorded.works
        if not self._cuda_graphs or device.type != "cuda" or failed:
            return None
        self._recorded = CudaGraphs(device)
        return self._recorded

    def _rollout(self, response: Response, texts: ResponseTexts) -> Rollout:
        assert response.finish is not None, "every response is finished"
        # The end token is a sampled token and stays in the ids: its log-prob is trained. It is no part of the text.
        ids = response.ids
        stopped = response.finish == "stop"
        by_token = stopped and ids[-1] in self._end_ids
        rollout = Rollout.single(
            prompt=response.prompt.prompt,
            group_id=response.group,
            prompt_ids=response.prompt.ids,
            response_ids=ids,
            logprobs=response.logprobs,
            response=texts.of(
                response.prompt.ids, ids[:-1] if by_token else ids, stopped=stopped and not by_token
            ),
            finish_reason=response.finish,
        )
        return replace(rollout, policy_version=self._version)


def _drawn(batch: Batch) -> Iterator[int]:
    """Draw until no response is left; yields the number of finished ones whenever it has grown."""
    finished = 0
    batch.admit()
    while batch.rows:
        beat()
        rows = list(batch.rows)
        draw_one(batch)
        for row in rows:
            if row.error is not None:
                raise row.error
        if len(batch.rows) < len(rows):
            finished += len(rows) - len(batch.rows)
            yield finished
        batch.admit()


def _check_prompts(prompts: Sequence[TokenPrompt]) -> None:
    for p in prompts:
        if not p.ids:
            raise DataError(
                f"prompt {p.prompt.id!r} has no tokens",
                cure="give it some text, or use a tokenizer that adds a beginning-of-sequence token",
            )
