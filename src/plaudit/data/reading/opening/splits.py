"""What a name says of the split that rows belong to: a file's, a folder's, or a field's around a list of rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "eval", "evaluation", "valid", "validation", "val", "dev", "heldout", "holdout")


def is_of(name: str, words: Sequence[str]) -> bool:
    """Whether one of the words stands in a name.

    >>> is_of("train_sft", TRAINING), is_of("retrained", TRAINING), is_of("Test2", HELD_OUT)
    (True, False, True)
    """
    return any(word in words for word in re.split(r"[\W_]+|(?<=[a-z])(?=\d)", name.lower()))
