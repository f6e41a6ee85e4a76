"""Plaudit: reinforcement learning from human feedback, measured.

The names below are the public API; each is imported when it is first used, so that ``import plaudit`` stays
light (no torch). Everything the command line does can be done from here with the same names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from plaudit.algorithms.best_of_n import BestOfN as BestOfN
    from plaudit.algorithms.dpo import DPO as DPO
    from plaudit.algorithms.dpo import IPO as IPO
    from plaudit.algorithms.dpo import ORPO as ORPO
    from plaudit.algorithms.dpo import Hinge as Hinge
    from plaudit.algorithms.dpo import SimPO as SimPO
    from plaudit.algorithms.grpo import CISPO as CISPO
    from plaudit.algorithms.grpo import DAPO as DAPO
    from plaudit.algorithms.grpo import GRPO as GRPO
    from plaudit.algorithms.grpo import GSPO as GSPO
    from plaudit.algorithms.grpo import DrGRPO as DrGRPO
    from plaudit.algorithms.grpo import GRPOPaper as GRPOPaper
    from plaudit.algorithms.kto import KTO as KTO
    from plaudit.algorithms.online_dpo import OnlineDPO as OnlineDPO
    from plaudit.algorithms.ppo import PPO as PPO
    from plaudit.algorithms.reinforce import REINFORCE as REINFORCE
    from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus as REINFORCEPlusPlus
    from plaudit.algorithms.reward_model import RewardModel as RewardModel
    from plaudit.algorithms.rloo import RLOO as RLOO
    from plaudit.algorithms.sft import SFT as SFT
    from plaudit.api import Model as Model
    from plaudit.api import Run as Run
    from plaudit.api import run_loop as run_loop
    from plaudit.api import train as train
    from plaudit.config.load import load_job as load_job
    from plaudit.data.lint import lint as lint
    from plaudit.data.load import load_records as load_records
    from plaudit.data.write import write_records as write_records
    from plaudit.errors import ConfigError as ConfigError
    from plaudit.errors import DataError as DataError
    from plaudit.errors import PlauditError as PlauditError
    from plaudit.evaluation.report import write_report as write_report
    from plaudit.records import Demonstration as Demonstration
    from plaudit.records import Judgement as Judgement
    from plaudit.records import Message as Message
    from plaudit.records import Preference as Preference
    from plaudit.records import Prompt as Prompt
    from plaudit.records import Ranking as Ranking
    from plaudit.records import Rating as Rating
    from plaudit.records import RewardResult as RewardResult
    from plaudit.records import Rollout as Rollout
    from plaudit.records import Turn as Turn
    from plaudit.rewards.build import isolated as isolated
    from plaudit.rollouts.environment import Done as Done
    from plaudit.rollouts.environment import Environment as Environment

_HOME = {
    "train": "api", "run_loop": "api", "Run": "api", "Model": "api",
    "SFT": "algorithms.sft", "RewardModel": "algorithms.reward_model", "PPO": "algorithms.ppo",
    "GRPO": "algorithms.grpo", "DrGRPO": "algorithms.grpo", "DAPO": "algorithms.grpo", "GSPO": "algorithms.grpo",
    "CISPO": "algorithms.grpo", "GRPOPaper": "algorithms.grpo", "RLOO": "algorithms.rloo",
    "REINFORCE": "algorithms.reinforce", "REINFORCEPlusPlus": "algorithms.reinforce_pp",
    "DPO": "algorithms.dpo", "IPO": "algorithms.dpo", "Hinge": "algorithms.dpo", "KTO": "algorithms.kto",
    "ORPO": "algorithms.dpo", "SimPO": "algorithms.dpo", "OnlineDPO": "algorithms.online_dpo",
    "BestOfN": "algorithms.best_of_n",
    "load_records": "data.load", "write_records": "data.write", "lint": "data.lint",
    "load_job": "config.load", "write_report": "evaluation.report",
    "Message": "records", "Prompt": "records", "Demonstration": "records", "Preference": "records",
    "Ranking": "records", "Rating": "records", "Judgement": "records", "Rollout": "records",
    "RewardResult": "records", "Turn": "records",
    "isolated": "rewards.build",
    "Environment": "rollouts.environment", "Done": "rollouts.environment",
    "PlauditError": "errors", "ConfigError": "errors", "DataError": "errors",
}  # fmt: skip

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'plaudit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"plaudit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
