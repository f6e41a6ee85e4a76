"""A judge as an annotator: it is compared with the people of a project, and answers what is open if it is trusted."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from plaudit.annotate.export_data import read_answers
from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import ConfigError, Refused
from plaudit.jobs.reward_tables import JudgeTable
from plaudit.preferences.aggregate import Pair, gold_among, outcomes, usable
from plaudit.preferences.annotation import Annotation, Answer, Choice, Item, Ranks
from plaudit.preferences.calibration import Calibration, Verdict, calibrate
from plaudit.preferences.exporting import EVERYTHING
from plaudit.preferences.store import answers, content, leases, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.transaction import Transaction
from plaudit.preferences.votes import PairVote, pair_votes
from plaudit.rewards.remote.chat import Judge
from plaudit.rewards.remote.judge import Compared, compare

ACCOUNT = "judge@"
"""What the names of judges begin with. Nobody can log in as one of them."""
MOST_CALIBRATED = 300
"""Items on which a judge is compared with people, at most: the interval of the agreement is +- 0.05 then."""
AT_ONCE = 32
"""Items that are asked about at the same time, and whose answers are stored in one transaction."""
ASKED = ("pairwise", "ranking")
"""Tasks whose answers are comparisons."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge did in a project."""

    account: str
    calibration: Calibration
    answered: int = 0
    unanswered: int = 0
    """Items that it gave no usable answer to; they stay open."""
    error: str = ""
    """Why, for the first of them."""


class ProjectJudge:
    """A judge and the project that it answers in.

    Args:
        store: the database.
        project: one that asks for comparisons.
        table: of the judge. Marks are no comparisons, so one that asks for them asks for pairs here.

    Raises:
        ConfigError: another kind of project, or a judge that does not answer.
    """

    def __init__(self, store: Store, project: Project, table: JudgeTable) -> None:
        if project.task not in ASKED:
            raise ConfigError(
                f"a judge compares responses, and {project.slug} is a {project.task} project",
                where="plaudit annotate judge",
                cure="name a project whose task is pairwise or ranking",
            )
        self.store, self.project = store, project
        if table.ask == "score":
            table = table.model_copy(update={"ask": "pairs"})
        self.judge = Judge(table, where="--judge")
        self.judge.check()
        self.account = account_of(table, self.judge.rubric)

    def calibration(self) -> Calibration:
        """The judge beside the people of the project, on items that they have decided."""
        _, annotations, items = read_answers(self.store, self.project)
        votes = votes_of_people(annotations, items)
        decided = sorted({o.item for o in outcomes(votes) if o.winner is not None}, key=_by_chance)
        chosen = [items[key] for key in decided[:MOST_CALIBRATED]]
        verdicts: dict[Pair, Verdict] = {}
        for item, (known, _) in zip(chosen, self._compared(chosen), strict=True):
            verdicts |= _verdicts(item, known)
        return calibrate(verdicts, votes)

    def answer(self, limit: int, calibration: Calibration) -> Judged:
        """Answer the open items, at most ``limit`` of them (0: all), as an annotator of its own."""
        with self.store.write() as conn:
            user = self._user(conn)
            todo = leases.open_items(conn, self.project, user.id)
        todo = todo[:limit] if limit else todo
        done, failed, error = 0, 0, ""
        for start in range(0, len(todo), AT_ONCE):
            with self.store.read() as conn:
                loaded = content.read_items(conn, self.project, todo[start : start + AT_ONCE])
            compared = self._compared(list(loaded.values()))
            error = error or next((errors[0] for _, errors in compared if errors), "")
            # Judged before the transaction, so that nobody waits for a model to have an answer of theirs stored.
            with self.store.write() as conn:
                for (number, item), (known, _) in zip(loaded.items(), compared, strict=True):
                    answer = _answer(item, known)
                    failed += answer is None
                    done += answer is not None and self._store(conn, user.id, number, answer, known)
        with self.store.write() as conn:
            origin = self._origin(calibration)
            people.record(conn, "judged", self.project.slug, by=user.id, address="", answers=done, **origin)
        return Judged(self.account, calibration, done, failed, error)

    def _user(self, conn: Transaction) -> people.User:
        found = people.find_user(conn, self.account)
        if found is not None and found[1] is not None:
            raise ConfigError(
                f"somebody else has the name {self.account}", where="--judge", cure="give that person another name"
            )
        user = found[0] if found else people.add_user(conn, self.account, "annotator")
        projects.add_member(conn, self.project.id, user.id)
        return user

    def _store(
        self, conn: Transaction, user_id: int, number: int, answer: Answer, known: Mapping[tuple[str, str], Compared]
    ) -> bool:
        """Store one answer; False where the item's places went to others meanwhile."""
        work = leases.lease_item(conn, self.project, user_id, number, time.time())
        if work is None:
            return False
        key = hashlib.sha256(f"{self.account}/{self.project.id}/{number}/{work.id}".encode()).hexdigest()
        flipped = sum(one.place != 0 for one in known.values()) // 2
        comment = f"asked in both orders; {flipped} of {len(known) // 2} pairs had another winner in the other order"
        answers.submit(conn, self.project, user_id, work.id, answers.Submission(key, answer, comment=comment))
        return True

    def _origin(self, calibration: Calibration) -> dict[str, Any]:
        """How the answers came about, for the audit log."""
        table = self.judge.table
        return {
            "model": table.model,
            "url": table.url,
            "ask": table.ask,
            "rubric_sha256": hashlib.sha256(self.judge.rubric.encode()).hexdigest(),
            "agreement": str(calibration.agreement),
            "doubts": list(calibration.doubts),
        }

    def _compared(self, items: Sequence[Item]) -> list[tuple[dict[tuple[str, str], Compared], list[str]]]:
        return compare(self.judge, [(plain_text(item.prompt), texts_of(item)) for item in items])


