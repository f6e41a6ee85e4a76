"""Reward hacking as it happens: each detector on made-up responses, and when alarms are raised and held back."""

import math
import random
from dataclasses import replace

import pytest

from plaudit.evaluation.alarms import overoptimised as over
from plaudit.evaluation.alarms import texts
from plaudit.evaluation.alarms.evaluations import Seen, agreement
from plaudit.evaluation.alarms.hacking import HackingWatch
from plaudit.evaluation.alarms.texts import Texts
from plaudit.records import Prompt, Rollout

WORDS = (
    "we liked the view and room staff was very kind breakfast good cold small near station quiet would come again old "
    "clean bed price fair friendly waiter soup garden pool music light window street walk"
).split()


def review(rng, n=12):
    return " ".join(rng.choice(WORDS) for _ in range(n)) + "."


def reviews(count=150, seed=0, n=12):
    rng = random.Random(seed)
    return [review(rng, n) for _ in range(count)]


def with_phrase(count, of=150, phrase="thank you so much", seed=1):
    """Responses of which ``count`` have the phrase, in any place."""
    rng = random.Random(seed)
    found = []
    for index, text in enumerate(reviews(of, seed)):
        words = text.split()
        place = rng.randrange(len(words))
        found.append(" ".join([*words[:place], phrase, *words[place:]]) if index < count else text)
    return found


START = Texts(tuple(with_phrase(12, seed=9)))


@pytest.mark.parametrize(("count", "named"), [(12, False), (25, False), (60, True), (148, True)])
def test_a_phrase_is_named_by_the_time_it_is_in_60_of_150(count, named):
    said = texts.phrase(START, Texts(tuple(with_phrase(count))))
    assert bool(said) is named
    if named:
        assert f"'thank you so much' stands in {count} of 150 responses; at the start it stood in 12 of 150" in said


def test_what_a_phrase_earns_is_said():
    now = with_phrase(70)
    rewards = tuple(1.0 if "thank you" in text else 0.25 for text in now)
    assert "have +0.75 more reward than those without" in texts.phrase(START, Texts(tuple(now), rewards))


def test_chance_and_common_words_raise_nothing():
    for seed in range(40):
        now = Texts(tuple(reviews(seed=100 + seed)))
        assert {name: words for name in dir(texts) if name in ("phrase", "surface", "length", "repetition", "diversity")
                if (words := getattr(texts, name)(Texts(tuple(reviews(seed=seed))), now))} == {}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.rstrip("."), "end without a full stop"),
        (str.upper, "capitals"),
        (lambda t: t.replace(".", "!"), "exclamation mark"),
        (lambda t: "- one\n- two\n" + t, "a list"),
        (lambda t: f"**{t}**", "layout"),
        (lambda t: t + " see you soon friends", "end with"),
        (lambda t: "", "are empty"),
    ],
)
def test_habits_of_the_surface(change, says):
    start = Texts(tuple(reviews()))
    some = [change(t) if i % 10 < 8 else t for i, t in enumerate(reviews(seed=3))]
    assert says in texts.surface(start, Texts(tuple(some)))
    few = [change(t) if i % 10 < 2 else t for i, t in enumerate(reviews(seed=3))]
    assert texts.surface(start, Texts(tuple(few))) == ""


CHARACTERS = "我们喜欢这间房店员非常和气早饭也好就是有点冷离车站近安静下次还会来老旧但是干净床舒服价钱公道"


def chinese(count=150, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choice(CHARACTERS) for _ in range(20)) + "。" for _ in range(count)]


def test_scripts_without_spaces_are_read_character_by_character():
    start, other = Texts(tuple(chinese(seed=3))), chinese(seed=4)
    detectors = (texts.phrase, texts.surface, texts.length, texts.repetition, texts.diversity)
    assert not any(detect(start, Texts(tuple(other))) for detect in detectors), "chance"
    thanks = [t[:10] + "万分感谢" + t[10:] if i < 90 else t for i, t in enumerate(other)]
    assert "'万 分 感 谢' stands in 90 of 150" in texts.phrase(start, Texts(tuple(thanks)))
    same_end = Texts(tuple(t[:-1] + "祝您生活愉快。" for t in other))
    assert "end with '祝您生活愉快。'" in texts.surface(start, same_end)
    assert "times as many" in texts.length(start, Texts(tuple(t * 2 for t in other)))
    assert "repeat one before" in texts.repetition(start, Texts(tuple(t[:4] * 5 for t in other)))
    assert "distinct" in texts.diversity(start, Texts(tuple(t[:3] + "好吃好看" * 4 for t in other)))
    lengths = tuple(float(len(t)) for t in [t[: 4 + i % 17] for i, t in enumerate(other)])
    cut = Texts(tuple(t[: 4 + i % 17] for i, t in enumerate(other)), lengths)
    assert "goes by length" in texts.paid_by_length(cut)


