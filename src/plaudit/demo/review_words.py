"""The words of the reviews: the things that are reviewed, their aspects, and what can be said about these.

Everything here is plain data. ``review_grammar`` holds the sentences and parses them, ``reviews`` writes texts, and
``review_score`` holds the known true preference.
"""

# Texts are drawn by index, so any word added, removed or moved changes the texts of all seeds, and with them every
# figure of the quickstart that the documentation shows.

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that is reviewed.

    Args:
        aspects: the nouns that belong to it; an opinion on any other noun is off topic.
        again: the verb phrase of a warm closing ("I would stay there again").
        venue: people go there; otherwise they buy it.
        named_after: the name follows the noun ("the film Aurora") instead of leading it ("the Aurora hotel").
    """

    noun: str
    aspects: tuple[str, ...]
    again: str
    venue: bool = True
    named_after: bool = False


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


THINGS = (
    Thing("hotel", ("room", "pool", "breakfast", "staff", "view"), "stay there again"),
    Thing("restaurant", ("soup", "pasta", "dessert", "waiters", "terrace"), "eat there again"),
    Thing("cafe", ("coffee", "cake", "sandwiches", "barista", "music"), "sit there again"),
    Thing("museum", ("paintings", "sculptures", "exhibits", "guide", "garden"), "visit it again"),
    Thing("concert", ("singer", "band", "drummer", "sound", "lights"), "hear them again"),
    Thing("film", ("plot", "ending", "dialogue", "soundtrack", "actors"), "watch it again", False, True),
    Thing("book", ("plot", "ending", "dialogue", "chapters", "characters"), "read it again", False, True),
    Thing("game", ("puzzles", "levels", "graphics", "controls", "soundtrack"), "play it again", False, True),
    Thing("phone", ("battery", "camera", "screen", "speaker", "design"), "buy it again", False),
    Thing("laptop", ("keyboard", "touchpad", "battery", "screen", "design"), "get it again", False),
)

PLURALS = _words(
    "staff waiters sandwiches paintings sculptures exhibits lights actors chapters characters puzzles levels "
    "graphics controls"
)

FAMILIES: dict[str, tuple[str, ...]] = {
    "space": ("room", "pool", "terrace", "garden"),
    "food": ("breakfast", "soup", "pasta", "dessert", "coffee", "cake", "sandwiches"),
    "host": ("staff", "waiters", "barista", "guide"),
    "artist": ("singer", "band", "drummer", "actors", "characters"),
    "story": ("plot", "ending", "dialogue", "chapters", "puzzles", "levels"),
    "sound": ("music", "sound", "soundtrack", "speaker"),
    "sight": ("view", "paintings", "sculptures", "exhibits", "lights", "graphics", "design"),
    "device": ("battery", "camera", "screen", "keyboard", "touchpad", "controls"),
}
"""Aspects grouped by the adjectives that make sense for them."""

FAMILY_ADJECTIVES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "space": (
        ("clean", "bright", "cosy", "spacious", "peaceful"),
        ("dirty", "dark", "noisy", "cramped", "shabby"),
    ),
    "food": (("fresh", "tasty", "delicious", "generous"), ("bland", "stale", "tasteless", "cold")),
    "host": (("friendly", "kind", "helpful", "attentive"), ("rude", "careless", "unhelpful", "grumpy")),
    "artist": (
        ("convincing", "charming", "natural", "gifted"),
        ("wooden", "stiff", "lifeless", "forgettable"),
    ),
    "story": (
        ("clever", "moving", "gripping", "original"),
        ("confusing", "predictable", "shallow", "tedious"),
    ),
    "sound": (("rich", "clear", "lively", "crisp"), ("harsh", "flat", "muffled", "shrill")),
    "sight": (("colourful", "elegant", "striking", "beautiful"), ("ugly", "faded", "crude", "dated")),
    "device": (("fast", "sharp", "reliable", "sturdy"), ("slow", "weak", "fragile", "unreliable")),
}
"""For each family, the adjectives that praise (level 0.8) and those that blame (level -0.8)."""

GENERAL_ADJECTIVES = {"great": 1.0, "lovely": 0.9, "good": 0.6, "poor": -0.6, "bad": -0.8, "awful": -1.0}
"""Adjectives that fit every aspect, with their level from -1 (blame) to 1 (praise)."""

VERDICTS = {
    "wonderful": 1.0,
    "superb": 1.0,
    "excellent": 1.0,
    "fantastic": 1.0,
    "good": 0.6,
    "nice": 0.6,
    "pleasant": 0.6,
    "decent": 0.2,
    "average": 0.0,
    "mediocre": -0.4,
    "disappointing": -0.7,
    "terrible": -1.0,
    "dreadful": -1.0,
    "awful": -1.0,
}
"""Adjectives of a verdict on the whole thing, with their level."""

FEELINGS = {
    "delighted": 1.0,
    "happy": 0.8,
    "pleased": 0.6,
    "bored": -0.6,
    "annoyed": -0.8,
    "disappointed": -0.7,
}
VERBS = {"loved": 1.0, "adored": 1.0, "enjoyed": 0.7, "liked": 0.6, "disliked": -0.7, "hated": -1.0}
INTENSIFIERS = {"very": 1.2, "really": 1.2, "so": 1.2, "quite": 0.8, "rather": 0.8}
"""Factors for the level of the adjective that follows."""

AUDIENCES = ("anyone", "everyone", "friends", "families", "students", "couples")
RELATIVES = ("sister", "brother", "mother", "father", "friend", "cousin", "neighbour", "colleague")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NAMES = _words(
    "Aurora Harbor Juniper Meridian Solstice Cascade Ember Willow Falcon Orchid Summit Lantern Compass "
    "Marigold Thistle Beacon"
)

PROMPTS = (
    "A short review of {np}:",
    "Write a short review of {np}.",
    "What did you think of {np}?",
    "Please review {np} in a few words.",
    "How was {np}?",
    "Tell us about {np}.",
    "A {relative} asks you about {np}:",
)

THING_BY_NOUN = {thing.noun: thing for thing in THINGS}
FAMILY_OF = {aspect: family for family, aspects in FAMILIES.items() for aspect in aspects}
ADJECTIVE_LEVELS: dict[str, dict[str, float]] = {
    family: {**dict.fromkeys(praise, 0.8), **dict.fromkeys(blame, -0.8), **GENERAL_ADJECTIVES}
    for family, (praise, blame) in FAMILY_ADJECTIVES.items()
}
"""Family of the aspect -> adjective that makes sense for it -> level."""