def judge_project(
    store: Store,
    slug: str,
    table: JudgeTable,
    *,
    limit: int = 0,
    only_calibrate: bool = False,
    anyway: bool = False,
    say: Callable[[str], None] = print,
) -> Judged:
    """Compare a judge with the people of a project, and let it answer what is open.

    Args:
        store: the database.
        slug: the project.
        table: of the judge.
        limit: the most items that it answers; 0: all that are open.
        only_calibrate: compare it with people, and leave it at that.
        anyway: let it answer although it is not trusted.
        say: told the figures.

    Raises:
        ConfigError: see `ProjectJudge`; or the project is closed.
        Refused: the judge is not trusted.
    """
    with store.read() as conn:
        project = projects.get_project(conn, slug)
    judge = ProjectJudge(store, project, table)
    calibration = judge.calibration()
    say(f"{judge.account} beside the people of {slug}, on {calibration.items} items that they decided\n{calibration}")
    if only_calibrate:
        return Judged(judge.account, calibration)
    if project.closed:
        raise ConfigError(f"{slug} is closed", where="plaudit annotate judge", cure="open it again under Settings")
    if calibration.doubts and not anyway:
        raise Refused(
            f"the judge is not trusted: {calibration.doubts[0]}",
            where=slug,
            cure="let people answer more of the project first, or add --anyway",
        )
    return judge.answer(limit, calibration)


def account_of(table: JudgeTable, rubric: str) -> str:
    """The name of the annotator that a judge is: another model, rubric or way of asking is another one."""
    what = hashlib.sha256(json.dumps([table.model, rubric, table.ask, table.options], default=str).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", table.model)[:40]
    return f"{ACCOUNT}{name}.{what[:8]}"


def votes_of_people(annotations: Sequence[Annotation], items: Mapping[str, Item]) -> list[PairVote]:
    """The votes that count for a judge's calibration: not those of judges, and none on items with a known answer."""
    own = [a for a in annotations if not a.annotator.startswith(ACCOUNT)]
    kept, _ = usable(own, gold_among(items), EVERYTHING)
    return pair_votes(kept)


def texts_of(item: Item) -> list[str]:
    """The responses as texts."""
    return [plain_text(response.content) for response in item.responses]


def _verdicts(item: Item, known: Mapping[tuple[str, str], Compared]) -> dict[Pair, Verdict]:
    """What is known of each two responses, by their indices. Equal texts are no question."""
    texts = texts_of(item)
    found = {}
    for i, j in combinations(range(len(texts)), 2):
        if one := known.get((texts[i], texts[j])):
            found[item.key, i, j] = Verdict(-one.side, one.place, (len(texts[i]), len(texts[j])))
    return found


def _answer(item: Item, known: Mapping[tuple[str, str], Compared]) -> Answer | None:
    """The answer to an item; None where a comparison is missing."""
    texts = texts_of(item)
    sides = {(a, b): Compared() if a == b else known.get((a, b)) for a in texts for b in texts}
    if None in sides.values():
        return None
    if len(texts) == 2:
        one = sides[texts[0], texts[1]]
        return Choice(-one.side if one else 0)
    wins = [sum(one.side for (a, _), one in sides.items() if a == text and one) for text in texts]
    places = sorted(set(wins), reverse=True)
    return Ranks(tuple(1 + places.index(won) for won in wins))


def _by_chance(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()
