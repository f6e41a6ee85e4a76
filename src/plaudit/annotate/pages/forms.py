"""From the fields of a task's form to an answer, and from an answer to the values that the form starts with.

Fields name responses by the letter under which they were shown (``rank-B`` is about the second one on the page).
"""

# Why not by their index in the item: rows often come with the responses of one model first, so the index would tell
# annotators who wrote what. ``answers.submit`` turns answers as seen into answers as stored.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from plaudit.annotate.pages.markup import turns
from plaudit.annotate.server.access import Form
from plaudit.errors import DataError
from plaudit.preferences.annotation import (
    Answer,
    Choice,
    Ranks,
    Scores,
    Skip,
    Thumbs,
    Verdict,
    Written,
    in_order,
)
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.leases import Work
from plaudit.preferences.store.projects import Project
from plaudit.records import Content

STEPS = ((-2, "much better"), (-1, "better"), (0, "about the same"), (1, "better"), (2, "much better"))
"""Strengths as seen: negative for the response shown first."""
LETTERS = "ABCDEFGHI"
"""The names of responses on a page, the one shown first A."""
VERDICTS: dict[str, Verdict] = {"both_bad": "both_bad", "cannot_judge": "cannot_judge"}


def read_submission(form: Form, work: Work, project: Project) -> Submission:
    """The answer or skip in a form; a DataError says what is missing."""
    skip = form.has("reason")
    answer = Skip(form.text("reason")[:200]) if skip else read_answer(form, work, project)
    supersedes = form.number("supersedes", 0) or None
    comment, shown = form.text("comment").strip(), form.number("guidelines", 0) or None
    return Submission(form.text("key"), answer, form.texts("flag"), comment, supersedes, shown, as_seen=True)


def read_answer(form: Form, work: Work, project: Project) -> Answer:
    """The answer of a form of this task."""
    if project.task == "rating":
        return _scores(form, work, project.settings.axes)
    readers: dict[str, Callable[[Form, Work], Answer]] = {
        "pairwise": _choice,
        "ranking": _ranks,
        "thumbs": _thumbs,
        "demonstration": _written,
    }
    return readers[project.task](form, work)


def _choice(form: Form, work: Work) -> Choice:
    choice = form.text("choice")
    if choice in VERDICTS:
        return Choice(0, VERDICTS[choice], _edit(form, work))
    if choice not in {str(step) for step, _ in STEPS}:
        raise DataError(
            "nothing is chosen yet", where="choice", cure="say which response is better, and how much"
        )
    return Choice(int(choice), edit=_edit(form, work))


def _ranks(form: Form, work: Work) -> Ranks:
    ranks = [form.number(f"rank-{letter}", 0) for letter in LETTERS[: len(work.order)]]
    if not all(1 <= rank <= len(ranks) for rank in ranks):
        raise DataError("some responses have no rank yet", where="ranks", cure="rank every response")
    # People may use ranks 1, 1, 3: stored ranks leave none out, so that the same order is always the same answer.
    dense = {rank: place for place, rank in enumerate(sorted(set(ranks)), 1)}
    return Ranks(tuple(dense[rank] for rank in ranks), _edit(form, work))


def _edit(form: Form, work: Work) -> Written | None:
    """The best response as the annotator edited it; None where nothing was changed."""
    text, base = _text(form), _base(form, work)
    if not text or base is not None and text == source(work.item.responses[work.order[base]].content):
        return None
    return Written(text, base)


def _base(form: Form, work: Work) -> int | None:
    """The place of the response that a text was edited from; None without one."""
    letter = form.text("base")
    if not letter:
        return None
    if letter not in list(LETTERS[: len(work.order)]):
        raise DataError(f"there is no response {letter[:40]!r}", where="base", cure="load the page again")
    return LETTERS.index(letter)


def source(content: Content) -> str:
    """A response as the text that an edit starts from."""
    return "".join(words for _, words in turns(content)).replace("\r\n", "\n").strip()


def _text(form: Form) -> str:
    # Browsers send line ends as CR LF, whatever the text had. Both sides of the comparison in ``_edit`` are brought
    # to LF.
    return form.text("text").replace("\r\n", "\n").strip()


