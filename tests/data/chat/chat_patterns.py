"""Small chat templates in the patterns of well-known families, and tokenizers of the kinds that they come with.

Each was written for these tests after the published format of a family: who opens a turn how, what ends it, what is
trimmed, and what becomes of thoughts, calls and tools.
"""

# ruff: noqa: E501

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Pattern:
    template: str
    eos: str = "</s>"
    bos: str | None = "<s>"
    adds_bos: bool = False
    markers: tuple[str, ...] = ()
    """Added as special tokens."""
    plain_markers: tuple[str, ...] = ()
    """Added, but not special."""
    end: str = ""
    """What ends a turn; empty: the eos."""


def turns(before: str, after: str, opening: str, *, start: str = "", content: str = "{{ m.content }}") -> str:
    """A template that writes each turn the same way; ``{{ m.role }}`` may stand in what comes before."""
    return (
        f"{start}{{% for m in messages %}}{before}{content}{after}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{opening}{{% endif %}}"
    )


ONLY_TWO = (
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no ' + m.role) }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}"
)
CALLS = (
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}"
)
TOOLS = "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
THINK = "<think>\n"
INNER = "{{ m.content.split('</think>')[-1].lstrip('\n') }}"
QWEN3_THOUGHTS = (
    "{% set t = namespace(r=m.reasoning_content or '', c=m.content) %}{% if '</think>' in m.content %}"
    "{% set t.r = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set t.c = m.content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)


def qwen3(*, always: bool, opening: str) -> str:
    """Thoughts of the last turn only; ``always``: an empty one is written too."""
    shown = "loop.last" if always else "loop.last and t.r"
    return (
        TOOLS + "{% for m in messages %}{% if m.role == 'assistant' %}" + QWEN3_THOUGHTS + "<|im_start|>assistant\n"
        "{% if " + shown + " %}<think>\n{{ t.r.strip('\n') }}\n</think>\n\n{% endif %}{{ t.c }}" + CALLS + "<|im_end|>\n"
        "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n" + opening + "{% endif %}"
    )


CHATML = turns("<|im_start|>{{ m.role }}\n", "<|im_end|>\n", "<|im_start|>assistant\n")
LLAMA2 = (
    "{% set ns = namespace(sys='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.sys = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}"
    "{% elif m.role == 'user' %}{{ bos_token + '[INST] ' + (ns.sys + m.content).strip() + ' [/INST]' }}{% set ns.sys = '' %}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL3 = (
    "{{ bos_token }}{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
    "{% elif m.role == 'system' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}]{{ eos_token }}"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
HARMONY = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.thinking and loop.last %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}<|start|>assistant to=functions.{{ c.function.name }}<|channel|>"
    "commentary json<|message|>{{ c.function.arguments | tojson }}<|call|>{% endfor %}"
    "{% else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% endif %}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% elif m.role == 'assistant' %}"
    "<|Assistant|>{{ m.content.split('</think>')[-1] }}"
    "{% for c in m.tool_calls or [] %}<|call|>{{ c.function.name + ' ' + c.function.arguments }}<|endcall|>{% endfor %}"
    "<|eos|>{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|>"
)
SPOKEN = "{{ {'user': 'USER', 'assistant': 'ASSISTANT', 'system': 'SYSTEM', 'tool': 'TOOL'}[m.role] }}"
HEADER = "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
LLAMA3 = turns(
    HEADER, "{{ '<|eom_id|>' if m.tool_calls else '<|eot_id|>' }}",
    "<|start_header_id|>assistant<|end_header_id|>\n\n", start="{{ bos_token }}",
    content="{{ m.content | trim }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}",
)  # fmt: skip
L3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>")
COHERE = ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")
COHERE_ROLES = "{'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}.get(m.role, '<|SYSTEM_TOKEN|>')"
BARS = ("<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", "<|end|>", "<|endoftext|>")
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

