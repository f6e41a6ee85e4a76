"""Texts that a policy must not forget: from a file of the user, or the held-out demonstrations of the run's own SFT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from plaudit.config.load import load_job
from plaudit.config.sections import DataSection
from plaudit.data.chat import ChatFormat, Encoded
from plaudit.data.fit import FitReport
from plaudit.data.load import Loaded, as_kind, load_records
from plaudit.data.reading.transcripts import plain_text
from plaudit.data.split import split_by_prompt
from plaudit.errors import PlauditError
from plaudit.jobs.registry import COMMANDS
from plaudit.jobs.sft import SFTJob
from plaudit.records import Demonstration, Prompt
from plaudit.runs.files import CONFIG
from plaudit.runs.reading import is_run, read_run
from plaudit.runtime import TextFormat
from plaudit.stages.encode import Rows, demonstration_encoder, encode_rows, readable, tell_of
from plaudit.stages.said import Said

MOST_TEXTS = 512
"""Texts that are read at most: the interval is then narrow enough, and reading them takes no longer than sampling."""
LONGEST = 1024
"""Tokens of a text that are read, where the model can and the run does not read more."""


def heldout_texts(policy: str, source: str, text: TextFormat, data: DataSection, said: Said) -> Rows | str:
    """Encoded texts to measure forgetting on, or why there are none.

    Args:
        policy: what the run started from.
        source: a file of texts (of prompts: each is read as a whole) or of data with responses (read given their
            prompts); "": the rows that the SFT run behind ``policy`` held out.
        text: how the model reads.
        data: of the run.
        said: told what is left out and cut.

    Raises:
        DataError: a source that was named cannot be read.
    """
    if source:
        loaded = load_records(source)
        said.loaded(loaded)
    else:
        behind = _demonstrations_behind(policy, said)
        if isinstance(behind, str):
            return behind
        loaded = behind
    wide = {"max_length": max(data.max_length, LONGEST), "on_long": "drop"}
    data = readable(text, data.model_copy(update=wide), Said())
    if loaded.kind == "prompt":
        rows = _whole_texts(loaded, text.chat, data.max_length, said)
    else:
        loaded = as_kind(loaded, "demonstration")
        kept = [record for record in loaded.records if isinstance(record, Demonstration)]
        kept = _at_most(kept, loaded.source, said)
        rows = encode_rows(kept, demonstration_encoder(text.chat, False), data, loaded.places, text.chat)
        tell_of(rows, f"{loaded.source}, held-out texts", said)
    return rows if len(rows) else f"none of the texts in {loaded.source} fits {data.max_length} tokens"


def _demonstrations_behind(policy: str, said: Said) -> Loaded | str:
    """What the SFT run that made a policy held out; or why it is not known."""
    run = Path(policy).parent
    if Path(policy).name != "model" or not is_run(run) or not (run / CONFIG).is_file():
        return f"{policy} is no model of an SFT run, so what it should not forget is not known: name a file"
    command = COMMANDS.get(read_run(run).command)
    if command is None or command.kind != "sft":
        return f"{policy} was not made by SFT, so what it should not forget is not known: name a file"
    try:
        job = load_job(SFTJob, [run / CONFIG], {}).job
        loaded = load_records(
            job.dataset, "demonstration", limit=job.data.limit, fields=job.data.fields, max_gb=job.data.max_gb
        )
    except PlauditError as error:
        return f"the demonstrations of {run} cannot be read again ({error.what}): name a file"
    _, heldout = split_by_prompt(loaded.records, job.data.eval_fraction, job.seed)
    if not heldout:
        return f"{run} held out no demonstrations: name a file"
    said.note([f"forgetting is measured on the {len(heldout)} demonstrations that {run} held out"])
    return replace(loaded, records=tuple(heldout))


def _at_most(records: list[Demonstration], source: str, said: Said) -> list[Demonstration]:
    if len(records) > MOST_TEXTS:
        rest = len(records) - MOST_TEXTS
        said.left_out(source, f"{rest} held-out texts are not read: the first {MOST_TEXTS} are enough", rest)
    return records[:MOST_TEXTS]


def _whole_texts(loaded: Loaded, chat: ChatFormat, longest: int, said: Said) -> Rows:
    """Plain texts, of which every token but the first counts; long ones are cut, and counted."""
    texts = [Demonstration(r.id, "", plain_text(r.content)) for r in loaded.records if isinstance(r, Prompt)]
    texts = _at_most(texts, loaded.source, said)
    # No end token: a line of a file may be a part of something longer.
    encoded = [chat.encode("", one.response, finished=False) for one in texts]
    cut = sum(len(row) > longest for row in encoded)
    if cut:
        what = f"{cut} held-out texts are longer than {longest} tokens: their end is not read"
        said.left_out(loaded.source, what, 0)
    kept = [Encoded(row.ids[:longest], row.mask[:longest], row.prompt_length) for row in encoded]
    report = FitReport(len(kept), cut, 0, max((len(row) for row in encoded), default=0))
    return Rows(list(texts), [(row,) for row in kept], report)
