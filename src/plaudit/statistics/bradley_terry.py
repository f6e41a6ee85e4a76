"""Strengths of models or responses from wins: P(i beats j) = sigmoid(s_i - s_j) (Bradley and Terry 1952).

Use it where many players met in pairs and not every pair met: a share of wins would depend on who met whom.
"""

from __future__ import annotations

import numpy as np

from plaudit.statistics.resampling import Array

PRIOR = 0.1
"""Drawn games added to each pair that met: keeps the strength of an undefeated player finite."""
TOLERANCE = 1e-9
MOST_STEPS = 200
LONGEST_STEP = 1.0
"""Logits. A full Newton step can overshoot far where a player won nearly all games and the likelihood is flat."""
RIDGE = 1e-12
FARTHEST = 30.0
"""Strengths are kept within plus or minus this many logits where the maximum lies at infinity."""


def fit(wins: Array, prior: float = PRIOR) -> Array:
    """Maximum-likelihood strengths by Newton's method with bounded steps; the likelihood is concave.

    Args:
        wins: [..., players, players], how often row beat column; a tie is half a win for each. Leading
            dimensions are fitted side by side.
        prior: drawn games added to every pair who met, half a win for each side. With 0 the maximum exists
            only if no part of the players won all its games against the rest.

    Returns:
        Strengths [..., players] in logits, mean 0 over the players of each group who met, directly or through
        others. Strengths of players in different groups cannot be compared; one who never played has 0.

    >>> import numpy as np
    >>> strengths = fit(np.array([[0.0, 3.0], [1.0, 0.0]]), prior=0.0)
    >>> round(float(strengths[0] - strengths[1]), 4)  # log(3)
    1.0986
    """
    games = wins + np.swapaxes(wins, -1, -2)
    met = (games > 0).astype(np.float64)
    won = (wins + prior / 2 * met).sum(-1)
    games = games + prior * met
    mean = _group_mean(games)
    identity = np.eye(won.shape[-1])
    strength = np.zeros(won.shape)
    for _ in range(MOST_STEPS):
        p = 1 / (1 + np.exp(strength[..., None, :] - strength[..., :, None]))
        gradient = won - (games * p).sum(-1)
        bend = games * p * (1 - p)
        laplacian = identity * bend.sum(-1)[..., None] - bend
        # A shift of a whole group leaves every difference as it is, so the Laplacian is singular in that direction.
        # Adding the projector on the group's mean makes the system solvable and asks for a step of mean 0.
        step = np.linalg.solve(laplacian + mean + RIDGE * identity, gradient[..., None])[..., 0]
        longest = np.abs(step).max(-1, keepdims=True, initial=0.0)
        strength = strength + step * np.minimum(1.0, LONGEST_STEP / np.maximum(longest, LONGEST_STEP))
        strength = np.clip(strength - (mean @ strength[..., None])[..., 0], -FARTHEST, FARTHEST)
        if float(longest.max(initial=0.0)) < TOLERANCE:
            break
    return strength


def _group_mean(games: Array) -> Array:
    """[..., n, n] that turns strengths into the mean of each player's group: those met, even through others."""
    n = games.shape[-1]
    reach = (games > 0) | np.eye(n, dtype=bool)
    # Squaring doubles the length of the paths: log2(n) products find everybody who is connected. As matrices and
    # not as a search, because there is one for each bootstrap draw.
    for _ in range(max(1, n).bit_length()):
        reach = (reach.astype(np.float64) @ reach.astype(np.float64)) > 0
    return np.asarray(reach / reach.sum(-1, keepdims=True))


def connected(games: Array) -> list[list[int]]:
    """Groups of players who met, directly or through others, each in order.

    >>> import numpy as np
    >>> connected(np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]]))
    [[0, 2], [1]]
    """
    left = set(range(len(games)))
    groups = []
    while left:
        todo, group = [min(left)], set[int]()
        while todo:
            player = todo.pop()
            group.add(player)
            todo += [int(other) for other in np.flatnonzero(games[player]) if int(other) not in group]
        left -= group
        groups.append(sorted(group))
    return groups
