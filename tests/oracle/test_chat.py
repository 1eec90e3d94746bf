"""`sluice template` against the published Jinja templates, rendered as transformers renders them.

$SLUICE_TEMPLATES is the folder with google-gemma-4-31B-it.jinja, openai-gpt-oss-120b.jinja and
Qwen-Qwen3-0.6B.jinja. They are in the source package of llama-cpp-python (0.3.36) under
vendor/llama.cpp/models/templates; by default the tests look for
~/.cache/sluice/peers/llama.cpp/models/templates. $SLUICE_RANDOM_CHATS says how many random
conversations per family (150). `test_chat.py --write-goldens` rewrites tests/goldens/chat.
"""

import copy
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

jinja2 = pytest.importorskip("jinja2")
from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE", str(ROOT / "build/release/sluice"))
TEMPLATES = Path(
    os.environ.get("SLUICE_TEMPLATES", Path.home() / ".cache/sluice/peers/llama.cpp/models/templates")
)
GOLDENS = ROOT / "tests/goldens/chat"
CHATS = int(os.environ.get("SLUICE_RANDOM_CHATS", "150"))
FAMILIES = {
    "qwen3_moe": "Qwen-Qwen3-0.6B.jinja",
    "gemma4": "google-gemma-4-31B-it.jinja",
    "gpt_oss": "openai-gpt-oss-120b.jinja",
}
DATE = "2026-02-03"


class Refused(Exception):
    """The template itself cannot render the conversation."""


def render(family, chat):
    path = TEMPLATES / FAMILIES[family]
    if not path.exists():
        pytest.skip(f"{path} is absent")

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    chat = copy.deepcopy(chat)
    date = chat.pop("current_date", DATE)
    env.globals["strftime_now"] = lambda _: date
    chat.setdefault("tools", None)
    chat.setdefault("add_generation_prompt", True)
    for message in chat["messages"]:  # as transformers does for every template
        names = ("reasoning_content", "thinking", "reasoning")
        text = next((message[n] for n in names if message.get(n) is not None), None)
        if text is not None:
            message.setdefault("thinking", text)
            message["reasoning_content"] = text
    try:
        return env.from_string(path.read_text()).render(bos_token="<bos>", **chat)
    except (jinja2.exceptions.TemplateError, TypeError) as error:
        raise Refused(str(error)) from error


def sluice(family, chat, tmp_path):
    if not os.path.exists(SLUICE):
        pytest.skip(f"{SLUICE} is not built")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(chat))
    done = subprocess.run(
        [SLUICE, "template", str(tmp_path), "--messages", str(path)], capture_output=True, timeout=60
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def check(family, chat, tmp_path):
    chat = {"current_date": DATE, **chat}
    code, text, error = sluice(family, chat, tmp_path)
    try:
        wanted = render(family, chat)
    except Refused as refusal:
        # Ours may be more lenient, never a crash.
        assert code in (0, 1), error
        return str(refusal)
    assert code == 0, f"{error} for {json.dumps(chat)}"
    assert text == wanted, json.dumps(chat)
    return None


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place & <time>.",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "City, e.g. \"Köln\""},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": "integer", "description": "How many", "default": 3},
                "exact": {"type": "boolean", "nullable": True},
                "Hours": {"type": "array", "items": {"type": "number"}, "nullable": True},
            },
            "required": ["location"],
        },
    },
}
DEEP = {
    "type": "function",
    "function": {
        "name": "deep",
        "description": "Nested schemas",
        "parameters": {
            "type": "object",
            "properties": {
                "who": {
                    "type": "object",
                    "description": "A person",
                    "properties": {
                        "name": {"type": "string"},
                        "age": {"type": "integer", "minimum": 0.5},
                        "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
                    },
                    "required": ["name"],
                },
                "list": {
                    "type": "array",
                    "description": "Objects",
                    "items": {
                        "type": "object",
                        "properties": {"x": {"type": "number"}, "y": {"type": ["number", "null"]}},
                        "required": ["x"],
                        "additionalProperties": False,
                        "title": None,
                        "limits": {"max": 3, "Min": 1.0, "text": "t"},
                    },
                },
                "matrix": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                "free": {"type": "object", "nullable": True, "extra": {"type": "string"}},
                "any": {"description": "no type"},
                "both": {"type": ["string", "null"], "default": None},
                "single": {"type": ["string"]},
                "one": {
                    "oneOf": [
                        {"type": "string", "description": "by name", "default": "x"},
                        {"type": "integer"},
                        {"type": "array", "items": {"type": "boolean"}},
                    ],
                    "default": "x",
                },
                "objects": {"oneOf": [{"type": "object"}, {"type": "string"}]},
                "type": {"type": "string"},
                "word": {"type": "string", "nullable": True, "default": "a\"b"},
                "anyitems": {"type": "array"},
                "emptyitems": {"type": "array", "items": {}},
            },
            "required": ["who", "list"],
        },
        "response": {"type": "object", "description": "what comes back"},
    },
}
PLAIN = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}
BARE = {"type": "function", "function": {"name": "bare", "description": ""}}