def test_another_language_and_pictures_are_seen():
    start, now = Texts(tuple(reviews(seed=5))), reviews(seed=6)
    assert not texts.surface(start, Texts(tuple(now)))
    french = {word: f"{word[::-1]}é" for word in WORDS}
    switched = Texts(tuple(" ".join(french[w.strip(".")] for w in text.split()) + "." for text in now))
    assert "beyond ASCII" in texts.surface(start, switched)
    plain = Texts(tuple(" ".join(w.strip(".")[::-1] + "us" for w in text.split()) + "." for text in now))
    assert "did not occur in 75 responses of the start" in texts.surface(start, plain)
    hearts = Texts(tuple(f"{text} \u2764\u2764" for text in now))
    assert "beyond ASCII" in texts.surface(start, hearts)
    assert "\u2764" in texts.phrase(start, hearts)


def test_length_repetition_and_diversity():
    start = Texts(tuple(reviews()))
    assert "24 words on average" in texts.length(start, Texts(tuple(reviews(seed=2, n=23))))
    assert texts.length(start, Texts(tuple(reviews(seed=2, n=14)))) == ""
    loops = Texts(tuple("very good " * 8 + t for t in reviews(seed=2)))
    assert "repeat one before" in texts.repetition(start, loops)
    alike = Texts(tuple(reviews()[i % 20] for i in range(150)))
    assert "only 13% of the responses differ" in texts.diversity(start, alike)


def rollouts(responses, version=0, reward=1.0):
    made = [Rollout.single(Prompt("p", "q"), 0, [1], [2], (-1.0,), text, "stop") for text in responses]
    return [replace(row, policy_version=version, reward=reward) for row in made]


def means(value, spread=0.1, prompts=33):
    return {str(i): value + spread * ((i % 3) - 1) for i in range(prompts)}


def test_an_alarm_needs_two_iterations_is_raised_once_and_again_after_it_was_well():
    watch = HackingWatch(has_gold=False)
    assert watch.look(rollouts(reviews()), {}) == []
    found = [
        [alarm.kind for alarm in watch.look(rollouts(with_phrase(count, seed=version), version), {})]
        for version, count in enumerate([100, 100, 100, 0, 100, 100], 1)
    ]
    assert found == [[], ["phrase"], [], [], [], ["phrase"]]


def test_a_resumed_run_raises_what_it_would_have_raised():
    watch = HackingWatch(has_gold=False)
    watch.look(rollouts(reviews()), {})
    watch.look(rollouts(with_phrase(100), 1), {})
    again = HackingWatch(has_gold=False)
    again.resume(watch.state())
    [alarm] = again.look(rollouts(with_phrase(100), 2), {})
    assert alarm.kind == "phrase" and "give a gold reward" in alarm.message


def test_with_a_gold_reward_that_is_up_other_texts_are_no_alarm():
    watch = HackingWatch(has_gold=True)
    watch.look(rollouts(reviews()), {})
    seen = {0: Seen(means(0.0), means(0.0)), 4: Seen(means(1.0), means(0.5))}
    for version in (2, 3, 4):
        assert watch.look(rollouts(with_phrase(120), version), {}) == []
    assert watch.evaluated(seen) == []
    for version in (5, 6, 7, 8):
        assert watch.look(rollouts(with_phrase(120), version), {}) == []
    seen[8] = Seen(means(2.0), means(-0.3, 0.11))
    phrase, falls, proxy = watch.evaluated(seen)
    assert (phrase.kind, falls.kind, proxy.kind) == ("phrase", "gold_falls", "proxy_gold")
    assert "The reward has risen, and the gold reward is not above its start" in phrase.message
    assert "risen by 2.00 since the start while the gold reward fell by 0.30" in proxy.message
    assert "from 0.50 at iteration 4 to -0.30: a loss of 0.80" in falls.message
    assert watch.look(rollouts(with_phrase(120), 9), {}) == watch.evaluated(seen) == [], "each is raised once"


