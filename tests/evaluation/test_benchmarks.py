"""The scoring rules of published benchmarks, worked by hand, and the figures, warnings and page of a scored file."""

import json
import math
from statistics import fmean

import pytest

from plaudit.errors import DataError
from plaudit.evaluation import kinds
from plaudit.evaluation.benchmarks.card import card, figures
from plaudit.evaluation.benchmarks.rules import RULES, TIES_TERMS
from plaudit.evaluation.benchmarks.table import as_text
from plaudit.evaluation.report import write_report
from plaudit.statistics.ranking import expected_best_of


def line(benchmark, number, subset, scores, right, **more):
    """A scored prompt; of its responses the first ``right`` are right."""
    correct = [i < right for i in range(len(scores))] if isinstance(right, int) else right
    row = {"benchmark": benchmark, "id": f"{number}", "prompt_id": f"p{number}", "subset": subset, "scores": scores}
    return row | {"lengths": [1] * len(scores), "correct": correct, "groups": [], "pairs": []} | more


def scored(tmp_path, lines):
    path = tmp_path / "benchmark.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    values = figures(tmp_path)
    return {row["name"]: row for row in values["benchmark_table"]}, values


def pairs(subset, outcomes, first=0):
    """RewardBench rows: 1 where the chosen response scores higher, 0 where lower, None at a tie."""
    gaps = [0.0 if o is None else 2.0 * o - 1 for o in outcomes]
    return [line("rewardbench", f"{subset}{first + i}", subset, [gap, 0.0], 1) for i, gap in enumerate(gaps)]


def test_rewardbench_by_hand(tmp_path):
    rows = [
        *pairs("alpacaeval-easy", [1, 1, 0, 1]),  # 3/4, weight 100
        *pairs("mt-bench-easy", [0, 1]),  # 1/2, weight 28
        *pairs("llmbar-natural", [1]),  # 1, weight 100
        *pairs("mt-bench-hard", [None]),  # a tie is wrong, weight 37
        *pairs("donotanswer", [1, 0]),  # 1/2
        *pairs("math-prm", [1, 0, 0, 0]),  # 1/4, weight 984
        *pairs("hep-cpp", [1]),  # 1, weight 164
        *pairs("hep-go", [0]),  # 0, weight 164
    ]
    table, values = scored(tmp_path, rows)
    sections = {
        "Chat": (100 * 3 / 4 + 28 / 2) / 128,
        "Chat Hard": 100 / 137,
        "Safety": 1 / 2,
        "Reasoning": (984 / 4 + 164) / 1312,
    }
    assert {name: table[name]["score"] for name in sections} == pytest.approx(sections)
    assert values["benchmark_score"] == pytest.approx(fmean(sections.values()))
    assert table["Chat"]["n"] == 6 and table["Overall"]["n"] == 16 and values["benchmark_missing"] == []


def test_mathematics_and_code_weigh_half_and_half_in_a_whole_section(tmp_path):
    languages = ("cpp", "go", "java", "js", "python", "rust")
    rows = pairs("math-prm", [1] * 5) + [row for name in languages for row in pairs(f"hep-{name}", [0, 0])]
    assert scored(tmp_path, rows)[0]["Reasoning"]["score"] == pytest.approx(0.5)


def test_prior_sets_are_a_section_of_half_the_weight(tmp_path):
    rows = [
        *pairs("alpacaeval-easy", [1]), *pairs("llmbar-natural", [1]), *pairs("donotanswer", [1]),
        *pairs("math-prm", [1]), *pairs("anthropic_hhh", [0, 0]), *pairs("shp", [1, 0]),
        *pairs("anthropic_harmless", [1, 1]),
    ]  # fmt: skip
    table, values = scored(tmp_path, rows)
    assert table["Prior Sets"]["score"] == pytest.approx(0.25), "anthropic_harmless does not count"
    assert values["benchmark_score"] == pytest.approx((4 + 0.5 * 0.25) / 4.5)
    assert table["anthropic_harmless"]["counts"] is False and table["shp"]["counts"] is True


