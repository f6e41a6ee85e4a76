"""Trees of messages (Open Assistant): the ranked replies to each turn of a user become a ranking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow
from plaudit.data.reading.exports.shapes import ranked, turn

_USER = ("prompter", "user")
_KEPT = ("message_id", "parent_id", "message_tree_id", "text", "role", "rank", "deleted")

_ABOVE = "replies below a message that is missing, left out"


@dataclass(frozen=True, slots=True)
class _Node:
    item: Item
    id: str
    parent: str
    by_user: bool
    text: str
    rank: float | None


def flat(items: Sequence[Item]) -> list[tuple[Item, OwnRow]]:
    """One message a row, with `message_id`, `parent_id`, `text`, `role` and `rank`."""
    return _rows([node for item in items if (node := _node(item, item.label("parent_id"))) is not None])


def nested(items: Sequence[Item]) -> list[tuple[Item, OwnRow]]:
    """One tree a row: a message under `prompt`, with its `replies`, theirs, and so on."""
    nodes: list[_Node] = []
    for item in items:
        item.take("message_tree_id")
        nodes += _walk(item.item("prompt"), "")
    return _rows(nodes)


def _walk(item: Item, parent: str) -> Iterator[_Node]:
    # A list of what is left to visit and no recursion: a tree may be deeper than Python's limit.
    left = [(item, parent)]
    while left:
        item, parent = left.pop()
        node = _node(item, parent)
        if node is not None:
            yield node
            left += [(reply, node.id) for reply in reversed(item.items("replies"))]


def _node(item: Item, parent: str) -> _Node | None:
    for name in _KEPT:
        item.take(name)
    if item.peek("deleted") is True:
        item.log.leave_out("messages that were deleted, left out")
        item.dismiss()
        return None
    text, rank = item.content("text"), item.number("rank")
    return _Node(item, item.label("message_id"), parent, item.peek("role") in _USER, text, rank)


def _rows(nodes: Sequence[_Node]) -> list[tuple[Item, OwnRow]]:
    if not nodes:
        return []
    by_id = {node.id: node for node in nodes}
    replies: dict[str, list[_Node]] = {}
    for node in nodes:
        replies.setdefault(node.parent, []).append(node)
    log, rows, alone = nodes[0].item.log, [], 0
    for node in nodes:
        below = [reply for reply in replies.get(node.id, []) if not reply.by_user]
        if not node.by_user or not below:
            continue
        with_rank = [reply for reply in below if reply.rank is not None]
        if len(with_rank) < 2:
            alone += len(below)
            continue
        prompt = _path(node, by_id)
        if prompt is None:
            log.leave_out(_ABOVE, len(below))
            continue
        log.leave_out("replies without a rank among ranked ones, left out", len(below) - len(with_rank))
        row = {"id": node.id, "prompt": prompt}
        ranks = [reply.rank or 0.0 for reply in with_rank]
        rows += [(node.item, own) for own in ranked(row, [reply.text for reply in with_rank], ranks, node.item)]
    if not rows:
        return [(node.item, own) for node, own in _threads(nodes, by_id, replies)]
    log.leave_out("replies of the assistant that no other reply was ranked with, left out", alone)
    return rows


def _threads(
    nodes: Sequence[_Node], by_id: dict[str, _Node], replies: dict[str, list[_Node]]
) -> Iterator[tuple[_Node, OwnRow]]:
    """Data without ranks: each way from the first message to a last reply of the assistant, to be imitated."""
    nodes[0].item.log.note("no two replies are ranked: each conversation is a demonstration")
    for node in nodes:
        further = [reply for child in replies.get(node.id, []) for reply in replies.get(child.id, [])]
        if not node.by_user and not further:
            messages = _path(node, by_id)
            node.item.log.leave_out(_ABOVE, messages is None)
            if messages is not None:
                yield node, {"id": node.id, "messages": messages}


def _path(node: _Node, by_id: dict[str, _Node]) -> list[dict[str, Any]] | None:
    """The turns from the first message to this one; None if one is missing."""
    turns: list[dict[str, Any]] = []
    seen: set[str] = set()
    at: _Node | None = node
    while at is not None and at.id not in seen:
        seen.add(at.id)
        turns.insert(0, turn("user" if at.by_user else "assistant", at.text))
        if at.parent and at.parent not in by_id:
            return None
        at = by_id.get(at.parent)
    return turns
