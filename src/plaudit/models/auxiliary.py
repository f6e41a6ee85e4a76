"""The LM head that a reward model keeps while it is trained, so that it goes on predicting what was chosen."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from plaudit.models.files.load import load_causal_lm
from plaudit.models.forward.head import LMHead
from plaudit.models.forward.trunk import bare
from plaudit.models.policy import Policy


def auxiliary_head(
    source: str, tokenizer: PreTrainedTokenizerBase, classifier: nn.Module, options: dict[str, Any]
) -> tuple[LMHead, nn.Module]:
    """The LM head of ``source`` for the trunk of a classifier that was started from it, and its output layer.

    An output layer that is tied to the embeddings is that of the classifier, and learns with it; any other stays
    as it is.

    Raises:
        ModelError: the source is no causal language model.
    """
    policy = Policy(load_causal_lm(source, tokenizer=tokenizer, **options))
    lm: Any = bare(policy.lm)
    layer = lm.get_output_embeddings()
    if layer.weight is lm.get_input_embeddings().weight:
        layer.weight = bare(classifier).get_input_embeddings().weight
    else:
        layer.requires_grad_(False)
    return policy.head, layer