def test_subsets_that_rewardbench_does_not_have_are_scored_by_themselves(tmp_path):
    table, values = scored(tmp_path, pairs("alpacaeval-easy", [1, 0]) + pairs("ours", [1, 1, 0]))
    assert table["ours"] | {"score": 0} == table["ours"] | {"score": 0, "level": "other", "counts": False, "n": 3}
    assert table["ours"]["score"] == pytest.approx(2 / 3) and values["benchmark_score"] == pytest.approx(0.5)
    assert values["benchmark_unknown"] == ["ours"]
    assert values["benchmark_missing"] == ["Chat Hard", "Safety", "Reasoning"]


def test_a_file_of_unknown_subsets_only_has_no_score(tmp_path):
    table, values = scored(tmp_path, pairs("ours", [1, 1]))
    assert values["benchmark_score"] is None and table["ours"]["score"] == 1.0
    run = kinds.load_run(tmp_path)
    assert kinds.verdict(run).headline == "It has no score on RewardBench."
    assert "ours" in write_report(tmp_path).read_text()


def best_of(number, subset, scores):
    return line("rewardbench-2", number, subset, scores, 1)


def ties(kind, number, right, wrong):
    row = line("rewardbench-2", f"{kind}{number}", "Ties", [*right, *wrong], len(right))
    return row | {"id": f"{kind}:{number}"}


def test_rewardbench_2_by_hand(tmp_path):
    rows = [
        best_of(1, "Factuality", [3, 2, 1, 0]),  # 1
        best_of(2, "Factuality", [2, 2, 1, 0]),  # ties with one: 1/2
        best_of(3, "Factuality", [2, 2, 2, 2]),  # ties with all: 1/4
        best_of(4, "Factuality", [1, 2, 2, 0]),  # 0
        best_of(5, "Math", [1, 0, 0, 0]),
        best_of(6, "ours", [0, 1, 0, 0]),
    ]
    table, values = scored(tmp_path, rows)
    assert table["Factuality"]["score"] == pytest.approx(1.75 / 4) and table["Factuality"]["chance"] == 0.25
    assert values["benchmark_score"] == pytest.approx((1.75 / 4 + 1) / 2)
    assert values["benchmark_missing"] == ["Precise IF", "Safety", "Focus", "Ties"] and table["ours"]["score"] == 0


def test_ties_by_hand(tmp_path):
    """Three pairs of questions; gap and spread of each stand beside it."""
    rows = [
        ties("ref", 0, [5.0], [2.0, 1.0]),  # gap 3
        ties("tied", 0, [4.0, 5.0], [1.0, 0.0]),  # gap 3, spread 1: nearer, also by the smaller gap, which is 3
        ties("ref", 1, [1.0], [0.5]),  # gap 0.5
        ties("tied", 1, [3.0, 5.0], [0.0, 0.5]),  # gap 2.5, spread 2: nearer, not by the smaller gap, 0.5
        ties("ref", 2, [0.0], [1.0]),  # gap -1: wrong
        ties("tied", 2, [2.0, 2.0], [2.0]),  # gap 0, no spread: wrong, not nearer
        ties("tied", 3, [1.0, 0.0], [2.0]),  # without its companion: wrong, and in no comparison of the two
    ]
    table, values = scored(tmp_path, rows)
    excess = (math.tanh(3 / 1 - 1) + math.tanh(0.5 / 2 - 1) - 1) / 3
    terms = dict(zip(TIES_TERMS, (2 / 4, 2 / 3, 2 / 3, 1 / 3, excess), strict=True))
    expected = sum(TIES_TERMS[name] * value for name, value in terms.items())
    assert table["Ties"]["score"] == pytest.approx(expected) == values["benchmark_score"]
    assert {n: table[n]["score"] for n in terms if n in table} == pytest.approx(dict(list(terms.items())[:4]))
    assert (table["Ties"]["n"], table["Ties"]["prompts"]) == (7, 4)


def test_ties_without_pairs_has_no_score(tmp_path):
    table, values = scored(tmp_path, [ties("tied", 0, [4.0, 5.0], [1.0]), best_of(1, "Math", [1, 0, 0, 0])])
    assert "Ties" not in table and "Ties" in values["benchmark_missing"] and values["benchmark_score"] == 1.0


