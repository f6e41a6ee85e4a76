"""Pairs of texts for encoders."""

from __future__ import annotations

import copy

import pytest
import torch

from plaudit.models.pairs import encoded_pair, longest_text
from plaudit.models.tiny import tiny_classifier


def words(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True).split()


def test_a_pair_that_fits_is_the_tokenizers_own(tokenizer):
    pair = encoded_pair(tokenizer, "the cat", " sat on", 512)
    assert pair.ids == tokenizer("the cat", " sat on")["input_ids"] and not pair.cut
    alone = encoded_pair(tokenizer, "", " sat on", 512)
    assert alone.ids == tokenizer(" sat on")["input_ids"] and not alone.cut


@pytest.mark.parametrize("limit", [4, 5, 6, 7, 20])
def test_the_prompt_is_cut_from_the_left_before_the_response(tokenizer, limit):
    pair = encoded_pair(tokenizer, "the cat sat on a mat", " dogs run far", limit)
    assert len(pair.ids) == min(limit, 1 + 6 + 3) and pair.cut == (limit < 10)
    assert words(tokenizer, pair.ids)[-3:] == ["dogs", "run", "far"]
    assert words(tokenizer, pair.ids)[:-3] == "the cat sat on a mat".split()[6 - (len(pair.ids) - 4) :]


def test_a_response_that_does_not_fit_loses_its_end(tokenizer):
    pair = encoded_pair(tokenizer, "the cat", " dogs run far", 3)
    assert words(tokenizer, pair.ids) == ["dogs", "run"] and pair.cut and pair.response == 3


def test_a_text_may_be_as_long_as_the_table_of_positions_or_as_the_tokenizer_says(tokenizer):
    model = tiny_classifier("roberta", tokenizer)
    model.roberta.embeddings.position_embeddings = torch.nn.Embedding(2048 + 1, 32, padding_idx=0)
    assert longest_text(model, tokenizer) == 2048
    tokenizer_with_limit = copy.deepcopy(tokenizer)
    tokenizer_with_limit.model_max_length = 100
    assert longest_text(model, tokenizer_with_limit) == 100
