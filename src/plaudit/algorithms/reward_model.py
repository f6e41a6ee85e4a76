"""Reward models: from pairs (Bradley-Terry), ranked lists, ratings, several qualities at once, or class labels.

pairs:      -log sigma(s_chosen - s_rejected - margin), with smoothed or annotators' targets
rankings:   the mean of that loss over all ordered pairs of a prompt, or a likelihood of the whole order
ratings:    (s - standardised rating)^2, for one score or for one a quality
labels:     binary cross-entropy, so that the score is the log-odds of label 1
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from plaudit.algorithms.parts import DoubtedLabels, SoftTargets
from plaudit.algorithms.protocol import Signal
from plaudit.config.values import NotNegative, settings_value
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Loss, Outputs, Pairs, Rankings
from plaudit.functional import losses
from plaudit.functional import ranking_losses as ranked
from plaudit.functional.disentangling import length_pulls, overlap

Compared = Experience | Pairs | Rankings
AfterTraining = Literal["none", "divide", "residual", "penalty"]
LengthRule = AfterTraining | Literal["odin"]
ODIN = ("quality", "length")
"""The heads of a reward model that keeps length apart; the score is the first."""
LISTWISE = {"plackett_luce": ranked.plackett_luce, "best": ranked.best_choice}


@settings_value
class RewardModel(DoubtedLabels, SoftTargets):
    """Learn a score that ranks responses as people do."""

    margin: NotNegative = 0.0
    """Multiplies the margin of each preference, which is asked of the score difference; 0 ignores margins."""
    smoothing: Literal["conservative", "robust"] = "conservative"
    """conservative: targets of 1 - label_smoothing; robust: the unbiased estimate of the loss of the right labels,
    which can be negative."""
    centering: NotNegative = 0.0
    """Weight of the term that pulls scores to 0; 0.01 is usual."""
    ranking_loss: Literal["pairs", "all_pairs", "plackett_luce", "best"] = "pairs"
    """Of ranked lists. pairs: mean over all pairs of a prompt that are not ties, then over prompts; all_pairs: mean
    over the pairs of all prompts; plackett_luce: likelihood of the order; best: cross-entropy of the best response."""
    lm_coef: NotNegative = 0.0
    """Weight of the negative log-likelihood of the chosen response (mean over its tokens). Decoders only."""
    ratings: Literal["pairs", "regression"] = "pairs"
    """Rated responses. pairs: two responses to one prompt with different ratings; regression: predict the rating."""
    attributes: tuple[str, ...] = ()
    """Qualities that ratings have as axes: a head for each, trained by regression. Empty: one score."""
    attribute_weights: tuple[float, ...] = ()
    """Weight of each quality in the score; empty: all alike, adding up to 1."""
    length: LengthRule | tuple[LengthRule, float] = "none"
    """Correction for length. After training: divide: by length^c; residual: subtract what length explains on the
    reference responses; penalty: subtract c standard deviations per 100 response tokens. odin: while training, a second
    head takes up length, with weight c. Two values: the rule and c, which else is 1."""

    @property
    def needs(self) -> frozenset[Signal]:
        """The outputs on the whole step, where correlations of it are part of the loss."""
        return frozenset({"heads"} if self._is_odin else ())

    @property
    def _rule(self) -> tuple[LengthRule, float]:
        return self.length if isinstance(self.length, tuple) else (self.length, 1.0)

    @property
    def _is_odin(self) -> bool:
        return self._rule[0] == "odin"

    @property
    def length_correction(self) -> tuple[AfterTraining, float]:
        """The rule for length after training, and its coefficient."""
        rule, coef = self._rule
        return ("none", 1.0) if rule == "odin" else (rule, coef)

    def __post_init__(self) -> None:
        self._check_ratings()
        self._check_lists()
        if self._is_odin and self.ratings == "regression":
            raise ConfigError(
                "length = 'odin' is trained on comparisons, but ratings = 'regression'",
                where="[algorithm] length",
                cure="set ratings = 'pairs', or length = 'residual'",
            )

    def _check_ratings(self) -> None:
        if self.attributes and self.ratings != "regression":
            raise ConfigError(
                f"attributes ({', '.join(self.attributes)}) are trained on ratings, but ratings = 'pairs'",
                where="[algorithm] ratings",
                cure="set ratings = 'regression', or leave attributes empty",
            )
        if self.attribute_weights and len(self.attribute_weights) != len(self.attributes):
            raise ConfigError(
                f"{len(self.attribute_weights)} weights for {len(self.attributes)} attributes",
                where="[algorithm] attribute_weights",
                cure="give one weight an attribute, or none",
            )

    def _check_lists(self) -> None:
        pairwise = {"label_smoothing": self.label_smoothing, "centering": self.centering}
        given = [name for name, value in pairwise.items() if value]
        if self.ranking_loss in LISTWISE and given:
            raise ConfigError(
                f"{given[0]} is about pairs, and ranking_loss = {self.ranking_loss!r} has none",
                where=f"[algorithm] {given[0]}",
                cure=f"set {given[0]} to 0, or use ranking_loss = 'pairs'",
            )

    @property
    def heads(self) -> tuple[str, ...]:
        """What each head scores; empty: there is one score without a name."""
        return ODIN if self._is_odin else self.attributes

    @property
    def head_weights(self) -> tuple[float, ...]:
        """The weight of each head in the score."""
        if self._is_odin:
            return (1.0, 0.0)
        return self.attribute_weights or tuple(1 / len(self.attributes) for _ in self.attributes)

    def weights(self, batch: Compared) -> Compared:
        """How the mean over the step is taken: over pairs, over ranked prompts or their pairs, or over rows.

        A ranked prompt without an ordered pair does not count. A row's weight stands at its last real token.
        """
        if self._is_odin and isinstance(batch, Pairs | Rankings):
            assert batch.heads is not None, "the loop reads the heads before the step"
            tokens = batch.response_mask.sum(-1)
            batch = batch.replace(length_pulls=self._rule[1] * length_pulls(batch.heads, tokens))
        if isinstance(batch, Pairs):
            return batch.replace(loss_weights=torch.full((len(batch),), 1 / len(batch)))
        if isinstance(batch, Rankings):
            better, _ = ranked.ordered_pairs(batch.ranks, batch.groups)
            kept = ranked.group_sizes(batch.groups[better], len(batch)).float()
            counted = kept if self.ranking_loss == "all_pairs" else (kept > 0).float()
            return batch.replace(loss_weights=counted / counted.sum().clamp(min=1))
        last = torch.arange(batch.tokens.shape[1]) == (batch.lengths - 1)[:, None]
        return batch.replace(loss_weights=last / len(batch))

    def loss(self, batch: Compared, out: Outputs) -> Loss:
        """Weighted sum over pairs, ranked prompts, or rated or labelled rows."""
        assert out.scores is not None
        if isinstance(batch, Pairs):
            return self._with_more(self._pair_loss(batch, self._ranking(out), out.scores), batch, out)
        if isinstance(batch, Rankings):
            return self._with_more(self._list_loss(batch, self._ranking(out), out.scores), batch, out)
        assert batch.loss_weights is not None
        weights = batch.loss_weights.sum(-1)
        if self.ratings == "regression":
            return self._rating_loss(batch, out, weights)
        assert batch.rewards is not None
        value = (losses.label_loss(out.scores, batch.rewards) * weights).sum()
        right = ((out.scores > 0) == (batch.rewards > 0.5)).float()
        return Loss(value, {"loss": value.detach(), "reward_model/accuracy": (right * weights).sum()})

    def _compared(self, chosen: Tensor, rejected: Tensor, targets: Tensor, margins: Tensor) -> Tensor:
        """Loss of each pair, with its labels smoothed and its scores held near 0."""
        smooth = ranked.smoothed_targets if self.smoothing == "conservative" else ranked.unbiased_targets
        loss = losses.bradley_terry(
            chosen,
            rejected,
            margins=self.margin * margins,
            targets=smooth(targets, self.label_smoothing),
        )
        if self.centering:
            loss = loss + self.centering * losses.centering(chosen, rejected)
        return loss

    def _ranking(self, out: Outputs) -> Tensor:
        """``[R]`` what the responses are ranked by while training: the score, or the sum of quality and length."""
        assert out.scores is not None
        if not self._is_odin:
            return out.scores
        assert out.heads is not None
        return out.heads.sum(-1)

    def _pair_loss(self, batch: Pairs, ranking: Tensor, scores: Tensor) -> Loss:
        chosen, rejected = ranking.view(-1, 2).unbind(-1)
        targets = batch.targets if self.use_agreement else torch.ones_like(batch.targets)
        value = batch.weighted_sum(self._compared(chosen, rejected, targets, batch.margins))
        metrics = _ranked_right(*scores.detach().view(-1, 2).unbind(-1))
        return Loss(value, {"loss": value.detach()} | {n: batch.weighted_sum(x) for n, x in metrics.items()})

    def _list_loss(self, batch: Rankings, ranking: Tensor, scores: Tensor) -> Loss:
        groups, count = batch.groups, len(batch)
        better, worse = ranked.ordered_pairs(batch.ranks, groups)
        of_pair = groups[better]
        if self.ranking_loss not in LISTWISE:
            ones = torch.ones_like(ranking[better])
            loss = ranked.group_means(
                self._compared(ranking[better], ranking[worse], ones, torch.zeros_like(ones)), of_pair, count
            )
        else:
            loss = LISTWISE[self.ranking_loss](ranking, batch.ranks, groups, count)
        value = batch.weighted_sum(loss)
        metrics = _ranked_right(scores[better].detach(), scores[worse].detach())
        means = {name: ranked.group_means(x, of_pair, count) for name, x in metrics.items()}
        return Loss(value, {"loss": value.detach()} | {n: batch.weighted_sum(x) for n, x in means.items()})

    def _rating_loss(self, batch: Experience, out: Outputs, weights: Tensor) -> Loss:
        """Squared error of the score, or of each head and then the mean over heads."""
        if not self.attributes:
            assert batch.rewards is not None and out.scores is not None
            error = ranked.squared_error(out.scores, batch.rewards)
            value = (error * weights).sum()
            return Loss(value, {"loss": value.detach(), "reward_model/squared_error": value.detach()})
        assert batch.attributes is not None and out.heads is not None
        errors = (ranked.squared_error(out.heads, batch.attributes) * weights[:, None]).sum(0)
        value = errors.mean()
        parts = {
            f"reward_model/squared_error/{n}": e.detach()
            for n, e in zip(self.attributes, errors, strict=True)
        }
        return Loss(value, {"loss": value.detach(), "reward_model/squared_error": value.detach()} | parts)

    def _with_more(self, result: Loss, batch: Pairs | Rankings, out: Outputs) -> Loss:
        """The loss with what is trained beside the comparisons."""
        result = self._with_lm(result, batch, out)
        if not self._is_odin:
            return result
        assert batch.length_pulls is not None and out.heads is not None and out.head_weights is not None
        assert batch.loss_weights is not None
        overlapping = overlap(out.head_weights)
        share = batch.loss_weights.sum()
        # The first term has the gradient of the correlations and not their value, which no part of a step knows.
        value = result.value + (batch.length_pulls * out.heads).sum() + share * overlapping
        return Loss(value, result.metrics | {"reward_model/head_overlap": share * overlapping.detach()})

    def _with_lm(self, result: Loss, batch: Pairs | Rankings, out: Outputs) -> Loss:
        """Plus ``lm_coef`` times the mean negative log-likelihood per token of what was chosen."""
        if not self.lm_coef:
            return result
        assert out.logprobs is not None, "the stage gives the model its LM head where lm_coef asks for it"
        mask = batch.response_mask
        rows = -torch.where(mask, out.logprobs, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)
        if isinstance(batch, Pairs):
            of_unit = rows[0::2]
        else:
            best = batch.best_rows
            of_unit = ranked.group_means(rows[best], batch.groups[best], len(batch))
        lm = batch.weighted_sum(of_unit)
        value = result.value + self.lm_coef * lm
        return Loss(value, result.metrics | {"loss": value.detach(), "reward_model/lm_loss": lm.detach()})


def _ranked_right(chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
    """Per pair: ranked right (a tie counts a half), difference, both scores."""
    difference = chosen - rejected
    return {
        "reward_model/accuracy": (difference > 0).float() + 0.5 * (difference == 0).float(),
        "reward_model/margin": difference,
        "reward_model/chosen_mean": chosen,
        "reward_model/rejected_mean": rejected,
    }
