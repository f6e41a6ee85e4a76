"""What a model card says of base and licence: followed from run to run, and from files that state it."""

import json

from gguf import GGUFReader

from plaudit.export.origin import Origin
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.stages.export import run_export

TEXTS = ["the film was good and bad and it's 1234 times better than others"] * 3


def chain(tmp_path, first):
    tokenizer = tiny_tokenizer(TEXTS, 400, kind="bpe")
    for name, key, before in (("sft", "model", first), ("ppo", "policy", str(tmp_path / "sft"))):
        save_causal_lm(tiny_lm("llama", tokenizer, hidden=64), tmp_path / name / "model", tokenizer)
        (tmp_path / name / "manifest.json").write_text(json.dumps({"settings": {key: before}, "inputs": {}}))
        (tmp_path / name / "summary.json").write_text(json.dumps({"command": name}))
    return str(tmp_path / "ppo")


def test_the_chain_of_runs_ends_in_a_directory_that_states_a_licence(tmp_path):
    tokenizer = tiny_tokenizer(TEXTS, 400, kind="bpe")
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=64), tmp_path / "base", tokenizer)
    (tmp_path / "base" / "SHA256SUMS").unlink()
    (tmp_path / "base" / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Base\nlicense: mit\n")
    run = chain(tmp_path, str(tmp_path / "base"))
    assert Origin.of(run) == Origin(("sft", "base"), "", "apache-2.0")
    assert Origin.of(f"{run}/model").bases == ("sft", "base")
    made = run_export(run, ["gguf:f16"], str(tmp_path / "out"))
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n") and "from `sft`, from `base`" in card
    assert str(tmp_path) not in card
    fields = GGUFReader(str(made.folder / "ppo-f16.gguf")).fields
    assert fields["general.license"].contents() == "apache-2.0"
    assert fields["general.base_model.0.name"].contents() == "base"
    # A GGUF file hands on what it states.
    assert Origin.of(str(made.folder / "ppo-f16.gguf")).licence == "apache-2.0"


def test_a_base_on_a_hub_is_named_and_a_licence_is_not_made_up(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = chain(tmp_path, "someone/their-model")
    assert Origin.of(run) == Origin(("sft", "someone/their-model"), "someone/their-model", "")
    card = (run_export(run, ["merged"], str(tmp_path / "out")).folder / "README.md").read_text(encoding="utf-8")
    assert "base_model: someone/their-model\n" in card and "license: unknown" in card and "look it up" in card
