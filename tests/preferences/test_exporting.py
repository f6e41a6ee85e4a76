"""Out of the app and into training, and the other way: nothing is lost, and what is left out is counted."""

import json
from dataclasses import replace

import pytest

from plaudit.data.load import load_records
from plaudit.data.write import write_rows
from plaudit.errors import DataError
from plaudit.preferences.aggregate import Rule
from plaudit.preferences.annotation import (
    Annotation,
    Choice,
    Item,
    ItemResponse,
    Ranks,
    Scores,
    Skip,
    Thumbs,
    Written,
    answer_from_json,
    answer_to_json,
    check_answer,
)
from plaudit.preferences.compare import compare
from plaudit.preferences.exporting import export
from plaudit.records import Judgement, Message

CHAT = (Message("user", "Which?"), Message("assistant", "Of what?"), Message("user", "Of these."))
SAMPLED = {"run": "runs/ppo", "step": 40, "temperature": 1.0, "seed": 3}


def items(n: int, *, gold=None) -> dict[str, Item]:
    said = tuple(ItemResponse(f"reply {k}", f"model-{k}", SAMPLED if k else {}) for k in range(n))
    return {
        "i": Item("i", "Say hello.\n=1+1", said),
        "chat": Item("chat", CHAT, said),
        "known": Item("known", "A known one", said, gold),
    }


class History:
    """Annotations numbered as they come."""

    def __init__(self) -> None:
        self.all: list[Annotation] = []

    def add(self, key: str, name: str, answer, order=(0, 1), **more) -> "History":
        number = len(self.all) + 1
        self.all.append(
            Annotation(number, key, name, answer, order, seconds=9.5, created_at=1000.0 + number, **more)
        )
        return self


def pairwise() -> History:
    return (
        History()
        .add("chat", "ann", Choice(2), (1, 0), guideline_version=2, flags=("harmful",), comment='Ω, "quoted"')
        .add("i", "ann", Choice(-1))
        .add("i", "bob", Choice(-2), (1, 0))
        .add("i", "cyd", Choice(1))
        .add("known", "ann", Choice(1))
        .add("i", "ann", Choice(1), round=1)
        .add("i", "dee", Choice(0, "cannot_judge"))
        .add("i", "eve", Skip("odd"))
    )


def read_back(tmp_path, exported, ending="jsonl", kind=None):
    path = tmp_path / f"export.{ending}"
    if ending == "jsonl":
        path.write_bytes(exported.to_jsonl())
    else:
        write_rows(exported.rows, path)
    return load_records(str(path), kind)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "jsonl.gz"])
def test_preferences_go_straight_into_training(tmp_path, ending):
    exported = export("preferences", pairwise().all, items(2, gold=Choice(1)))
    loaded = read_back(tmp_path, exported, ending)
    assert loaded.kind == "preference" and loaded.records == exported.records
    assert [note for note in loaded.notes if "not used" in note] == ["fields not used: provenance"]
    chat, plain = exported.records
    assert (plain.chosen, plain.rejected, plain.margin) == ("reply 0", "reply 1", pytest.approx(2 / 3))
    assert plain.agreement == pytest.approx(2 / 3) and plain.annotator is None
    assert (chat.prompt, chat.chosen, chat.annotator) == (CHAT, "reply 1", "ann")


def test_provenance_says_who_when_by_which_guidelines_and_which_policy():
    rows = export("preferences", pairwise().all, items(2, gold=Choice(1))).rows
    origin = rows[1]["provenance"]
    assert origin["annotators"] == ["ann", "bob", "cyd"] and origin["revisions"] == [2, 3, 4]
    assert (origin["from"], origin["until"]) == (1002.0, 1004.0)
    assert origin["votes"] == {"chosen": 2, "rejected": 1, "tie": 0}
    assert origin["rejected"] == {"model": "model-1", "from": SAMPLED}
    assert rows[0]["provenance"]["guideline_versions"] == [2]
    json.dumps(rows)


def test_what_is_left_out_is_counted():
    exported = export("preferences", pairwise().all, items(2, gold=Choice(1)), Rule(min_votes=2))
    assert len(exported.records) == 1
    assert exported.dropped == {
        "answers to gold items": 1,
        "repeated answers": 1,
        "skips": 1,
        'answers "cannot judge"': 1,
        "pairs with fewer than 2 votes": 1,
    }
    strict = export("preferences", pairwise().all, items(2, gold=Choice(1)), Rule(min_agreement=0.9))
    assert [r.id for r in strict.records] == ["chat"]


def test_an_export_of_a_revision_is_the_same_bytes_forever():
    history = pairwise()
    early = [a for a in history.all if a.revision <= 3]
    first = export("preferences", early, items(2, gold=Choice(1)))
    history.add("chat", "bob", Choice(-1))
    shuffled = [a for a in reversed(history.all) if a.revision <= 3]
    again = export("preferences", shuffled, items(2, gold=Choice(1)))
    assert first.to_jsonl() == again.to_jsonl()
    assert len(first.rows) == 2
    later = export("preferences", history.all, items(2, gold=Choice(1)))
    assert later.to_jsonl() != first.to_jsonl()