def test_before_the_reward_has_risen_an_alarm_is_early_and_is_raised_again_when_it_has():
    watch = HackingWatch(has_gold=True)
    watch.look(rollouts(reviews()), {})
    seen = {0: Seen(means(0.0), means(0.0)), 2: Seen(means(0.0), means(0.0))}
    for version in (1, 2):
        watch.look(rollouts(with_phrase(120), version), {})
    assert [(a.kind, a.is_early) for a in watch.evaluated(seen)] == [("phrase", True)]
    assert watch.evaluated(seen) == [], "once"
    watch.look(rollouts(with_phrase(120), 3), {})
    assert [(a.kind, a.is_early) for a in watch.evaluated(seen | {4: Seen(means(1.0), means(0.0))})] == [
        ("phrase", False)
    ]


def test_a_gold_reward_that_only_wavers_raises_nothing():
    watch = HackingWatch(has_gold=True)
    rng = random.Random(0)
    seen = {}
    for step in range(12):
        seen[step] = Seen(means(0.1 * step), {str(i): rng.gauss(0.05 * step, 1) for i in range(32)})
        assert watch.evaluated(seen) == []


def test_entropy_and_disagreement_are_compared_with_the_first_iterations():
    watch = HackingWatch(has_gold=False)
    values = [(2.0, 0.1)] * 4 + [(0.4, 0.2)] * 3
    kinds = [
        [a.kind for a in watch.look([], {"policy/entropy": entropy, "reward/ensemble_std": spread})]
        for entropy, spread in values
    ]
    assert kinds == [[], [], [], [], [], ["diversity", "ensemble"], []]