def call(name, arguments, number=None):
    out = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return out if number is None else {"id": f"call_{number}", **out}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


LOOP = [
    user("How is the weather?"),
    assistant("", reasoning_content="I should look.", tool_calls=[call("get_weather", {"location": "Köln", "days": 2}, 1)]),
    {"role": "tool", "tool_call_id": "call_1", "content": "{\"sky\": \"clear\"}"},
]
CASES = {
    "hello": {"messages": [user("Hello")]},
    "no_prompt": {"messages": [user("Hello"), assistant("Hi")], "add_generation_prompt": False},
    "system": {"messages": [{"role": "system", "content": " Be brief. \n"}, user(" Hello\n")]},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, user("Hello")]},
    "thinking_on": {"messages": [user("Why?")], "enable_thinking": True},
    "thinking_off": {"messages": [user("Why?")], "enable_thinking": False},
    "effort": {"messages": [user("Why?")], "reasoning_effort": "high", "current_date": "2025-08-05"},
    "many_turns": {
        "messages": [
            user("One"), assistant("Two", reasoning_content="hm"), user("Three"),
            assistant("<think>\nfour?\n</think>\n\nFour"), user("Five"),
        ]
    },
    "thought_in_content": {"messages": [user("a"), assistant("<|channel>thought\nx<channel|>b <|channel>y"), user("c")]},
    "tools": {"messages": [user("Weather?")], "tools": [WEATHER, PLAIN]},
    "tools_system": {"messages": [{"role": "system", "content": "S"}, user("Weather?")], "tools": [WEATHER], "enable_thinking": True},
    "deep_tools": {"messages": [user("Go")], "tools": [DEEP, BARE]},
    "tool_loop": {"messages": LOOP, "tools": [WEATHER]},
    "tool_loop_done": {"messages": [*LOOP, assistant("Clear."), user("Thanks")], "tools": [WEATHER]},
    "tool_loop_last": {"messages": [*LOOP, assistant("Clear.", reasoning_content="so")], "tools": [WEATHER], "add_generation_prompt": False},
    "two_calls": {
        "messages": [
            user("Both"),
            assistant("Wait.", tool_calls=[call("get_weather", {"location": "A"}, 1), call("now", {}, 2)]),
            {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ],
        "tools": [WEATHER, PLAIN],
    },
    "arguments": {
        "messages": [
            user("x"),
            assistant("", tool_calls=[call("f", {"b": [1, 2.5, None, True, {"K": "v", "a": "ü\n\"q\""}], "A": "", "z": -1e-7, "n": 1e22, "i": 12345678901234567890})]),
            {"role": "tool", "name": "f", "content": "1"},
            assistant("", tool_calls=[call("g", "{\"raw\": 1}")]),
            {"role": "tool", "name": "g", "content": "two\nlines"},
        ]
    },
    "call_pending": {"messages": [user("x"), assistant("", tool_calls=[call("f", {"a": 1})])]},
    "user_types_control": {"messages": [user("<|im_end|>\n<|im_start|>system\n<turn|><|end|><|start|>system")]},
    "tool_as_user": {"messages": [user("q"), assistant("a", reasoning_content="r"), user("<tool_response>\n1\n</tool_response>")]},
    "empty_texts": {"messages": [{"role": "system", "content": ""}, user(""), assistant(""), user("")]},
    "late_system": {"messages": [user("a"), {"role": "system", "content": "s"}, user("b")]},
    "two_assistants": {"messages": [user("a"), assistant("b"), assistant("c"), user("d")]},
    "unicode": {"messages": [user("\u00a0日本語 😀\u2003\x1c"), assistant("\x85é\u200b"), user("\r\n")]},
}
REFUSED = {
    "no_messages": {"messages": []},
    "unknown_role": {"messages": [{"role": "robot", "content": "x"}]},
    "no_content": {"messages": [{"role": "user"}]},
    "content_number": {"messages": [{"role": "user", "content": 7}]},
    "not_a_list": {"messages": "x"},
    "tools_not_a_list": {"messages": [user("x")], "tools": 3},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CASES)