def test_judgements_are_as_they_were_shown(tmp_path):
    exported = export("judgements", pairwise().all, items(2, gold=Choice(1)))
    loaded = read_back(tmp_path, exported)
    assert loaded.kind == "judgement" and loaded.records == exported.records
    chat = exported.records[0]
    assert (chat.response_a, chat.model_a, chat.strength) == (
        "reply 1",
        "model-1",
        -2,
    )  # shown first, and better
    assert exported.rows[0]["provenance"]["comment"] == 'Ω, "quoted"'
    preferences = read_back(tmp_path, exported, kind="preference").records
    assert {(p.chosen, p.rejected) for p in preferences} == {("reply 0", "reply 1"), ("reply 1", "reply 0")}


def test_every_two_of_a_ranking_are_a_judgement_as_shown(tmp_path):
    """Models that are compared by threes and more are compared two by two."""
    history = History().add("i", "ann", Ranks((2, 1, 1)), (2, 0, 1))
    exported = export("judgements", history.all, items(3))
    assert read_back(tmp_path, exported).records == exported.records
    seen = {(j.model_a, j.model_b): j.strength for j in exported.records}
    assert seen == {("model-0", "model-1"): 1, ("model-2", "model-0"): -1, ("model-2", "model-1"): 0}
    assert len({j.id for j in exported.records}) == 3
    standings = compare([j for j in exported.records if isinstance(j, Judgement)], draws=20)
    assert standings.models[-1].model == "model-0"


def test_flagged_items_can_be_left_out():
    exported = export("preferences", pairwise().all, items(2, gold=Choice(1)), Rule(without_flagged=True))
    assert [r.id for r in exported.records] == ["i"]
    assert exported.dropped["answers to flagged items"] == 1
    kept = export("preferences", pairwise().all, items(2, gold=Choice(1)))
    assert kept.rows[0]["provenance"]["flags"] == ["harmful"]


def test_reviewers_verdicts_overrule_in_preferences_only():
    history = pairwise().add("i", "boss", Choice(2), adjudicated=True)
    known = items(2, gold=Choice(1))
    settled = export("preferences", history.all, known)
    assert (settled.records[1].chosen, settled.records[1].agreement) == ("reply 1", 1.0)
    assert settled.rows[1]["provenance"]["reviewers"] == ["boss"]
    judged = export("judgements", history.all, known)
    assert len(judged.records) == 4 and all(j.annotator != "boss" for j in judged.records)


def test_rankings_and_their_pairs(tmp_path):
    history = (
        History().add("i", "ann", Ranks((2, 1, 1)), (2, 1, 0)).add("i", "bob", Ranks((3, 1, 2)), (0, 1, 2))
    )
    exported = export("rankings", history.all, items(3))
    assert exported.records[0].ranks == (3, 1, 2)
    assert read_back(tmp_path, exported).records == exported.records
    pairs = export("preferences", history.all, items(3))
    # Half a vote each way is no more than the tie: 1 against 2 has no winner.
    assert [(p.id, p.margin) for p in pairs.records] == [("i/1>0", None), ("i/2>0", None)]
    assert read_back(tmp_path, pairs).records == pairs.records
    few = export("rankings", history.all, items(3), Rule(min_votes=3))
    assert few.records == () and few.dropped == {"rankings with fewer than 3 votes": 1}


def test_ratings_are_means(tmp_path):
    history = (
        History()
        .add("i", "ann", Scores(({"helpfulness": 4, "accuracy": 8}, {"helpfulness": 1, "accuracy": 1})))
        .add("i", "bob", Scores(({"helpfulness": 6, "accuracy": 8}, {"helpfulness": 2, "accuracy": 1})))
    )
    exported = export("ratings", history.all, items(2))
    assert exported.records[0].axes == {"helpfulness": 5.0, "accuracy": 8.0}
    assert exported.records[0].reward == 6.5
    assert read_back(tmp_path, exported).records == exported.records


def test_ratings_too_far_apart_are_left_out():
    history = (
        History()
        .add("i", "ann", Scores(({"helpfulness": 1, "accuracy": 8}, {"helpfulness": 5, "accuracy": 5})))
        .add("i", "bob", Scores(({"helpfulness": 10, "accuracy": 8}, {"helpfulness": 5, "accuracy": 8})))
    )
    kept = export("ratings", history.all, items(2), Rule(min_agreement=2 / 3))
    assert [(r.id, r.axes["accuracy"]) for r in kept.records] == [("i/1", 6.5)], "3 of 9 points apart: 2/3"
    assert kept.dropped == {"responses with an agreement below 0.666667": 1}, "the worst axis counts"
    assert len(export("ratings", history.all, items(2)).records) == 2