PATTERNS: dict[str, Pattern] = {
    "chatml": Pattern(CHATML, markers=IM, end="<|im_end|>"),
    "chatml, end not special": Pattern(CHATML, plain_markers=IM, end="<|im_end|>"),
    "qwen2.5": Pattern(
        TOOLS + turns("<|im_start|>{{ m.role }}\n", "<|im_end|>\n", "<|im_start|>assistant\n", content="{{ m.content }}" + CALLS),
        eos="<|im_end|>", bos=None, markers=IM, plain_markers=("<tool_call>", "</tool_call>"), end="<|im_end|>",
    ),
    "qwen3": Pattern(qwen3(always=True, opening=""), eos="<|im_end|>", bos=None, markers=IM,
                     plain_markers=("<think>", "</think>", "<tool_call>", "</tool_call>"), end="<|im_end|>"),
    "qwen3, thoughts if any": Pattern(qwen3(always=False, opening=""), eos="<|im_end|>", bos=None, markers=IM, end="<|im_end|>"),
    "qwen3-thinking": Pattern(qwen3(always=True, opening=THINK), eos="<|im_end|>", bos=None, markers=IM,
                              plain_markers=("<think>", "</think>"), end="<|im_end|>"),
    "qwq": Pattern(turns("<|im_start|>{{ m.role }}\n", "<|im_end|>\n", "<|im_start|>assistant\n" + THINK, content=INNER),
                   eos="<|im_end|>", bos=None, markers=IM, end="<|im_end|>"),
    "chatml, opens thoughts": Pattern(turns("<|im_start|>{{ m.role }}\n", "<|im_end|>\n", "<|im_start|>assistant\n" + THINK),
                                      markers=IM, end="<|im_end|>"),
    "llama2": Pattern(LLAMA2, adds_bos=True),
    "llama3": Pattern(LLAMA3, eos="<|eot_id|>", bos="<|begin_of_text|>", adds_bos=True, markers=L3, end="<|eot_id|>"),
    "llama3, eos of texts": Pattern(LLAMA3, eos="<|end_of_text|>", bos="<|begin_of_text|>", adds_bos=True, markers=L3,
                                    end="<|eot_id|>"),
    "mistral v0.1": Pattern("{{ bos_token }}" + ONLY_TWO + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}"
                            "{{ m.content + eos_token }}{% endif %}{% endfor %}", adds_bos=True),
    "mistral v0.3": Pattern(MISTRAL3, adds_bos=True, markers=("[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
                            "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]")),
    "gemma": Pattern(GEMMA, eos="<eos>", bos="<bos>", adds_bos=True, markers=("<start_of_turn>", "<end_of_turn>"),
                     end="<end_of_turn>"),
    "phi3": Pattern(turns("<|{{ m.role }}|>\n", "<|end|>\n", "<|assistant|>\n"), eos="<|endoftext|>", markers=BARS, end="<|end|>"),
    "phi4-mini": Pattern("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
                         "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}",
                         eos="<|endoftext|>", markers=BARS, end="<|end|>"),
    "zephyr": Pattern(turns("<|{{ m.role }}|>\n", "{{ eos_token }}\n", "<|assistant|>\n")),
    "tulu": Pattern("{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token if m.role == 'assistant' }}"
                    "{{ '\n' if not loop.last or m.role != 'assistant' }}{% endfor %}"
                    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"),
    "vicuna": Pattern("{% for m in messages %}" + SPOKEN + ": {{ m.content }}{{ eos_token if m.role == 'assistant' else ' ' }}"
                      "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}", adds_bos=True),
    "vicuna, no end": Pattern("{% for m in messages %}" + SPOKEN + ": {{ m.content }}\n{% endfor %}"
                              "{% if add_generation_prompt %}ASSISTANT:{% endif %}", adds_bos=True),
    "alpaca": Pattern("{% for m in messages %}{% if m.role == 'assistant' %}### Response:\n{{ m.content }}\n\n{% else %}"
                      "### Instruction:\n{{ m.content }}\n\n{% endif %}{% endfor %}"
                      "{% if add_generation_prompt %}### Response:\n{% endif %}"),
    "command-r": Pattern(turns("<|START_OF_TURN_TOKEN|>{{ " + COHERE_ROLES + " }}", "<|END_OF_TURN_TOKEN|>",
                               "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", start="{{ bos_token }}", content="{{ m.content.strip() }}"),
                         eos="<|END_OF_TURN_TOKEN|>", bos="<BOS_TOKEN>", adds_bos=True, markers=COHERE, end="<|END_OF_TURN_TOKEN|>"),
    "cohere2": Pattern("{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>{{ " + COHERE_ROLES + " }}"
                       "{% if m.role == 'assistant' %}<|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>{% else %}{{ m.content }}"
                       "{% endif %}<|END_OF_TURN_TOKEN|>{% endfor %}"
                       "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
                       eos="<|END_OF_TURN_TOKEN|>", bos="<BOS_TOKEN>", adds_bos=True,
                       markers=(*COHERE, "<|START_RESPONSE|>", "<|END_RESPONSE|>"), end="<|END_OF_TURN_TOKEN|>"),
    "deepseek v2": Pattern("{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n\n"
                           "{% elif m.role == 'assistant' %}Assistant: {{ m.content }}{{ eos_token }}{% else %}{{ m.content }}\n\n"
                           "{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}", eos="<|eos|>", adds_bos=True),
    "deepseek r1": Pattern(DEEPSEEK + THINK + "{% endif %}", eos="<|eos|>", adds_bos=True,
                           markers=("<|User|>", "<|Assistant|>", "<|call|>", "<|endcall|>"), plain_markers=("<think>", "</think>")),
    "deepseek r1, not opened": Pattern(DEEPSEEK + "{% endif %}", eos="<|eos|>", adds_bos=True,
                                       markers=("<|User|>", "<|Assistant|>", "<|call|>", "<|endcall|>")),
    "deepseek v3.1": Pattern(DEEPSEEK.replace("<|Assistant|>{{ m.content", "<|Assistant|></think>{{ m.content")
                             + "{{ '<think>' if thinking else '</think>' }}{% endif %}", eos="<|eos|>", adds_bos=True,
                             markers=("<|User|>", "<|Assistant|>", "<|call|>", "<|endcall|>")),
    "gpt-oss": Pattern(HARMONY, eos="<|return|>", bos=None, end="<|return|>",
                       markers=("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>")),
    "smollm2": Pattern(CHATML, eos="<|im_end|>", bos="<|im_start|>", markers=IM, end="<|im_end|>"),
    "smollm3, no thoughts": Pattern(turns("<|im_start|>{{ m.role }}\n", "<|im_end|>\n",
                                          "<|im_start|>assistant\n<think>\n\n</think>\n"), markers=IM, end="<|im_end|>"),
    "olmo": Pattern("{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
                    "{{ eos_token if m.role == 'assistant' }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
                    eos="<|endoftext|>", bos="<|endoftext|>"),
    "falcon": Pattern("{% for m in messages %}{{ 'Falcon' if m.role == 'assistant' else m.role | capitalize }}: {{ m.content }}\n"
                      "{% endfor %}{% if add_generation_prompt %}Falcon:{% endif %}", eos="<|endoftext|>", bos=None),
    "granite": Pattern(turns("<|start_of_role|>{{ m.role }}<|end_of_role|>", "<|end_of_text|>\n",
                             "<|start_of_role|>assistant<|end_of_role|>"), eos="<|end_of_text|>", bos="<|end_of_text|>",
                       markers=("<|start_of_role|>", "<|end_of_role|>")),
    "glm-4": Pattern("[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
                     "{% if add_generation_prompt %}<|assistant|>\n{% endif %}", eos="<|endoftext|>", bos=None,
                     markers=("<|user|>", "<|assistant|>", "<|system|>", "<|observation|>", "[gMASK]", "<sop>")),
    "yi": Pattern(turns("<|im_start|>{{ m.role }}\n", "<|im_end|>\n", "<|im_start|>assistant\n"), eos="<|endoftext|>",
                  markers=IM, end="<|im_end|>"),
    "internlm2": Pattern(turns("<|im_start|>{{ m.role }}\n", "<|im_end|>\n", "<|im_start|>assistant\n", start="{{ bos_token }}"),
                         adds_bos=True, markers=IM, end="<|im_end|>"),
    "starchat": Pattern(turns("<|{{ m.role }}|>\n", "<|end|>\n", "<|assistant|>\n"), eos="<|endoftext|>", bos="<|endoftext|>",
                        markers=BARS, end="<|end|>"),
    "nemotron": Pattern(turns("<SPECIAL_10>{{ m.role | capitalize }}\n", "{{ '\n<SPECIAL_12>' if m.role == 'assistant' }}\n",
                              "<SPECIAL_10>Assistant\n"), markers=("<SPECIAL_10>", "<SPECIAL_12>"), end="<SPECIAL_12>"),
    "minicpm": Pattern("{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content | trim }}<AI>"
                       "{% else %}{{ m.content | trim }}{{ eos_token if m.role == 'assistant' }}{% endif %}{% endfor %}", adds_bos=True),
    "no opening": Pattern("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
                          markers=IM, end="<|im_end|>"),
    "end of several tokens": Pattern(turns("{{ m.role }}: ", "[END OF TURN]\n", "assistant: ")),
    "parts": Pattern("{% for m in messages %}<|{{ m.role }}|>{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}"
                     "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}", markers=BARS, end="<|end|>"),
}  # fmt: skip

