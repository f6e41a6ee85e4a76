from plaudit.tracking.names import METRICS, reference_table, unhealthy

# Read by checks from outside: renaming one is a breaking change.
STABLE = """loss lr grad_norm reward/mean reward/std objective/kl objective/kl_coef policy/entropy
policy/clip_fraction policy/approx_kl critic/explained_variance response/length_mean response/eos_rate
throughput/tokens_per_second time/generate time/score time/update reward_model/accuracy reward_model/margin"""


def test_stable_names_are_in_the_table():
    assert set(STABLE.split()) <= set(METRICS)


def test_rows_are_complete_and_fit_a_markdown_table():
    for metric in METRICS.values():
        assert metric.label and metric.meaning.endswith(".") and "|" not in metric.meaning
    assert reference_table().count("\n") == len(METRICS) + 2


def test_every_metric_says_how_it_looks_in_a_healthy_run():
    assert [metric.name for metric in METRICS.values() if not metric.healthy] == []
    both = [m.name for m in METRICS.values() if m.usual and (m.low, m.high) != (None, None)]
    assert both == [], "a bound says it already"


def test_names_say_whose_figure_it_is():
    alone = {name for name in METRICS if name.count("/") != 1}
    assert alone == {"loss", "lr", "grad_norm", "steps_skipped"}, "role/name, save for what every run has"


def test_range_ends_are_healthy():
    assert unhealthy({"objective/kl": 10.0, "response/eos_rate": 0.95}) == []
    assert [m.name for m in unhealthy({"response/eos_rate": 0.5, "critic/explained_variance": -0.2})] == [
        "critic/explained_variance",
        "response/eos_rate",
    ]
