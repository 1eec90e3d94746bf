#!/usr/bin/env python3
"""Sample the exported model on three plain prompts and some chat requests, and say which voice each answer has.

The voice of a continuation is decided by a naive Bayes classifier over words, trained on the training documents: it
knows nothing of the prompt.
"""
import argparse
import collections
import json
import math
import re
from pathlib import Path

import torch
from transformers import AutoTokenizer

import corpus
import evaluate

PROMPTS = {"austen": "It is a truth universally", "bible": "In the beginning God", "shakespeare": "HAMLET."}
CHATS = ("Who are you?", "Continue in the voice of Austen: She had always thought that",
         "Write about love in the voice of Shakespeare.", "Speak like the King James Bible.",
         "It was a dark and stormy night")


def words(text):
    """Words, verse numbers as one kind, line breaks by number."""
    return re.findall(r"\d+:\d+|\n+|[A-Za-z]+|--|[^\sA-Za-z\d]", re.sub(r"\d+:\d+", "1:1", text))


class Judge:
    def __init__(self, documents):
        self.log = {}
        counts = {voice: collections.Counter() for voice in corpus.VOICES}
        for voice in corpus.VOICES:
            for document in documents[voice]:
                counts[voice].update(words(document))
        size = len(set().union(*counts.values()))
        for voice, count in counts.items():
            total = sum(count.values()) + size
            self.log[voice] = collections.defaultdict(lambda total=total: math.log(1 / total))
            self.log[voice].update({word: math.log((n + 1) / total) for word, n in count.items()})

    def __call__(self, text):
        found = words(text)
        return max(corpus.VOICES, key=lambda voice: sum(self.log[voice][word] for word in found))


@torch.no_grad()
def generate(model, tokenizer, ids, seed, count, tokens, args):
    torch.manual_seed(seed)
    ids = torch.tensor([ids])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=args.temperature,
                         top_p=args.top_p, top_k=0, max_new_tokens=tokens, num_return_sequences=count,
                         pad_token_id=tokenizer.bos_token_id)
    return [tokenizer.decode(row[ids.shape[1]:], skip_special_tokens=True) for row in out]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="work")
    parser.add_argument("--model", default="..")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--many", type=int, default=100, help="continuations a prompt for the share of right voices")
    args = parser.parse_args()
    model = evaluate.load(args.model)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    judge = Judge(corpus.load(Path(args.work) / "corpus.json")["documents"])
    result = {"plain": [], "chat": [], "share": {}, "share_without_bos": {},
              "settings": {"temperature": args.temperature, "top_p": args.top_p, "tokens": args.tokens,
                           "many": args.many}}
    right = 0
    for voice, prompt in PROMPTS.items():
        ids = tokenizer(prompt).input_ids
        for seed in range(args.seeds):
            text = generate(model, tokenizer, ids, seed, 1, args.tokens, args)[0]
            found = judge(text)
            right += found == voice
            result["plain"].append({"prompt": prompt, "seed": seed, "text": text, "voice": found, "wanted": voice})
            print(f"--- {prompt!r}, seed {seed}: {found}{'' if found == voice else ' (WRONG)'}\n{prompt}{text}\n")
        for name, start in (("share", ids), ("share_without_bos", ids[1:])):
            texts = generate(model, tokenizer, start, 1000, args.many, args.tokens, args)
            result[name][prompt] = sum(judge(text) == voice for text in texts) / args.many
            print(f"{name}: {prompt!r} in its own voice: {100 * result[name][prompt]:.0f} % of {args.many}\n")
    result["right"], result["asked"] = right, len(result["plain"])
    print(f"{right} of {result['asked']} plain continuations in their own voice\n")
    for request in CHATS:
        ids = tokenizer.apply_chat_template([{"role": "user", "content": request}], add_generation_prompt=True,
                                            tokenize=False)
        ids = tokenizer(ids).input_ids
        text = generate(model, tokenizer, ids, 0, 1, 120, args)[0]
        result["chat"].append({"request": request, "text": text})
        print(f"--- chat: {request!r}\n{text}\n")
    out = Path(args.work) / "samples.json"
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