CORPUS = [
    "hello world how are you user assistant system human response instruction the weather in a town is rain and sun",
    "I am fine. It is 12 degrees. {\"town\": \"Ulm\"} name arguments call think thoughts first",
    "[INST] Hi [/INST] I am fine.",
]  # fmt: skip
KINDS = ("bytes", "llama legacy", "metaspace first", "metaspace always", "unigram")


@functools.cache
def tokenizer_of(name: str, kind: str = "bytes") -> PreTrainedTokenizerFast:
    """A tokenizer of a kind with the markers and the template of a pattern."""
    pattern = PATTERNS[name]
    ends = [token for token in (pattern.bos, pattern.eos) if token]
    specials = list(dict.fromkeys((*ends, "<pad>", *pattern.markers)))
    tokenizer = make_tokenizer(kind, specials, pattern.plain_markers, pattern.bos if pattern.adds_bos else None,
                               bos_token=pattern.bos, eos_token=pattern.eos, pad_token="<pad>")  # fmt: skip
    tokenizer.chat_template = pattern.template
    return tokenizer


def make_tokenizer(
    kind: str, specials: list[str], plain: tuple[str, ...] = (), first: str | None = None, **named: str | None
) -> PreTrainedTokenizerFast:
    """A small tokenizer: bytes (Llama-3, GPT-2), or in the manner of SentencePiece with its several marks of spaces."""
    core = _bytes(specials) if kind == "bytes" else _sentencepiece(kind, specials)
    if first:
        core.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, core.token_to_id(first))]
        )
    extra = [token for token in specials if token not in named.values()]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, extra_special_tokens=extra,
        **{name: token for name, token in named.items() if token},
    )  # fmt: skip
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return tokenizer


