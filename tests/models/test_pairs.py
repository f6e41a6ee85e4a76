"""Pairs of texts for encoders."""

from __future__ import annotations

import pytest

from plaudit.errors import ModelError
from plaudit.models.pairs import pair_ids


def words(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True).split()


def test_a_pair_that_fits_is_the_tokenizers_own(tokenizer):
    assert pair_ids(tokenizer, "the cat", " sat on") == tokenizer("the cat", " sat on")["input_ids"]
    assert pair_ids(tokenizer, "", " sat on") == tokenizer(" sat on")["input_ids"]


@pytest.mark.parametrize("limit", [4, 5, 6, 7, 20])
def test_the_prompt_is_cut_from_the_left_and_the_response_never(tokenizer, limit):
    ids = pair_ids(tokenizer, "the cat sat on a mat", " dogs run far", limit=limit)
    assert len(ids) == min(limit, 1 + 6 + 3)
    assert words(tokenizer, ids)[-3:] == ["dogs", "run", "far"]
    assert words(tokenizer, ids)[:-3] == "the cat sat on a mat".split()[6 - (len(ids) - 4) :]


def test_a_response_that_does_not_fit_is_refused(tokenizer):
    with pytest.raises(ModelError, match="does not fit"):
        pair_ids(tokenizer, "the cat", " dogs run far", limit=3)
