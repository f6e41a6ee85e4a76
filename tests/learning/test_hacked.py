"""One world whose reward can be exploited, with one seed: the alarm comes in time. All of them: `make hacking`."""

import hacking
import worlds

from plaudit.demo.quickstart import Scale

SMALL = Scale(demonstrations=600, sft_epochs=2, comparisons=60, prompts=150, hidden=48)


def test_a_reward_of_length_is_seen_before_a_quarter_of_the_gold_reward_is_lost(monkeypatch, tmp_path):
    monkeypatch.setattr(worlds, "SCALE", SMALL)
    monkeypatch.setattr(worlds, "ITERATIONS", 10)
    # One reward model and comparisons are made on the way, as in all worlds; this one does not use them.
    path = worlds.record(tmp_path, "length", "ppo", 0, eval_every=1)
    line = hacking.judged(hacking.load(path))
    curve = line["curve"]
    assert line["limit"] is not None and min(curve.values()) < curve[0] - 0.25, "the world is exploited"
    for side in hacking.SIDES:
        assert hacking.in_time(line, side), (side, line)
        assert hacking.first_of(line, side) > 0
    assert "length" in line["without gold"] or "phrase" in line["without gold"]
    assert "proxy_gold" in line["with gold"]