def _bytes(specials: list[str]) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS * 3, trainer)
    return core


def _sentencepiece(kind: str, specials: list[str]) -> Tokenizer:
    given, byte_tokens = ["<unk>", *specials], [f"<0x{i:02X}>" for i in range(256)]
    model: models.Model
    if kind == "unigram":
        lines = [line.replace(" ", "▁") for line in CORPUS]
        words = {"▁" + word for line in CORPUS for word in line.split()}
        letters = set("".join(lines)) - words
        scored = [(t, 0.0) for t in (*given, *byte_tokens)] + [(w, -4.0) for w in sorted(words)]
        model = models.Unigram([*scored, *((c, -8.0) for c in sorted(letters))], unk_id=0, byte_fallback=True)
    else:
        # Trained without the tokens of bytes, which no trainer makes ordinary tokens.
        model = models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
        core = _with_spaces(Tokenizer(model), kind)
        trainer = trainers.BpeTrainer(vocab_size=180, special_tokens=given, show_progress=False)
        core.train_from_iterator(CORPUS * 3, trainer)
        learned = json.loads(core.to_str())["model"]
        vocabulary = learned["vocab"] | {t: len(learned["vocab"]) + i for i, t in enumerate(byte_tokens)}
        merges = [tuple(pair) for pair in learned["merges"]]
        model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    core = _with_spaces(Tokenizer(model), kind)
    core.add_special_tokens(specials)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return core


def _with_spaces(core: Tokenizer, kind: str) -> Tokenizer:
    if kind == "llama legacy":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        scheme = "always" if kind == "metaspace always" else "first"
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=kind != "metaspace first")
    return core
