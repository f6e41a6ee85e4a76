"""Prompts and responses to token ids, the same way for training, scoring and generation."""

# The prompt and the response are tokenized apart and joined as tokens. In generation the response is sampled token by
# token behind the prompt's tokens, so no token ever covers the boundary. Tokenizing both as one text could merge the
# last character of the prompt with the first of the response, and training would see tokens that generation never does.
# For the same reason there is one beginning-of-text token at most, and one end token after the response.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from plaudit.data.reading.transcripts import as_messages, plain_text, write_transcript
from plaudit.errors import DataError, ModelError
from plaudit.records import Content, Message, to_json


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that is used here."""

    chat_template: Any
    eos_token_id: int | None
    bos_token_id: int | None
    sep_token_id: int | None

    @property
    def all_special_ids(self) -> Any:
        """The ids of the special tokens."""

    @property
    def added_tokens_decoder(self) -> Any:
        """The tokens that were added to the vocabulary, by id; each has ``special``."""

    def __call__(self, text: str, **options: Any) -> Any:
        """Token ids under "input_ids", and "offset_mapping" where asked for."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """A conversation as text."""

    def convert_ids_to_tokens(self, ids: int) -> Any:
        """The token with an id."""

    def decode(self, token_ids: Any, **options: Any) -> Any:
        """The text of tokens."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row: prompt tokens, then response tokens."""

    ids: list[int]
    mask: list[bool]
    """True on tokens that are trained on: the response with its end token, and earlier turns if asked for."""
    prompt_length: int
    """Tokens before the response."""
    opening: int = 0
    """Tokens at the very start (the beginning-of-text token) that stay when the prompt is cut."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ChatFormat:
    """How contents become token ids for one tokenizer.

    A text prompt is continued as it stands. A chat goes through the tokenizer's chat template; without a
    template, or with ``template="never"``, it is written as a `Human:/Assistant:` transcript, where one
    space comes before the response.
    """

    tokenizer: Tokenizer
    template: Literal["auto", "never"] = "auto"

    # Properties of the tokenizer

    @property
    def uses_template(self) -> bool:
        """Whether chats go through the tokenizer's chat template."""
        return self.template == "auto" and bool(self.tokenizer.chat_template)

    @property
    def name(self) -> str:
        """How chats are written, for the log."""
        return "the tokenizer's chat template" if self.uses_template else "Human:/Assistant: transcripts"

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """Tokens that the tokenizer puts before every text: the beginning-of-text token, or none."""
        # Found by encoding a letter with and without special tokens: not every tokenizer that has a bos_token uses it.
        bare = self._ids("a")
        complete = list(self.tokenizer("a")["input_ids"])
        at = next((i for i in range(len(complete)) if bare and complete[i : i + len(bare)] == bare), 0)
        return tuple(complete[:at])

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end a response: the one of chats first, then the one of plain texts, if they differ.

        Raises:
            ModelError: the tokenizer has no end token.
        """
        plain = self.tokenizer.eos_token_id
        if plain is None:
            plain = self.tokenizer.sep_token_id  # encoders such as BERT end a text with a separator
        # Chat models often end a turn with another token than a text (<|im_end|> and <|endoftext|>). Generation
        # stops at either; a model that was trained on one of them only would go on after the other.
        of_chat = self._end_of_turn() if self.uses_template else None
        ends = [end for end in (of_chat, plain) if end is not None]
        if not ends:
            raise ModelError("the tokenizer has no end token", cure="set its eos_token, and save it again")
        return tuple(dict.fromkeys(ends))

    @cached_property
    def _around_turn(self) -> tuple[str, str]:
        """The text that chats put between the opening of an assistant turn and its words, and the text after them."""
        if not self.uses_template:
            return " ", ""
        # A template is a program; what it writes around a turn is found by giving it a chat with a word that can be
        # recognised in the result.
        word = "plaudit"
        prompt = (Message("user", "a"),)
        text = self._render((*prompt, Message("assistant", word)), open_end=False)
        at = text.rfind(word)
        opened = self._render(prompt, open_end=True)
        lead = text[len(opened) : at] if text.startswith(opened) else ""
        return lead if lead.isspace() else "", text[at + len(word) :]

    def _end_of_turn(self) -> int | None:
        """The special token that the template puts after an assistant turn."""
        return next((i for i in self._ids(self._around_turn[1]) if self._is_special(i)), None)

    def _with_lead(self, text: str) -> str:
        """The text of an assistant turn with the space that chats put before it, if it has none yet."""
        lead = self._around_turn[0]
        return text if text.startswith(lead) else lead + text

    def _is_special(self, token: int) -> bool:
        # Some tokenizers list the end of a turn among the added tokens only, and not among the special ones.
        added = self.tokenizer.added_tokens_decoder.get(token)
        return token in self.tokenizer.all_special_ids or bool(added and added.special)

    # Encoding

    def prompt_ids(self, content: Content) -> list[int]:
        """The tokens a response continues; never empty.

        A chat ends with the opening of the assistant's turn.
        """
        text = content if isinstance(content, str) else self._write(content)
        return self._opened(self._ids(text))[0]

    def encode_prompt(self, content: Content) -> Encoded:
        """A prompt alone, ready to be fitted to a length."""
        ids = self.prompt_ids(content)
        return Encoded(ids, [False] * len(ids), len(ids), self._opening_of(ids))

    def encode(self, prompt: Content, response: Content, *, all_turns: bool = False) -> Encoded:
        """A prompt and its response, with one end token after it.

        Args:
            prompt: text or chat.
            response: text, or turns that end with the assistant's; all assistant turns among them are masked
                True.
            all_turns: also mask True the assistant turns of the prompt, each with its end token. (A
                transcript without a template has none inside.)

        Raises:
            DataError: the chat does not end with the assistant's turn, or the template refuses it.
        """
        if isinstance(response, str) and (isinstance(prompt, str) or not prompt):
            ids = self.prompt_ids(prompt or "")
            return self._joined(ids, [False] * len(ids), len(ids), response, self.end_ids[-1])
        turns = as_messages(prompt, "user") if prompt else ()
        *earlier, last = (*turns, *as_messages(response, "assistant"))
        if last.role != "assistant":
            raise DataError(
                f"the response ends with a turn of {last.role}", cure="end it with the assistant's turn"
            )
        ids, mask, starts = self._history(tuple(earlier), 0 if all_turns else len(turns))
        # A response of several turns begins with its first assistant turn, which stands among the earlier turns.
        length = min((at for turn, at in starts.items() if turn >= len(turns)), default=len(ids))
        return self._joined(ids, mask, length, self._with_lead(last.content), self.end_ids[0])

    def continuation(self, reply: Content, after: int, *, chat: bool) -> list[int]:
        """The tokens that follow a response when somebody answers it, up to where the next response begins.

        Only the reply is tokenised. The response before it stays as the tokens that were sampled: encoded anew, its
        text could give other tokens, which the policy never drew and which have no log-probs.

        Args:
            reply: a text, in a chat a turn of the user; or the turns, each with its role.
            after: the last token of the response. If it is an end token, the end of turn that the template writes
                stands in the row already.
            chat: the prompt is a chat; a text is just continued.

        Raises:
            DataError: turns that answer a text, or a template that refuses or rewrites them.
        """
        if not chat:
            if not isinstance(reply, str):
                raise DataError(
                    "a text prompt was answered with turns of a chat", cure="answer it with a text"
                )
            return self._ids(reply)
        turns = as_messages(reply, "user")
        if not self.uses_template:
            return self._ids(write_transcript(turns, open_end=True))
        # What the template writes between a response and the next one is found on a chat with a known response. It is
        # the same after any response, unless the template rewrites earlier turns, which is refused here.
        known = (Message("user", "a"), Message("assistant", "plaudit"))
        before = self._render(known, open_end=False).rpartition("plaudit")[0] + "plaudit"
        whole = self._render((*known, *turns), open_end=True)
        if not whole.startswith(before):
            raise DataError(
                "the tokenizer's chat template writes an earlier response otherwise once it is answered",
                cure="set chat_template to never",
            )
        ids = self._ids(whole.removeprefix(before))
        return ids[1:] if after in self.end_ids and ids[:1] == [self.end_ids[0]] else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens as text, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def text(self, content: Content) -> str:
        """A content as people read it."""
        return plain_text(content)

    def _joined(self, ids: list[int], mask: list[bool], length: int, text: str, end: int) -> Encoded:
        # Data sets that hold end tokens as text ("</s>") would otherwise give two of them.
        response = self._ids(text)
        while response and response[-1] == end:
            response.pop()
        response.append(end)
        return Encoded(ids + response, mask + [True] * len(response), length, self._opening_of(ids))

    def _history(
        self, turns: tuple[Message, ...], first: int
    ) -> tuple[list[int], list[bool], dict[int, int]]:
        """Tokens of all turns before the response, a mask of the assistant turns from turn ``first`` on, and the
        index of the token with which each of these turns starts."""
        # The history is tokenized as one text, as in generation. Which tokens belong to a turn is read from the
        # characters that each token covers, because tokenizing turn by turn could give other tokens.
        text = self._write(turns)
        spans = self._spans(text, turns, first)
        if not spans:
            ids = self._opened(self._ids(text))[0]
            return ids, [False] * len(ids), {}
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, shift = self._opened(list(read["input_ids"]))
        mask = [False] * len(ids)
        starts: dict[int, int] = {}
        for index, (start, end) in enumerate(read["offset_mapping"]):
            turn = next((t for t, (a, b) in spans.items() if a <= start < b and start < end), None)
            if turn is not None and index + shift >= 0:
                mask[index + shift] = True
                starts.setdefault(turn, index + shift)
        return ids, mask, starts

    def _spans(self, text: str, turns: tuple[Message, ...], first: int) -> dict[int, tuple[int, int]]:
        """The places of the assistant turns in ``text``, each with its end token. Turns that the template leaves out
        or rewrites have none, and are not trained on."""
        spans: dict[int, tuple[int, int]] = {}
        end_token = str(self.tokenizer.convert_ids_to_tokens(self.end_ids[0])) if self.uses_template else ""
        for index in range(first, len(turns)):
            if turns[index].role != "assistant":
                continue
            before = self._write(turns[:index]) if index else ""
            # Some templates strip turns, some add a space.
            words = turns[index].content
            forms = (self._with_lead(words), self._with_lead(words.strip()), words, words.strip())
            written = next((form for form in forms if form and text.startswith(before + form)), None)
            if written is not None:
                end = len(before) + len(written)
                spans[index] = (len(before), end + len(end_token) * text.startswith(end_token, end))
        return spans

    # Text and tokens

    def _write(self, turns: tuple[Message, ...]) -> str:
        return (
            self._render(turns, open_end=True)
            if self.uses_template
            else write_transcript(turns, open_end=True)
        )

    def _render(self, turns: tuple[Message, ...], *, open_end: bool) -> str:
        # What a turn has beyond role and content goes to the template, as `generate` would give it.
        written = ({k: v for k, v in to_json(turn).items() if k not in ("train", "tools")} for turn in turns)
        options = {"tools": to_json(turns[0].tools)} if turns and turns[0].tools else {}
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(written), tokenize=False, add_generation_prompt=open_end, **options
                )
            )
        except Exception as error:  # a template may raise anything
            roles = ", ".join(turn.role for turn in turns) or "none"
            what = f"the tokenizer's chat template refuses a chat with the turns {roles}: {error}"
            raise DataError(what, cure="let the roles alternate, or set chat_template to never") from error

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _opened(self, ids: list[int]) -> tuple[list[int], int]:
        """The tokens with the opening exactly once in front, and by how many places they moved to the right.

        A text without any token gets the beginning-of-text or the end token.
        """
        # Templates often write the beginning-of-text token themselves, and the tokenizer would add a second one. And
        # something must come first, for a model predicts each token from those before it.
        opening, bare = list(self.opening), ids
        while opening and bare[: len(opening)] == opening:
            bare = bare[len(opening) :]
        if not opening and not bare:
            bos = self.tokenizer.bos_token_id
            opening = [self.end_ids[-1] if bos is None else bos]
        return opening + bare, len(opening) + len(bare) - len(ids)

    def _opening_of(self, ids: list[int]) -> int:
        if self.opening and tuple(ids[: len(self.opening)]) == self.opening:
            return len(self.opening)
        return int(bool(ids) and ids[0] == self.tokenizer.bos_token_id)