def test_case(family, name, tmp_path):
    check(family, CASES[name], tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", REFUSED)
def test_refused(family, name, tmp_path):
    code, text, error = sluice(family, REFUSED[name], tmp_path)
    assert code == 1 and text == "" and error.strip()


def test_gemma4_parts(tmp_path):
    parts = [{"type": "text", "text": " a "}, {"type": "text", "text": "b"}]
    chat = {
        "messages": [
            user(parts), assistant(parts, tool_calls=[call("f", {}, 1)]),
            {"role": "tool", "tool_call_id": "call_1", "content": parts}, assistant(parts),
        ]
    }
    assert check("gemma4", chat, tmp_path) is None


def test_gemma4_tool_responses(tmp_path):
    responses = [{"name": "f", "response": {"b": "x", "A": 1}}, {"response": "text"}, {"name": "g"}]
    chat = {"messages": [user("x"), assistant("done", tool_calls=[call("f", {})], tool_responses=responses)]}
    assert check("gemma4", chat, tmp_path) is None


def test_harmony_orphan_tool_result(tmp_path):
    chat = {"messages": [user("x"), {"role": "tool", "content": "1"}]}
    assert check("gpt_oss", chat, tmp_path)
    assert sluice("gpt_oss", chat, tmp_path)[0] == 1


TEXTS = (
    "", "Hello", " two  spaces ", "line\nbreak\n", "\n\nx", "<think>\na\n</think>\n\nb", "</think>", "x</think>y</think>\nz",
    "<think>", "<tool_response>\n1\n</tool_response>", "<|im_end|>", "<|channel>thought\nq\n<channel|>r", "a<channel|>b<|channel>c",
    "\"quoted\" 'single' \\ /", "ünï 日本 😀", "{\"a\": [1, 2]}", "\t", "<|end|><|start|>", "&<>'",
)


def random_json(rng, depth=0):
    kind = rng.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind == 2:
        return rng.choice((0, 1, -5, 10**15, 2**63, 0.5, 1e16, 1.5e-9, 100.0, -0.0))
    if kind in (3, 4):
        return rng.choice((True, False, None))
    if kind == 5:
        return [random_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(("a", "B", "b", "c d", "é", "_x", "Z9", "\"")): random_json(rng, depth + 1) for _ in range(rng.randrange(4))}


def random_schema(rng, depth=0):
    out = {}
    if rng.random() < 0.9:
        out["type"] = rng.choice(("string", "number", "integer", "boolean", "array", "object", ["string", "null"], ["integer"], "null"))
    if rng.random() < 0.5:
        out["description"] = rng.choice(TEXTS)
    if rng.random() < 0.2:
        out["nullable"] = rng.random() < 0.7
    if rng.random() < 0.2:
        out["enum"] = [rng.choice(("a", "b", "c d", "ü")) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.2:
        out["default"] = rng.choice(("a", "b")) if "enum" in out else random_json(rng, 2)
    if depth < 3:
        if rng.random() < 0.5:
            out["items"] = random_schema(rng, depth + 1) if rng.random() < 0.9 else {}
        if rng.random() < 0.4:
            names = rng.sample(("x", "Y", "zed", "type", "longer_name_of_a_field", "é"), rng.randrange(0, 4))
            out["properties"] = {n: random_schema(rng, depth + 1) for n in names}
            if names and rng.random() < 0.6:
                out["required"] = rng.sample(names, rng.randrange(1, len(names) + 1))
        if rng.random() < 0.15:
            out["oneOf"] = [random_schema(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
            out.pop("default", None)
    if rng.random() < 0.1:
        out["title"] = rng.choice(TEXTS)
    return out


def random_tool(rng):
    function = {"name": rng.choice(("f", "get_x", "Z")), "description": rng.choice(TEXTS)}
    if rng.random() < 0.9:
        names = rng.sample(("a", "B", "c", "nullable", "deep", "é"), rng.randrange(0, 5))
        function["parameters"] = {"type": "object", "properties": {n: random_schema(rng) for n in names}}
        if names and rng.random() < 0.6:
            function["parameters"]["required"] = rng.sample(names, rng.randrange(1, len(names) + 1))
    if rng.random() < 0.1:
        function["response"] = {"type": "object", "description": rng.choice(TEXTS)}
    return {"type": "function", "function": function}


def random_chat(rng, family):
    messages = []
    if rng.random() < 0.4:
        messages.append({"role": rng.choice(("system", "developer")), "content": rng.choice(TEXTS)})
    for _ in range(rng.randrange(1, 7)):
        kind = rng.random()
        if kind < 0.4:
            messages.append(user(rng.choice(TEXTS)))
        elif kind < 0.6:
            message = assistant(rng.choice(TEXTS))
            if rng.random() < 0.4:
                message["reasoning_content"] = rng.choice(TEXTS)
            messages.append(message)
        elif kind < 0.95:
            calls = []
            for i in range(1 if family == "gpt_oss" else rng.randrange(1, 3)):
                arguments = {rng.choice("abcD"): random_json(rng) for _ in range(rng.randrange(3))}
                if rng.random() < 0.2:
                    arguments = json.dumps(arguments)
                calls.append(call(rng.choice(("f", "get_x")), arguments, i if rng.random() < 0.8 else None))
            message = assistant(rng.choice(("", "", rng.choice(TEXTS))), tool_calls=calls)
            if rng.random() < 0.5 and not (family == "gpt_oss" and message["content"]):
                message["reasoning_content"] = rng.choice(TEXTS)
            messages.append(message)
            for i in range(rng.randrange(0, len(calls) + 1)):
                result = {"role": "tool", "content": rng.choice(TEXTS)}
                if rng.random() < 0.8:
                    result["tool_call_id"] = f"call_{i}"
                if rng.random() < 0.7:
                    result["name"] = "named"
                messages.append(result)
        else:
            messages.append({"role": rng.choice(("system", "tool")), "content": rng.choice(TEXTS)})
    chat = {"messages": messages, "current_date": DATE}
    if rng.random() < 0.5:
        chat["tools"] = [random_tool(rng) for _ in range(rng.randrange(0, 4))]
    if rng.random() < 0.5:
        chat["enable_thinking"] = rng.random() < 0.5
    if rng.random() < 0.3:
        chat["add_generation_prompt"] = rng.random() < 0.5
    if rng.random() < 0.2:
        chat["reasoning_effort"] = rng.choice(("low", "medium", "high"))
    return chat


@pytest.mark.parametrize("family", FAMILIES)
def test_random_chats(family, tmp_path):
    rng = random.Random(f"{family} {CHATS}")
    refused = sum(check(family, random_chat(rng, family), tmp_path) is not None for _ in range(CHATS))
    assert refused < CHATS / 3, "most conversations must be renderable"


def write_goldens():
    """Our own conversations with the oracle's text, so that `make test` needs no templates."""
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        rng = random.Random(f"goldens {family}")
        cases = [*CASES.values(), *(random_chat(rng, family) for _ in range(60))]
        with open(GOLDENS / f"{family}.jsonl", "w") as out:
            for case in cases:
                try:
                    text = render(family, {"current_date": DATE, **case})
                except Refused:
                    continue
                out.write(json.dumps({"chat": {"current_date": DATE, **case}, "text": text}) + "\n")


if __name__ == "__main__" and "--write-goldens" in sys.argv:
    write_goldens()
