"""The texts that a policy goes on imitating while it learns from rewards (`ptx_dataset`)."""

from __future__ import annotations

from typing import Any

from plaudit.config.sections import Job
from plaudit.data.chat import ChatFormat
from plaudit.data.load import load_records
from plaudit.records import Demonstration
from plaudit.stages.encode import demonstration_encoder, encode_rows
from plaudit.training.offline import TextStream


def load_texts(source: str, job: Job, tokenizer: Any, chat: ChatFormat) -> TextStream | None:
    """Demonstrations (their responses count) or plain texts (every token counts); None for no source.

    Raises:
        DataError: nothing readable there, or a text is longer than ``max_length`` where that is an error.
    """
    if not source:
        return None
    records = load_records(source, "demonstration", limit=job.data.limit).records
    demonstrations = [r for r in records if isinstance(r, Demonstration)]
    rows = encode_rows(demonstrations, demonstration_encoder(chat, True), job.data, source)
    return TextStream([unit[0] for unit in rows.encoded], tokenizer.pad_token_id, job.seed)
