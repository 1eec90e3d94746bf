#!/usr/bin/env python3
"""Train the byte-level BPE tokenizer on the training documents and write its two files."""
import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import corpus

END, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train(texts, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END, IM_START, IM_END], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    # <|endoftext|> is the beginning-of-text token: encoders put it before every prompt.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[(END, tokenizer.token_to_id(END))])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="work")
    parser.add_argument("--out", default="..", help="the model directory (default: ..)")
    parser.add_argument("--vocabulary", type=int, default=4032)
    args = parser.parse_args()
    data = corpus.load(Path(args.work) / "corpus.json")
    tokenizer = train((text for voice in corpus.VOICES for text in data["documents"][voice]), args.vocabulary)
    out = Path(args.out)
    tokenizer.save(str(out / "tokenizer.json"))
    special = {str(tokenizer.token_to_id(text)): {
        "content": text, "lstrip": False, "normalized": False, "rstrip": False,
        "single_word": False, "special": True} for text in (END, IM_START, IM_END)}
    (out / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": True, "add_eos_token": False, "add_prefix_space": False,
        "added_tokens_decoder": special, "bos_token": END, "eos_token": END, "pad_token": END,
        "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False,
        "model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    for voice in corpus.VOICES:
        text = "".join(data["held_out"][voice])
        count = len(tokenizer.encode(text, add_special_tokens=False).ids)
        print(f"{voice:12} {len(text.encode()) / count:.2f} bytes a token (held out)")
    print(f"{tokenizer.get_vocab_size()} entries; wrote {out / 'tokenizer.json'}")


if __name__ == "__main__":
    main()
