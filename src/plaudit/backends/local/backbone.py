"""One frozen base for several roles: reward models that were trained as adapters on the policy's own tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from plaudit.models.files.adapter import frozen_base
from plaudit.models.files.layout import FOLDER, fingerprint, stored_fingerprint
from plaudit.models.files.outline import is_outline
from plaudit.models.files.source import resolve
from plaudit.models.forward.lower import LowerStates
from plaudit.models.forward.trunk import body, is_4bit
from plaudit.models.policy import Policy
from plaudit.models.reward_model import RewardModel


class Backbone:
    """What a policy offers to the other roles of its run.

    Attributes:
        notes: what became of each reward model, in words for the user; empty if the policy has no adapters.
        loaded: the models that rewards were built from, for the memory figures.
    """

    def __init__(self, policy: Policy, *, lower_states_gb: float = 0.0) -> None:
        self.policy, self.lower_states_gb = policy, lower_states_gb
        self.notes: list[str] = []
        self.loaded: list[nn.Module] = []
        self._fingerprint = ""

    def reward_model(self, source: str, tokenizer: Any) -> RewardModel:
        """Adapter and head on the policy's tensors if its base is the reward model's; else a model of its own.

        Raises:
            ModelError: see `RewardModel.load`; its probe texts are checked either way.
        """
        path = Path(resolve(source).name)
        apart = self._apart(path)
        if apart is None:
            self.say(f"reward model {source}: adapter and head on the policy's frozen base")
            base = frozen_base(self.policy.lm)
            model = RewardModel.on_base(path, tokenizer, base, lower_states_gb=self.lower_states_gb)
            model.lower = self.lower_states(model.lower)
            return model
        if apart:
            self.say(f"reward model {source}: a whole model of its own, since {apart}")
        return RewardModel.load(source, tokenizer)

    def lower_states(self, own: LowerStates | None) -> LowerStates | None:
        """The policy's states of frozen lower layers in place of a role's ``own``, if they are of the same layers."""
        policy = self.policy.lower
        return policy if policy is not None and own is not None and policy.depth == own.depth else own

    def _apart(self, path: Path) -> str | None:
        """Why the model needs tensors of its own: None if it does not, "" if there is nothing to say."""
        if not self.policy.uses_lora:
            return ""
        if is_4bit(self.policy.lm):
            return "the policy's base is in 4 bit"
        stored = stored_fingerprint(path / FOLDER)
        if not stored:
            return "it was saved without an adapter (train it with --rank)"
        if is_outline(self.policy.lm):  # which has no values to compare; most runs are of one base
            return None
        self._fingerprint = self._fingerprint or fingerprint(body(self.policy.lm))
        return None if stored == self._fingerprint else "it was trained on another base than the policy's"

    def say(self, note: str) -> None:
        """Keep a note, once."""
        if note not in self.notes:
            self.notes.append(note)
