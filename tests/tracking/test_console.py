import io

from rich.console import Console

from plaudit.tracking.console import ConsoleTracker, learning


def tracker(terminal=False, encoding="utf-8"):
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    return ConsoleTracker("ppo", Console(file=text, force_terminal=terminal, width=120, highlight=False)), raw


def test_a_file_gets_about_one_line_per_tenth():
    console, raw = tracker()
    console.expect(40, "iteration")
    for step in range(1, 41):
        console.metrics(step, {"reward/mean": -0.1 + step / 100, "objective/kl": 3.1})
    console.close()
    lines = raw.getvalue().decode().splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[-1].startswith("ppo: iteration 40/40 · reward +0.30 (was -0.09) · KL 3.1 nats")


def test_a_terminal_gets_a_live_bar_with_the_same_line():
    console, raw = tracker(terminal=True)
    console.expect(2, "iteration")
    console.metrics(1, {"reward/mean": 0.25})
    console.metrics(2, {"reward/mean": 0.35})
    console.close()
    assert "iteration 2/2 · reward +0.35 (was +0.25)" in raw.getvalue().decode()


def test_alarms_are_shown_and_markup_in_them_is_text():
    console, raw = tracker()
    console.event("alarm", {"message": "KL [red]12[/red] nats"})
    console.event("saved", {"step": 1})
    console.event("no step", {"step": 2, "message": "iteration 2 took no step: no pair"})
    shown = ["ppo: alarm: KL [red]12[/red] nats", "ppo: iteration 2 took no step: no pair"]
    assert raw.getvalue().decode().splitlines() == shown


def test_resuming_and_rolling_back_are_said_in_words():
    console, raw = tracker()
    console.expect(50, "iteration")
    console.event("resumed", {"step": 30, "lines_recorded_again": 2})
    console.event("rolled back", {"step": 20, "why": "it ended below its start"})
    said = ["ppo: resumed after iteration 30", "ppo: put back to iteration 20: it ended below its start"]
    assert raw.getvalue().decode().splitlines() == said


def test_an_output_without_unicode_does_not_stop_the_run():
    console, raw = tracker(encoding="ascii")
    console.metrics(1, {"loss": 2.0})
    assert b"loss 2.00" in raw.getvalue()


def test_words_for_each_kind_of_run():
    assert learning({"loss": 2.31}, {"loss": 1.02}) == ["loss 2.31 → 1.02"]
    assert learning({}, {"reward_model/accuracy": 0.7}) == ["accuracy 70 %"]
    both = {"reward_model/heldout_accuracy": 0.66, "reward_model/accuracy": 0.9}
    assert learning({}, both) == ["held-out accuracy 66 %"]
    assert learning({}, {"my/metric": 1.0}) == []


def test_gold_stands_in_the_line_between_its_evaluations_too():
    console, raw = tracker()
    console.expect(2, "iteration")
    console.metrics(1, {"reward/mean": 0.5, "eval/gold_mean": 0.1, "objective/kl": 0.2})
    console.metrics(2, {"reward/mean": 0.9, "objective/kl": 0.3})
    assert "reward +0.90 (was +0.50) · gold +0.10 · KL 0.3 nats" in raw.getvalue().decode().splitlines()[-1]


def test_what_it_was_is_the_start_of_the_run_and_not_its_first_evaluation_nor_that_of_a_resumed_process():
    console, raw = tracker()
    console.expect(2, "iteration")
    console.start({"eval/gold_mean": -0.04})
    console.metrics(1, {"reward/mean": 0.5, "eval/gold_mean": -0.27})
    assert "gold -0.27 (was -0.04)" in raw.getvalue().decode().splitlines()[-1]
    console.rewind(1)
    console.start({"reward/mean": 0.08, "eval/gold_mean": -0.27})
    console.start({"eval/gold_mean": -0.04})
    console.metrics(2, {"reward/mean": 0.9, "eval/gold_mean": -0.19})
    assert "reward +0.90 (was +0.08) · gold -0.19 (was -0.04)" in raw.getvalue().decode().splitlines()[-1]