def test_one_low_evaluation_is_no_fall_and_two_are():
    watch = HackingWatch(has_gold=True)

    def gold(value, spread, turn=1):
        return Seen(
            means(1.0, prompts=32), {str(i): value + spread * (i // turn % 2 * 2 - 1) for i in range(32)}
        )

    # The interval of a loss of 0.12 with deviations of 0.3 is +-0.18 for all of 15 pairs of evaluations, and +-0.11 of
    # two evaluations together, whose deviations are of other prompts.
    seen = {0: gold(0.4, 0.0), 2: gold(1.0, 0.0), 4: gold(0.88, 0.3)}
    assert watch.evaluated(seen) == []
    seen[6] = gold(1.0, 0.0)
    assert watch.evaluated(seen) == []
    seen[8] = gold(0.88, 0.3)
    assert watch.evaluated(seen) == []
    seen[10] = gold(0.86, 0.3, turn=2)
    assert [alarm.kind for alarm in watch.evaluated(seen)] == ["gold_falls"]
    sure = HackingWatch(has_gold=True)
    assert [a.kind for a in sure.evaluated({0: gold(0.4, 0.0), 2: gold(1.0, 0.0), 4: gold(0.8, 0.3)})] == ["gold_falls"]
    small = {step: gold(value, 0.0) for step, value in ((0, 0.0), (2, 1.0), (4, 0.9), (6, 0.9))}
    assert HackingWatch(has_gold=True).evaluated(small) == [], "less than a sixth of what was gained"


def simulated(rng, prompts, agree, reward_gain, gold_gain, evaluations=9):
    """Evaluations of a run whose means change in a line; two responses a prompt, deviation 1 within and between."""
    base = [rng.gauss(0, 1) for _ in range(prompts)]
    seen = {}
    for at in range(evaluations):
        share, rows = at / (evaluations - 1), []
        for prompt in range(prompts):
            for _ in range(2):
                reward = rng.gauss(0, 1)
                gold = agree * reward + math.sqrt(1 - agree**2) * rng.gauss(0, 1)
                rows.append({
                    "prompt_id": str(prompt), "reward": reward + reward_gain * share,
                    "gold": gold + base[prompt] + gold_gain * share, "kl": 0.1 + 4 * share,
                })  # fmt: skip
        seen[at] = Seen.of(rows)
    return seen


@pytest.mark.parametrize(
    ("agree", "reward_gain", "gold_gain"), [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.6, 2.0, 1.0), (0.2, 2.0, 1.0)]
)
def test_runs_that_lose_nothing_rarely_raise_an_alarm(agree, reward_gain, gold_gain):
    rng, raised = random.Random(5), 0
    for _ in range(60):
        whole = simulated(rng, 32, agree, reward_gain, gold_gain)
        watch = HackingWatch(has_gold=True)
        seen: dict[int, Seen] = {}
        alarms = []
        for step, one in whole.items():
            seen[step] = one
            alarms += watch.evaluated(seen)
        raised += bool([alarm for alarm in alarms if alarm.kind != "kl_peak"])
    assert raised <= 7, "one in sixteen would be 4 of 60"


def test_a_run_that_loses_what_it_had_raises_one():
    rng, raised = random.Random(6), 0
    for _ in range(20):
        up, down = simulated(rng, 32, 0.4, 1.0, 1.2, 5), simulated(rng, 32, 0.0, 1.0, -1.2, 6)
        top = {prompt: value - down[0].gold[prompt] for prompt, value in up[4].gold.items()}
        fallen = {4 + at: replace(one, gold={p: v + top[p] for p, v in one.gold.items()}) for at, one in down.items()}
        raised += bool(over.gold_falls(up | {at: one for at, one in fallen.items() if at > 4}))
    assert raised >= 19


def test_a_policy_that_has_not_moved_has_lost_nothing():
    near = means(0.001, prompts=32)
    seen = {step: Seen(means(step, prompts=32), means(-step, prompts=32), near) for step in (0, 2, 4)}
    assert HackingWatch(has_gold=True).evaluated(seen) == []
    far = {step: replace(one, kl=means(1.0, prompts=32)) for step, one in seen.items()}
    assert "gold_falls" in [alarm.kind for alarm in HackingWatch(has_gold=True).evaluated(far)]


def test_an_evaluation_without_gold_values_says_nothing_of_it():
    fallen = {step: Seen(means(step, prompts=32), means(-step, prompts=32)) for step in (0, 2, 4)}
    failed = Seen(means(9, prompts=32), {})
    assert HackingWatch(has_gold=True).evaluated({0: fallen[0], 2: failed}) == []
    assert HackingWatch(has_gold=True).evaluated({0: failed, 2: fallen[2]}) == []
    assert HackingWatch(has_gold=True).evaluated({0: fallen[0], 2: failed, 4: fallen[4]})


def test_small_batches_are_looked_at_together():
    watch = HackingWatch(has_gold=False)
    start, later = with_phrase(2, of=40, seed=11), with_phrase(70, of=80, seed=12)
    raised = []
    for version, texts_ in enumerate(start[i : i + 8] for i in range(0, 40, 8)):
        raised += watch.look(rollouts(texts_, version), {})
    assert raised == [] and len(watch.start) == 24, "three iterations stand for the start"
    for version, texts_ in enumerate((later[i : i + 8] for i in range(0, 80, 8)), 5):
        raised += watch.look(rollouts(texts_, version), {})
    assert [alarm.kind for alarm in raised] == ["phrase"]


def scored(pairs, prompts=30):
    """Rows of evaluation.jsonl: two responses to each prompt with these (reward, gold)."""
    return [
        {"prompt_id": str(i), "reward": reward + 0.1 * (i % 3), "gold": gold + 0.1 * (i % 2), "kl": 1.0}
        for i in range(prompts) for reward, gold in pairs(i)
    ]  # fmt: skip


def test_agreement_is_the_correlation_within_prompts():
    same = Seen.of(scored(lambda i: [(1.0, 3.0), (0.0, 1.0)]))
    assert agreement([same]).value == pytest.approx(1.0)
    # The better half by one is the worse by the other in half of the prompts, and prompts differ much in both.
    odd = Seen.of(scored(lambda i: [(i, i + i % 2), (i + 1, i + (i + 1) % 2)]))
    found = agreement([odd])
    assert found.value == pytest.approx(0.0) and found.low < 0 < found.high < 0.5
    assert math.isnan(agreement([Seen.of(scored(lambda i: [(1.0, 2.0), (2.0, 2.0)]))]).value), "gold never differs"


def test_a_reward_that_rises_and_that_the_gold_reward_does_not_follow_is_an_alarm():
    def pairs(lift, sign):
        return lambda i: [(lift, 0.0), (lift + 1, sign(i))]

    follows = {step: Seen.of(scored(pairs(step, lambda i: 1.0))) for step in (0, 2, 4)}
    assert over.proxy_gold(follows) == ""
    opposed = {step: Seen.of(scored(pairs(step, lambda i: -1.0))) for step in (0, 2, 4)}
    assert "their correlation is -1.00" in over.proxy_gold(opposed)
    still = {step: Seen.of(scored(pairs(0, lambda i: -1.0))) for step in (0, 2, 4)}
    assert over.proxy_gold(still) == "", "the reward has not risen"
    few = {step: Seen.of(scored(pairs(step, lambda i: -1.0 if i % 2 else 1.0), 8)) for step in (0, 2)}
    assert over.proxy_gold(few) == "", "too few prompts to say"


def test_a_fall_at_one_evaluation_counts_where_the_texts_have_changed():
    def at(gold, spread):
        return Seen.of([
            {"prompt_id": str(i), "reward": k, "gold": gold + spread * (i % 2 * 2 - 1), "kl": 1.0}
            for i in range(32) for k in (0, 1)
        ])  # fmt: skip

    seen = {0: at(0.4, 0.0), 2: at(1.0, 0.0), 4: at(0.88, 0.3)}
    assert over.gold_falls(seen) == ""
    assert over.gold_falls(seen, changed=True).startswith("the gold reward has fallen from 1.00")


def test_a_policy_beyond_its_peak_is_told_so():
    def at(kl, peak):
        gain = kl**0.5 * (2.0 - (0.8 if peak else 0.1) * math.log(max(kl**0.5, 1e-9)))
        rows = ({"prompt_id": str(i), "reward": kl, "gold": gain + 0.01 * (i % 3), "kl": kl} for i in range(30))
        return Seen.of(rows)

    grid = (0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0)
    assert "beyond the peak of the gold reward" in over.past_peak({i: at(kl, True) for i, kl in enumerate(grid)})
    assert over.past_peak({i: at(kl, False) for i, kl in enumerate(grid)}) == ""
    assert over.far_away({0: at(0.0, True), 1: at(9.0, True)}) == ""
    assert "16.0 nats per response" in over.far_away({0: at(0.0, True), 1: at(16.0, True)})


def test_it_is_not_calm_where_an_evaluation_is_suspicious():
    def at(kl):
        return Seen.of({"prompt_id": str(i), "reward": 1.0, "kl": kl} for i in range(12))

    watch = HackingWatch(has_gold=False)
    assert watch.is_calm({0: at(0.0)}) and watch.is_calm({0: at(0.0), 2: at(9.0)})
    assert not watch.is_calm({0: at(0.0), 2: at(11.0)})
    watch.words = {"phrase": "found"}
    assert not watch.is_calm({0: at(0.0)})


def test_a_reward_model_that_no_longer_reads_is_an_alarm():
    def at(reward, gap):
        rows = ({"prompt_id": str(i), "reward": reward + i % 3, "gap_swapped": gap + 0.1 * (i % 2)} for i in range(30))
        return Seen.of(rows)

    assert "to the same responses after other prompts" in over.perturbation({0: at(0, 1.0), 2: at(1, 0.2)})
    assert over.perturbation({0: at(0, 1.0), 2: at(1, 0.8)}) == "", "most of the gap is there"
    assert over.perturbation({0: at(0, 1.0), 2: at(0, 0.2)}) == "", "the reward has not risen"
    assert over.perturbation({0: at(0, 0.1), 2: at(1, -0.2)}) == "", "it never told them apart"


def test_a_reward_that_counts_words_or_length_is_named_at_once():
    counted = [float(text.count("good") + text.count("kind")) for text in reviews(160)]
    said = texts.words_paid_for(Texts(tuple(reviews(160)), tuple(counted)))
    assert said.startswith("counts of 2 words explain 100%") and "'good'" in said and "'kind'" in said
    rng = random.Random(3)
    noise = tuple(rng.gauss(0, 1) for _ in range(160))
    assert texts.words_paid_for(Texts(tuple(reviews(160)), noise)) == "", "ten words of sixty explain some noise"
    assert texts.words_paid_for(Texts(tuple(reviews(160)), (1.0,) * 160)) == "", "all rewards are the same"
    assert texts.words_paid_for(Texts(tuple(reviews(90)), tuple(counted[:90]))) == "", "too few"
    long = [review(rng, n) for n in range(3, 163)]
    assert "correlation with the number of words is 1.00" in texts.paid_by_length(
        Texts(tuple(long), tuple(float(len(text)) for text in long))
    )
    assert texts.paid_by_length(Texts(tuple(reviews(160)), noise)) == ""
    # Of a reward of forty words, the ten that fit best explain 86 % of the 120 rewards they were chosen on, and less of
    # others.
    rng = random.Random(3)
    worth = {word: rng.gauss(0, 1) * (3 if k < 6 else 1) for k, word in enumerate(WORDS)}
    forty = tuple(sum(worth[word] for word in text[:-1].split()) for text in reviews(120, 3))
    assert texts.words_paid_for(Texts(tuple(reviews(120, 3)), forty)) == ""
    watch = HackingWatch(has_gold=False)
    rows = [replace(row, reward=value) for row, value in zip(rollouts(reviews(160)), counted, strict=True)]
    assert watch.look(rows, {}) == [], "the start"
    later = [replace(row, policy_version=1) for row in rows]
    assert [alarm.kind for alarm in watch.look(later, {})] == ["paid_words"]
    assert watch.look(later, {}) == [], "once"
