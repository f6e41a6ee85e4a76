"""Subsets, sections and weights of the benchmarks, as they were published.

Sources: RewardBench (Lambert et al. 2024, arXiv 2403.13787, and the card of allenai/reward-bench; weights:
`rewardbench/constants.py` of allenai/reward-bench, prior sets: `analysis/get_benchmark_results.py`); RewardBench 2
(Malik et al. 2025, arXiv 2506.01937, and the card of allenai/reward-bench-2); RM-Bench (Liu et al. 2024, arXiv
2410.16184, and the README of THU-KEG/RM-Bench); PPE (Frick et al. 2024, arXiv 2410.14872, sections 4 and 5, and the
cards of its data sets).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

BenchmarkName = Literal["rewardbench", "rewardbench-2", "rm-bench", "ppe-human", "ppe-correctness"]

TITLES: Mapping[BenchmarkName, str] = {
    "rewardbench": "RewardBench",
    "rewardbench-2": "RewardBench 2",
    "rm-bench": "RM-Bench",
    "ppe-human": "PPE human preference",
    "ppe-correctness": "PPE correctness",
}

# RewardBench

CHAT, CHAT_HARD, SAFETY, REASONING, PRIOR = "Chat", "Chat Hard", "Safety", "Reasoning", "Prior Sets"
SECTIONS: Mapping[str, Mapping[str, int]] = {
    CHAT: {
        "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40,
    },
    CHAT_HARD: {
        "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    },
    SAFETY: {
        "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 250,
        "xstest-should-respond": 154, "donotanswer": 136,
    },
    REASONING: {
        "math-prm": 984, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164,
        "hep-rust": 164,
    },
}  # fmt: skip
"""Section of RewardBench -> the weight of each subset in it."""
# The weights are numbers of prompts, with two exceptions that the leaderboard has as well: math-prm (447 prompts)
# weighs as much as all code together, and the two XSTest subsets have each other's number. With other weights no score
# could be compared with a published one.

PRIOR_COUNTED = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
"""Prior sets whose mean is a section of half the weight."""
PRIOR_SETS = (*PRIOR_COUNTED, "anthropic_harmless", "mtbench_gpt4", "mtbench_human")
PRIOR_WEIGHT = 0.5
"""Of the prior sets, where each other section weighs 1."""
SECTION_OF = {subset: section for section, subsets in SECTIONS.items() for subset in subsets}
REWARDBENCH_SUBSETS = frozenset(SECTION_OF) | frozenset(PRIOR_SETS)

# RewardBench 2

TIES = "Ties"
REWARDBENCH_2_SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", TIES)
"""Their mean is the score."""
BEST_OF = 4
"""Responses to a prompt of all subsets but Ties."""

# RM-Bench

STYLES = ("concise", "detailed", "detailed with markdown")
DIFFICULTIES = ("easy", "normal", "hard")
"""The chosen response has the richer style, both have the same, the rejected one has the richer style."""
DOMAINS = ("chat", "code", "math", "safety")
"""Their mean is the score. Prompts that ask to refuse and prompts that ask to respond are one domain."""

# PPE

CORRECTNESS_SETS = ("MMLU-Pro", "MATH", "GPQA", "MBPP-Plus", "IFEval")
"""Their mean is the score."""
CORRECTNESS_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "IFEval": ("instruction_id_list",),
    "GPQA": ("High-level domain", "Subdomain", "Record ID"),
    "MBPP-Plus": ("test_list", "task_id"),
    "MMLU-Pro": ("options", "category"),
    "MATH": ("problem", "level", "type"),
}
"""Set of PPE correctness -> columns of which a file of it has at least one, and a file of those before it has none."""
NO_WINNER = "people saw no difference"
"""Why a vote of PPE human preference is not scored."""
FLAGS: Mapping[str, str] = {
    "hard_prompt": "hard prompts",
    "easy_prompt": "easy prompts",
    "if_prompt": "instructions to be followed",
    "math_prompt": "mathematics",
    "is_code": "code",
}
"""Column of PPE human preference -> what its rows are called."""