def _scores(form: Form, work: Work, axes: tuple[str, ...]) -> Scores:
    rows = []
    for letter in LETTERS[: len(work.order)]:
        row = {axis: form.number(f"score-{letter}-{n}", 0) for n, axis in enumerate(axes)}
        missing = [axis for axis, value in row.items() if not value]
        if missing:
            cure = "give every response a number on every scale"
            raise DataError(f"{missing[0]} of a response has no number yet", where="scores", cure=cure)
        rows.append(row)
    return Scores(tuple(rows))


def _thumbs(form: Form, work: Work) -> Thumbs:
    thumbs = [form.text(f"thumb-{letter}") for letter in LETTERS[: len(work.order)]]
    if not set(thumbs) <= {"up", "down"}:
        raise DataError(
            "some responses have no thumb yet", where="thumbs", cure="say of each whether it is good"
        )
    return Thumbs(tuple(thumb == "up" for thumb in thumbs))


def _written(form: Form, work: Work) -> Written:
    text = _text(form)
    if not text:
        raise DataError(
            "nothing is written yet", where="text", cure="write the response you would like to read"
        )
    return Written(text, _base(form, work))


def filled(answer: Answer | None, order: tuple[int, ...]) -> dict[str, str]:
    """The values of the form's fields for a stored answer; none where there is no answer yet."""
    return {} if answer is None else _filled(in_order(answer, order))


def _filled(answer: Answer) -> dict[str, str]:
    """The same for an answer as it was seen."""
    if isinstance(answer, Choice):
        choice = {"choice": answer.verdict or str(answer.strength)}
        return choice | (_filled(answer.edit) if answer.edit else {})
    if isinstance(answer, Ranks):
        ranks = {f"rank-{letter}": str(rank) for letter, rank in zip(LETTERS, answer.ranks, strict=False)}
        return ranks | (_filled(answer.edit) if answer.edit else {})
    if isinstance(answer, Thumbs):
        return {f"thumb-{LETTERS[k]}": "up" if up else "down" for k, up in enumerate(answer.up)}
    if isinstance(answer, Written):
        return {"text": answer.text, "base": "" if answer.base is None else LETTERS[answer.base]}
    if isinstance(answer, Scores):
        rows = zip(LETTERS, answer.scores, strict=False)
        return {f"score-{letter}-{n}": str(v) for letter, row in rows for n, v in enumerate(row.values())}
    return {}


def in_words(answer: Answer, order: tuple[int, ...]) -> str:
    """An answer in a few words, with responses named by letters in the order given (A was shown first)."""
    letters = {index: LETTERS[place] for place, index in enumerate(order)}
    if isinstance(answer, (Choice, Ranks)) and answer.edit is not None and answer.edit.base is not None:
        return f"{in_words(replace(answer, edit=None), order)}; {letters[answer.edit.base]} edited"
    if isinstance(answer, Choice):
        return _choice_in_words(answer, letters)
    if isinstance(answer, Ranks):
        by_rank: dict[int, list[str]] = {}
        for i, rank in enumerate(answer.ranks):
            by_rank.setdefault(rank, []).append(letters[i])
        return " > ".join(" = ".join(sorted(names)) for _, names in sorted(by_rank.items()))
    if isinstance(answer, Scores):
        means = (f"{letters[i]} {sum(row.values()) / len(row):.1f}" for i, row in enumerate(answer.scores))
        return ", ".join(sorted(means))
    if isinstance(answer, Thumbs):
        return ", ".join(sorted(f"{letters[i]} {'good' if up else 'bad'}" for i, up in enumerate(answer.up)))
    if isinstance(answer, Written):
        return answer.text if len(answer.text) < 80 else f"{answer.text[:77]}\u2026"
    return f"skipped: {answer.reason}"


def _choice_in_words(answer: Choice, letters: dict[int, str]) -> str:
    if answer.verdict:
        return {"both_bad": "both bad", "cannot_judge": "cannot judge"}[answer.verdict]
    if answer.strength == 0:
        return "about the same"
    better = letters[0 if answer.strength < 0 else 1]
    return f"{better} {'much ' if abs(answer.strength) == 2 else ''}better"
