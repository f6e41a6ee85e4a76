"""Where a reward model ranks right: by category, by how sure people were, by its own margin; and the best of K."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from plaudit.runs.files import Row
from plaudit.statistics.calibration import margin_groups
from plaudit.statistics.clustered import Clusters, Floats, mean_over, outcomes, share
from plaudit.statistics.intervals import Estimate
from plaudit.statistics.ranking import best_hit

MOST_CATEGORIES = 12
OTHERS = "all others"


def ends(estimate: Estimate) -> list[float] | None:
    """Both ends of an interval for a file; None where it has none."""
    return None if estimate.low != estimate.low else [estimate.low, estimate.high]


def by_category(rows: Sequence[Row], right: Floats, prompts: Clusters) -> list[Row]:
    """Accuracy in each category of the data, the largest first; [] where there are not two, or nearly one a row."""
    names = [str(row.get("category") or "") for row in rows]
    counted = Counter(names)
    if len(counted) < 2 or (len(counted) > MOST_CATEGORIES and 2 * len(counted) > len(names)):
        return []
    # With one more than are shown, that one would be alone in "all others".
    most = MOST_CATEGORIES if len(counted) <= MOST_CATEGORIES else MOST_CATEGORIES - 1
    shown = {name for name, _ in counted.most_common(most)}
    labels = [(name or "without one") if name in shown else OTHERS for name in names]
    order = sorted(set(labels), key=lambda label: (label == OTHERS, -labels.count(label), label))
    return [_group(label, [i for i, each in enumerate(labels) if each == label], right, prompts) for label in order]


def by_size(sizes: Sequence[float | None], right: Floats, prompts: Clusters) -> list[Row]:
    """Accuracy by a number that each pair has (a margin, an agreement): at most four groups of about equal size.

    Rows without the number are left out; [] where it has one value only.
    """
    # Rounded, because two of three votes and one less one of three are the same share, but not to the last bit.
    known = sorted((round(size, 9), i) for i, size in enumerate(sizes) if size is not None)
    if len({size for size, _ in known}) < 2:
        return []
    groups = []
    for first, last in margin_groups([size for size, _ in known]):
        low, high = known[first][0], known[last - 1][0]
        label = f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
        members = [i for _, i in known[first:last]]
        groups.append(_group(label, members, right, prompts) | {"low": low, "high": high})
    return groups


def _group(label: str, members: Sequence[int], right: Floats, prompts: Clusters) -> Row:
    accuracy = share([right[i] for i in members], [prompts[i] for i in members])
    return {
        "group": label,
        "accuracy": accuracy.value,
        "accuracy_ci": list(accuracy.interval),
        "n": len(members),
        "prompts": accuracy.n,
    }


def best_of_k(rankings: Sequence[Row], pairs: Sequence[Row]) -> Row:
    """How often the response with the highest score is one of the best, and how often a blind choice would be.

    Args:
        rankings: rows of rankings.jsonl.
        pairs: used where there are no rankings: of a prompt with three responses or more in its pairs, the best ones
            are those that lost none of them.

    Returns:
        The hit rate, that of a blind choice and their difference, with intervals over prompts, and the number of lists;
        {} where no list has a better and a worse response.
    """
    lists = [(row["scores"], row["ranks"], row.get("prompt_id", i)) for i, row in enumerate(rankings)]
    origin = "rankings" if lists else "pairs"
    lists = [each for each in lists or _lists_of(pairs) if len(set(each[1])) > 1]
    if not lists:
        return {}
    prompts = [prompt for _, _, prompt in lists]
    found = [best_hit(scores, ranks) for scores, ranks, _ in lists]
    chance = [ranks.count(min(ranks)) / len(ranks) for _, ranks, _ in lists]
    hits = share(found, prompts)
    gain = mean_over([hit - blind for hit, blind in zip(found, chance, strict=True)], prompts)
    return {
        "best_of_k_hit_rate": hits.value,
        "best_of_k_hit_rate_ci": list(hits.interval),
        "best_of_k_chance": sum(chance) / len(chance),
        "best_of_k_gain": gain.value,
        "best_of_k_gain_ci": ends(gain),
        "best_of_k_lists": len(lists),
        "best_of_k_mean_k": sum(len(ranks) for _, ranks, _ in lists) / len(lists),
        "best_of_k_from": origin,
    }


def _lists_of(pairs: Sequence[Row]) -> list[tuple[list[float], list[int], Hashable]]:
    """The responses of each prompt with three or more of them: their scores, and rank 1 for those that lost no pair."""
    scores: dict[Hashable, dict[str, float]] = {}
    lost: set[tuple[Hashable, str]] = set()
    for row in pairs:
        if row.get("chosen_id") is None or row.get("rejected_id") is None:
            continue
        for side in ("chosen", "rejected"):
            scores.setdefault(row["prompt_id"], {})[row[f"{side}_id"]] = row[f"{side}_score"]
        lost.add((row["prompt_id"], row["rejected_id"]))
    return [
        (list(each.values()), [2 if (prompt, name) in lost else 1 for name in each], prompt)
        for prompt, each in scores.items()
        if len(each) > 2
    ]


def members_agree(rows: Sequence[Row], right: Floats, prompts: Clusters) -> Row:
    """How often two members of an ensemble order a pair alike, and how right they are where all do, and where not.

    {} where the rows do not say what each member finds.
    """
    if not all(len(row.get("members") or ()) > 1 for row in rows):
        return {}
    # A tie of a member is half a vote for each order, as a tie in score is half right.
    votes = [outcomes(row["members"]) for row in rows]
    alike = [_alike(each.tolist()) for each in votes]
    agreement = share(alike, prompts)
    united = [i for i, each in enumerate(votes) if len(set(each.tolist())) == 1]
    divided = [i for i, each in enumerate(votes) if len(set(each.tolist())) > 1]
    values: Row = {"ensemble_agreement": agreement.value, "ensemble_agreement_ci": list(agreement.interval)}
    groups = (("all members agree", united), ("members differ", divided))
    return values | {"accuracy_by_members": [_group(name, which, right, prompts) for name, which in groups if which]}


def _alike(votes: Sequence[float]) -> float:
    """Share of the couples of members that vote alike, each vote being the share for the chosen response."""
    n, total = len(votes), sum(votes)
    # Of all couples i < j: v_i v_j + (1 - v_i)(1 - v_j), from sums instead of couple by couple.
    both = (total * total - sum(v * v for v in votes)) / 2
    neither = ((n - total) ** 2 - sum((1 - v) ** 2 for v in votes)) / 2
    return (both + neither) / (n * (n - 1) / 2)