def styles(number, domain, chosen, rejected):
    return line("rm-bench", number, domain, [*chosen, *rejected], 3)


def test_rm_bench_by_hand(tmp_path):
    rows = [
        # beats: concise none, detailed the concise one, markdown the concise and the detailed one
        styles(1, "chat", [1, 2, 3], [1.5, 2.5, 3.5]),  # easy 3/3, normal 0, hard 0
        styles(2, "chat", [9, 9, 9], [0, 0, 0]),  # all
        styles(3, "math", [0, 0, 1], [0, 1, 1]),  # ties are wrong: only markdown beats concise: easy 1/3
        styles(4, "safety-refuse", [9, 9, 9], [0, 0, 0]),
        styles(5, "safety-response", [0, 0, 0], [9, 9, 9]),
        styles(6, "safety-response", [0, 0, 0], [9, 9, 9]),
    ]
    table, values = scored(tmp_path, rows)
    assert [table[f"chat: {d}"]["score"] for d in ("easy", "normal", "hard")] == pytest.approx([1, 0.5, 0.5])
    assert [table[f"math: {d}"]["score"] for d in ("easy", "normal", "hard")] == pytest.approx([1 / 3, 0, 0])
    domains = {"chat": 2 / 3, "math": 1 / 9, "safety": 1 / 3}  # safety joins its prompts: 1 of 3
    assert {name: table[name]["score"] for name in domains} == pytest.approx(domains)
    assert values["benchmark_score"] == pytest.approx(fmean(domains.values()))
    assert table["Easy"]["score"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert (table["safety-refuse"]["score"], table["safety-response"]["score"]) == (1.0, 0.0)
    assert values["benchmark_missing"] == ["code"]
    assert values["benchmark_styles"][2][0] == pytest.approx(4 / 6) and values["benchmark_styles"][0][0] == 2 / 6


def vote(number, scores, better, *groups):
    return line("ppe-human", number, "", scores, [better == 0, better == 1], groups=list(groups))


def test_ppe_human_preference_by_hand(tmp_path):
    rows = [
        vote(1, [2, 1], 0, "hard prompts", "English"),
        vote(2, [2, 1], 1, "hard prompts", "code", "English"),
        vote(3, [1, 1], 1, "other languages"),  # equal scores are wrong
        vote(4, [1, 2], 1, "English"),
        line("ppe-human", 5, "", [1, 1], [False, False], groups=["English"], left_out="people saw no difference"),
    ]
    table, values = scored(tmp_path, rows)
    assert values["benchmark_score"] == 0.5 and table["hard prompts"]["score"] == 0.5
    assert table["English"]["score"] == pytest.approx(2 / 3) and table["English"]["left_out"] == 1
    assert (table["code"]["n"], table["code"]["score"], table["other languages"]["score"]) == (1, 0.0, 0.0)
    assert values["benchmark_left_out"] == {"people saw no difference": 1}


def sampled(number, name, scores, correct, pairs, model="x"):
    return line("ppe-correctness", number, name, scores, correct, pairs=pairs, groups=[model])


def test_ppe_correctness_by_hand(tmp_path):
    rows = [
        sampled(1, "MATH", [3, 1, 2, 0], [True, False, True, False], [[0, 1], [2, 3]]),  # 1, its best is right
        sampled(1, "MATH", [0, 1, 0, 2], [True, False, False, True], [[0, 1], [0, 2]], "y"),  # wrong and a tie: 1/4
        sampled(2, "GPQA", [1, 1, 0, 0], [True, False, False, False], [[0, 1]]),  # a tie: 1/2, its best shares: 1/2
        sampled(3, "GPQA", [1, 2, 3, 4], [True] * 4, []),  # nothing to compare; its best is right
    ]
    table, values = scored(tmp_path, rows)
    assert table["MATH"]["score"] == pytest.approx((1 + 1 / 4) / 2) and table["MATH: y"]["score"] == 0.25
    assert table["GPQA"]["score"] == 0.5 and table["GPQA"]["n"] == 1
    assert values["benchmark_score"] == pytest.approx((0.625 + 0.5) / 2)
    assert table["MATH: best of all"]["score"] == 1.0 and table["GPQA: best of all"]["score"] == 0.75
    assert table["MATH"]["prompts"] == 1, "responses of two models to one question are one prompt"
    assert values["benchmark_missing"] == ["MMLU-Pro", "MBPP-Plus", "IFEval"]
    curve = {row["k"]: row for row in values["benchmark_best_of_k"]}
    assert curve[1]["score"] == pytest.approx(fmean([0.5, 0.5, 0.25, 1])) == curve[1]["most"]
    # The best of two of row 1 is right in 5 of 6 choices; of row 2 in 3 (those with the last one) and half of the one
    # tie of the first and the third; of row 3 in 2 and half of one; of row 4 always.
    assert curve[2]["score"] == pytest.approx(fmean([5 / 6, 3.5 / 6, 2.5 / 6, 1]))
    assert curve[2]["most"] == pytest.approx(fmean([5 / 6, 5 / 6, 3 / 6, 1]))
    assert curve[4]["score"] == pytest.approx(fmean([1, 1, 0.5, 1]))


def test_the_expected_best_of_k_agrees_with_counting_all_choices():
    from itertools import combinations

    scores, values = [2.0, 5.0, 2.0, 1.0, 5.0, 0.0], [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    for k in range(1, 7):
        found = []
        for choice in combinations(range(6), k):
            top = [values[i] for i in choice if scores[i] == max(scores[j] for j in choice)]
            found.append(fmean(top))
        assert expected_best_of(scores, values, k) == pytest.approx(fmean(found), abs=1e-12)
    assert expected_best_of(scores, values, 6) == 0.5 and expected_best_of(scores, values, 1) == pytest.approx(4 / 6)


def test_a_model_without_scores_of_its_own_gets_no_more_than_chance(tmp_path):
    """Equal scores everywhere: never more than what meaningless ones have."""
    for name, rows in {
        "rewardbench": pairs("donotanswer", [None] * 4),
        "rewardbench-2": [best_of(i, "Math", [0, 0, 0, 0]) for i in range(4)] + [ties("ref", 0, [0], [0, 0])],
        "rm-bench": [styles(1, "chat", [0] * 3, [0] * 3)],
        "ppe-human": [vote(1, [0, 0], 0)],
        "ppe-correctness": [sampled(1, "MATH", [0, 0], [True, False], [[0, 1]])],
    }.items():
        values = scored(tmp_path, rows)[1]
        assert name in RULES and values["benchmark_score"] <= values["benchmark_chance"]


def many(count=160, right=0.9, longer=0.5):
    rows = []
    for subset in ("alpacaeval-easy", "llmbar-natural", "donotanswer", "math-prm"):
        for i in range(count):
            row = pairs(subset, [float(i % 10 < 10 * right)], first=i)[0]
            rows.append(row | {"lengths": [2, 1] if i % 20 < 20 * longer else [1, 2]})
    return rows


def test_length_alone_is_scored_by_the_same_rule(tmp_path):
    table, values = scored(tmp_path, many(longer=0.7))
    assert values["benchmark_length_rule"] == "longest"
    assert values["benchmark_length_score"] == pytest.approx(0.7)
    assert values["benchmark_over_length"] == pytest.approx(0.2, abs=0.01) and values["benchmark_over_length_ci"][0] > 0
    assert scored(tmp_path, many(longer=0.1))[1]["benchmark_length_rule"] == "shortest"
    assert table["Chat"]["length_score"] == pytest.approx(0.7, abs=0.01)


def verdict_of(tmp_path, rows):
    scored(tmp_path, rows)
    card(tmp_path)
    return kinds.verdict(kinds.load_run(tmp_path)), kinds.warnings(kinds.load_run(tmp_path))


def test_verdicts_and_warnings(tmp_path):
    good, calm = verdict_of(tmp_path, many())
    assert good.tone == "good" and good.headline == "It scores 90.0\u202f% on RewardBench." and not calm
    by_length, messages = verdict_of(tmp_path, many(longer=0.9))
    assert by_length.tone == "flat" and "length" in by_length.headline
    assert any("not clearly better than a rule on length alone" in message for message in messages)
    coin, messages = verdict_of(tmp_path, many(right=0.5))
    assert coin.tone == "bad" and any("contains chance" in message for message in messages)
    few, _ = verdict_of(tmp_path, pairs("donotanswer", [1] * 5))
    assert few.headline == "Too few prompts to say."
    assert "Chat, Chat Hard, Reasoning are not in the file" in few.evidence
    row = {key: value for key, value in pairs("hep-go", [1])[0].items() if key not in ("scores", "lengths")}
    lost = [row | {"id": f"{i}", "left_out": "longer than 64 tokens"} for i in range(3)]
    _, messages = verdict_of(tmp_path, many() + lost + pairs("ours", [1]))
    assert any("3 longer than 64 tokens" in message for message in messages)
    assert any("ours" in message and "not part of its score" in message for message in messages)


def test_left_out_rows_stand_in_the_line_of_their_subset(tmp_path):
    row = {key: value for key, value in pairs("hep-go", [1])[0].items() if key not in ("scores", "lengths")}
    lost = row | {"left_out": "longer than 64 tokens"}
    table, _ = scored(tmp_path, [*many(), lost, *pairs("hep-go", [1], first=1)])
    names = ("Overall", "Reasoning", "hep-go", "math-prm", "Chat")
    assert [table[name]["left_out"] for name in names] == [1, 1, 1, 0, 0]


def test_the_table_on_the_page_and_on_the_console(tmp_path, synthetic):
    run = synthetic["reward"](tmp_path / "reward")
    below = run / "evaluations" / "rewardbench-filtered"
    below.mkdir(parents=True)
    table, values = scored(below, many())
    card(below)
    page = write_report(below).read_text()
    assert "<h3>RewardBench</h3>" in page and "Chat Hard" in page and "90.0\u202f%" in page
    assert "<h3>RewardBench</h3>" in write_report(run).read_text(), "the page of the reward model has it too"
    assert kinds.kind_of(kinds.load_run(below)).name == "benchmark"
    text = as_text(values)
    assert text.startswith("RewardBench\n") and "    donotanswer" in text
    assert table["Overall"]["score_ci"][0] < 0.9 < table["Overall"]["score_ci"][1]


def test_broken_files(tmp_path):
    with pytest.raises(DataError, match="no scores of a benchmark"):
        figures(tmp_path)
    with pytest.raises(DataError, match="benchmark.jsonl:2"):
        scored(tmp_path, [*pairs("hep-go", [1]), line("rewardbench", 2, "hep-go", [None, 0], 1)])
    with pytest.raises(DataError, match="no benchmark is called 'other'"):
        scored(tmp_path, [line("other", 2, "hep-go", [1, 0], 1)])
    row = line("ppe-human", 1, "", [1, 0], [False, False], left_out="people saw no difference")
    assert scored(tmp_path, [row])[1]["benchmark_score"] is None


def test_every_score_is_a_mean():
    """Weights of every score add up to 1; those of Ties to 1.01."""
    cells = [f"{domain}: {x}" for domain in ("chat", "safety-refuse", "ours") for x in ("easy", "normal", "hard")]
    counts = {
        "rewardbench": {"donotanswer": 1, "shp": 2, "math-prm": 1, "hep-go": 1, "ours": 1},
        "rewardbench-2": {"Math": 1, "ours": 1},
        "rm-bench": dict.fromkeys(cells, 1),
        "ppe-human": {"all": 2, "code": 1},
        "ppe-correctness": {"MATH": 1, "MATH: best of all": 1, "own": 1},
    }
    for name, there in counts.items():
        for score in RULES[name].scores(there):
            assert sum(score.weights.values()) == pytest.approx(1), (name, score.name)
            assert set(score.weights) <= set(there)
    ties_line = next(s for s in RULES["rewardbench-2"].scores(dict.fromkeys(TIES_TERMS, 1)) if s.name == "Ties")
    assert sum(ties_line.weights.values()) == pytest.approx(1.01)
