"""A tiny model on disk that every implementation loads, and rows for it."""

import pytest
import torch
from tests.models.conftest import make_batch, make_rows

from plaudit.models.tiny import tiny_lm, tiny_tokenizer

WORDS = "the cat sat on a mat and saw dogs run far away from big old trees near water"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A directory with a language model and its tokenizer."""
    torch.set_num_threads(1)
    folder = str(tmp_path_factory.mktemp("model"))
    tokenizer = tiny_tokenizer([WORDS, WORDS.replace("cat", "fox")], 64)
    tiny_lm("llama", tokenizer, hidden=16, layers=1, scale=0.3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def batch():
    """Six rows of unequal length with weights; more than one microbatch."""
    rows = make_batch(make_rows(lengths=(11, 5, 8, 9, 7, 12)))
    weights = rows.response_mask / rows.response_mask.sum()
    return rows.replace(loss_weights=weights, group_ids=torch.arange(6))