def test_thumbs_are_kto_labels(tmp_path):
    history = (
        History()
        .add("i", "ann", Thumbs((True, False)))
        .add("i", "bob", Thumbs((True, True)))
        .add("chat", "ann", Thumbs((False, False)))
    )
    exported = export("kto", history.all, items(2))
    assert [(r.id, r.reward) for r in exported.records] == [("i/0", 1.0), ("chat/0", 0.0), ("chat/1", 0.0)]
    assert exported.dropped == {"responses with as many thumbs up as down": 1}
    loaded = read_back(tmp_path, exported)
    assert loaded.kind == "rating" and loaded.records == exported.records


def test_written_responses_are_demonstrations(tmp_path):
    history = History().add("i", "ann", Written("Hello!")).add("chat", "bob", Written("These, then.", base=1))
    exported = export("demonstrations", history.all, items(2))
    loaded = read_back(tmp_path, exported)
    assert loaded.kind == "demonstration" and loaded.records == exported.records
    said = exported.rows[1]["provenance"]["edited_from"]
    assert said == {"response": 1, "model": "model-1", "from": SAMPLED}


def test_the_edit_of_the_best_response_is_a_demonstration_and_the_comparison_stays_one(tmp_path):
    history = (
        History()
        .add("i", "ann", Choice(2, edit=Written("reply 1, and why", 1)))
        .add("i", "bob", Choice(1))
        .add("i", "cyd", Choice(0, "both_bad", Written("neither", 0)), adjudicated=True)
        .add("chat", "ann", Choice(-1, edit=Written("again", 0)), round=1)
    )
    exported = export("demonstrations", history.all, items(2))
    assert [(r.id, r.response) for r in exported.records] == [
        ("i/ann", "reply 1, and why"),
        ("i/cyd/decided", "neither"),
    ]
    assert exported.rows[0]["provenance"]["edited_from"] == {
        "response": 1,
        "model": "model-1",
        "from": SAMPLED,
    }
    assert exported.rows[0]["provenance"]["annotator"] == "ann"
    assert exported.dropped == {"answers that wrote nothing": 1, "repeated answers": 1}
    loaded = read_back(tmp_path, exported)
    assert loaded.kind == "demonstration" and loaded.records == exported.records
    plain = [replace(a, answer=replace(a.answer, edit=None)) for a in history.all]
    for what in ("preferences", "judgements"):
        assert export(what, history.all, items(2)).rows == export(what, plain, items(2)).rows
    ranked = export("demonstrations", History().add("i", "a", Ranks((2, 1), Written("x", 1))).all, items(2))
    assert [r.response for r in ranked.records] == ["x"]


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        (Choice(1, edit=Written("x", 1)), True),
        (Choice(1, edit=Written("x", 0)), False),
        (Choice(0, edit=Written("x", 0)), True),
        (Choice(0, "both_bad", Written("x", 1)), True),
        (Choice(0, "cannot_judge", Written("x", 1)), False),
        (Choice(1, edit=Written("x")), False),
        (Choice(1, edit=Written(" ", 1)), False),
        (Choice(1, edit=Written("x", 2)), False),
    ],
)
def test_only_the_best_response_can_be_edited(answer, fits):
    said = answer_to_json(answer)
    assert answer_from_json(json.loads(json.dumps(said))) == answer, "it comes back from the database"
    assert "edit" not in answer_to_json(replace(answer, edit=None)), "old exports keep their bytes"
    if fits:
        check_answer(answer, "pairwise", 2)
        return
    with pytest.raises(DataError, match="edited from response|is empty"):
        check_answer(answer, "pairwise", 2)


def test_an_edit_that_is_no_written_text_is_refused():
    for edit in ("text", {"text": 1}, {"text": "x", "base": 0, "type": "skip"}, {"base": 0}):
        with pytest.raises(DataError):
            answer_from_json({"type": "choice", "strength": 1, "edit": edit})


def test_raw_annotations_hold_everything():
    exported = export("annotations", pairwise().all, items(2, gold=Choice(1)))
    assert len(exported.rows) == 8 and exported.dropped == {} and exported.records == ()
    assert [answer_from_json(row["answer"]) for row in exported.rows] == [a.answer for a in pairwise().all]
    assert [row["gold"] for row in exported.rows].count(True) == 1
    assert exported.rows[0]["order"] == [1, 0] and exported.rows[5]["round"] == 1


def test_wrong_requests_are_refused():
    with pytest.raises(DataError, match="no export 'votes'"):
        export("votes", [], {})
    with pytest.raises(DataError, match="'i' is annotated but not there"):
        export("preferences", pairwise().all, {"chat": items(2)["chat"], "known": items(2)["known"]})
    assert export("preferences", [], {}).rows == ()


def test_identical_responses_teach_nothing():
    same = {"i": Item("i", "p", (ItemResponse("x", "a"), ItemResponse("x", "b")))}
    exported = export("preferences", History().add("i", "ann", Choice(1)).all, same)
    assert exported.records == () and exported.dropped == {"pairs of identical responses": 1}
