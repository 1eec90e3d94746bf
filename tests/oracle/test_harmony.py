"""gpt-oss prompts against openai-harmony: text and ids.

Sluice follows the published template, which differs from the library where tools or instructions
come in: the template ends instructions with an empty line, writes a parameter's comma behind its
default, "json" without <|constrain|> and tool results as JSON strings. Everything else is compared
here. The library wants its vocabulary as a file, which is written from the gpt-oss tokenizer.json
in ../shared/data/tokenizers (or $SLUICE_SHARED).
"""

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest

harmony = pytest.importorskip("openai_harmony")

ROOT = Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE", str(ROOT / "build/release/sluice"))
TOKENIZER = Path(os.environ.get("SLUICE_SHARED", ROOT.parent / "shared")) / "data/tokenizers/gptoss"
DATE = "2026-02-03"


@pytest.fixture(scope="module")
def encoding(tmp_path_factory):
    if not (TOKENIZER / "tokenizer.json").exists():
        pytest.skip(f"{TOKENIZER} is absent")
    if not os.path.exists(SLUICE):
        pytest.skip(f"{SLUICE} is not built")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    vocab = json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    folder = tmp_path_factory.mktemp("encodings")
    with open(folder / "o200k_base.tiktoken", "w") as out:
        for text, rank in sorted(vocab.items(), key=lambda item: item[1]):
            out.write(f"{base64.b64encode(bytes(byte_of[c] for c in text)).decode()} {rank}\n")
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(folder)
    return harmony.load_harmony_encoding(harmony.HarmonyEncodingName.HARMONY_GPT_OSS)


def theirs(encoding, chat):
    effort = harmony.ReasoningEffort[chat.get("reasoning_effort", "medium").upper()]
    system = harmony.SystemContent.new().with_reasoning_effort(effort).with_conversation_start_date(DATE)
    messages = [harmony.Message.from_role_and_content(harmony.Role.SYSTEM, system)]
    for message in chat["messages"]:
        role = harmony.Role.USER if message["role"] == "user" else harmony.Role.ASSISTANT
        made = harmony.Message.from_role_and_content(role, message["content"])
        messages.append(made.with_channel("final") if message["role"] == "assistant" else made)
    return encoding.render_conversation_for_completion(
        harmony.Conversation.from_messages(messages), harmony.Role.ASSISTANT
    )


def ours(chat, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt_oss"}')
    (tmp_path / "chat.json").write_text(json.dumps({"current_date": DATE, **chat}))
    text = subprocess.run(
        [SLUICE, "template", tmp_path, "--messages", tmp_path / "chat.json"], capture_output=True, check=True
    ).stdout.decode()
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": text}) + "\n")
    line = subprocess.run(
        [SLUICE, "tokenize", TOKENIZER, "--jsonl", tmp_path / "text.jsonl"], capture_output=True, check=True
    ).stdout
    return text, json.loads(line)["ids"]


@pytest.mark.parametrize(
    "chat",
    [
        {"messages": [{"role": "user", "content": "What is 2 + 2?"}]},
        {"messages": [{"role": "user", "content": "  ünï 日本 😀\n\n"}], "reasoning_effort": "low"},
        {
            "messages": [
                {"role": "user", "content": "One"},
                {"role": "assistant", "content": "Two.\n"},
                {"role": "user", "content": "Three"},
            ],
            "reasoning_effort": "high",
        },
    ],
)
def test_same_prompt(encoding, chat, tmp_path):
    ids = theirs(encoding, chat)
    text, our_ids = ours(chat, tmp_path)
    assert text == encoding.decode(ids)
    assert our_ids == ids
