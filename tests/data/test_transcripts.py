"""Human:/Assistant: transcripts, and what two transcripts share."""

from __future__ import annotations

from plaudit.data.reading.transcripts import (
    is_transcript,
    parse_transcript,
    plain_text,
    prompt_key,
    split_shared,
    write_transcript,
)
from plaudit.records import Message


def chat(*texts, first="user"):
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))


def test_transcripts_round_trip_to_the_byte():
    text = "\n\nHuman:  two spaces \n\nAssistant: a\n\nb: c\n\nHuman: \n\nAssistant: d\n"
    turns = parse_transcript(text)
    assert [t.content for t in turns] == [" two spaces ", "a\n\nb: c", "", "d\n"]
    assert write_transcript(turns) == text


def test_an_open_end_is_a_prompt_or_an_empty_response():
    text = "\n\nHuman: Hi\n\nAssistant:"
    assert parse_transcript(text) == chat("Hi")
    assert parse_transcript(text, whole=True) == chat("Hi", "")
    assert write_transcript(chat("Hi"), open_end=True) == text


def test_only_conversations_are_transcripts():
    assert is_transcript("Human: a\n\nAssistant: b")
    assert not is_transcript("Humans: a\n\nAssistant: b")
    assert not is_transcript("I said\n\nHuman: a\n\nAssistant: b")
    assert not is_transcript("Human: a")


def test_shared_prompt_of_chats():
    same = chat("q", "a", "q2")
    prompt, chosen, rejected = split_shared(
        (*same, Message("assistant", "x")), (*same, Message("assistant", "y"))
    )
    assert (prompt, chosen, rejected) == (same, "x", "y")


def test_earlier_assistant_turns_that_differ_belong_to_the_responses():
    prompt, chosen, rejected = split_shared(chat("q", "a", "more", "x"), chat("q", "b", "more", "y"))
    assert prompt == chat("q")
    assert chosen == chat("a", "more", "x", first="assistant")
    assert rejected == chat("b", "more", "y", first="assistant")


def test_a_user_turn_that_differs_takes_the_assistant_turn_before_it_along():
    prompt, chosen, rejected = split_shared(chat("q", "a", "more", "x"), chat("q", "a", "less", "y"))
    assert prompt == chat("q")
    assert chosen == chat("a", "more", "x", first="assistant")
    assert rejected == chat("a", "less", "y", first="assistant")


def test_one_chat_that_goes_on_longer():
    prompt, chosen, rejected = split_shared(chat("q", "a"), chat("q", "a", "more", "x"))
    assert prompt == chat("q") and chosen == "a"
    assert rejected == chat("a", "more", "x", first="assistant")


def test_chats_with_nothing_in_common_share_an_empty_prompt():
    prompt, chosen, rejected = split_shared(chat("p", "a"), chat("q", "b"))
    assert prompt == () and chosen == chat("p", "a") and rejected == chat("q", "b")


def test_identical_chats_keep_their_response():
    assert split_shared(chat("q", "a"), chat("q", "a")) == (chat("q"), "a", "a")


def test_plain_texts_are_split_at_a_space():
    assert split_shared("It is bluish.", "It is blue.") == ("It is", " bluish.", " blue.")
    assert split_shared("It is", "It is") == ("It", " is", " is")
    assert split_shared("yes", "no") == ("", "yes", "no")
    assert split_shared("It is", "It is blue") == ("It", " is", " is blue")


def test_text_for_people():
    assert plain_text("Hi") == "Hi"
    assert plain_text(chat("Hi")) == "Hi"
    assert plain_text(chat("Hi", "Hello")) == "Human: Hi\n\nAssistant: Hello"


def test_prompts_that_differ_in_case_and_spaces_only_are_the_same():
    assert prompt_key("What  is it?\n") == prompt_key("what is IT?") == prompt_key(chat("What is it?"))
    assert prompt_key(chat("a", "b")) != prompt_key(chat("a b"))
