"""What a row has in common with the row before it: by hand."""

import torch

from plaudit.functional.prefix import shared_with_previous


def shared(rows: list[list[int]], lengths: list[int]) -> list[int]:
    tokens = torch.tensor(rows)
    mask = torch.arange(tokens.shape[1])[None] < torch.tensor(lengths)[:, None]
    return shared_with_previous(tokens, mask).tolist()


def test_leading_tokens_count_and_only_those() -> None:
    assert shared([[1, 2, 3, 4], [1, 2, 9, 4], [1, 2, 9, 5], [7, 2, 9, 5]], [4, 4, 4, 4]) == [0, 2, 3, 0]
    assert shared([[1, 2, 3], [1, 2, 3], [1, 2, 3]], [3, 3, 3]) == [0, 3, 3]
    assert shared([[5, 6]], [2]) == [0]


def test_padding_is_shared_with_nobody() -> None:
    """The same token stands at the padding of one row, of the other, or of both."""
    assert shared([[1, 2, 0, 0], [1, 2, 0, 0]], [4, 2]) == [0, 2]
    assert shared([[1, 2, 0, 0], [1, 2, 0, 0]], [2, 4]) == [0, 2]
    assert shared([[1, 2, 0, 0], [1, 2, 0, 0]], [2, 2]) == [0, 2]
    assert shared([[1, 2, 0, 0], [1, 2, 0, 0]], [3, 3]) == [0, 3]
