"""Prompts and responses to token ids, the same way for training, scoring and generation.

Read ``format.py`` first: `ChatFormat` makes rows of prompts and responses. ``template.py`` asks a chat template what it
writes, ``answers.py`` says what the assistant has to write for a turn, ``ends.py`` what ends it, and ``tokens.py`` what
a tokenizer makes of a text behind another one.
"""

from plaudit.data.chat.format import ChatFormat, Encoded
from plaudit.data.chat.tokens import Tokenizer, Tokens

__all__ = ["ChatFormat", "Encoded", "Tokenizer", "Tokens"]
