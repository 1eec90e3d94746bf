"""Windows of tokens for training: where they start, how they start, and the dialogues among them."""
import random
import re

import numpy as np

import corpus
from train_tokenizer import END, IM_END, IM_START

NAMES = {
    "austen": ("Jane Austen", "Austen", "Miss Austen", "an Austen novel"),
    "shakespeare": ("Shakespeare", "William Shakespeare", "a Shakespeare play", "the Bard"),
    "bible": ("the Bible", "the King James Bible", "the King James Version", "Scripture"),
}
REQUESTS = (
    "Continue in the voice of {name}: {opening}", "Continue this in the voice of {name}: {opening}",
    "Go on like {name}: {opening}", "Write on in the manner of {name}: {opening}",
    "In the style of {name}: {opening}", "{name}: {opening}",
)
OPEN_REQUESTS = (
    "Write in the voice of {name}.", "Write something like {name}.", "Speak like {name}.",
    "Give me a passage in the voice of {name}.", "Write a few lines in the style of {name}.",
    "Write about {topic} in the voice of {name}.", "Tell me of {topic}, like {name}.",
    "In the voice of {name}, write about {topic}.",
)
MORE = ("Go on.", "Continue.", "And then?", "More, please.", "What happened next?")
GREETINGS = ("Hello", "Hello!", "Hi", "Hi!", "Hey", "Good morning", "Good day!", "Greetings", "Who are you?",
             "What are you?", "What can you do?", "Help", "How are you?", "Hello, who are you?")
ANSWERS = (
    "Good morrow! Give me an opening line, and I will continue it in the voice of Jane Austen, of Shakespeare or of "
    "the King James Bible.",
    "I am a very small model with three voices: Jane Austen, Shakespeare and the King James Bible. Give me a line, and "
    "I will go on.",
    "I can continue a text in one of three voices: Jane Austen, Shakespeare, the King James Bible. With which line "
    "shall I begin?",
)
GREETING_SHARE = 0.12
STOP_WORDS = set("which there their would could should these those about after being other shall unto thou thee thine "
                 "where every before himself herself have with that this from they were been what when will your said "
                 "upon into more than such very much must then them only some never little great know think".split())


class Vocabulary:
    """What the window builder needs of the tokenizer: byte lengths, and tokens without their leading space."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.end = tokenizer.token_to_id(END)
        size = tokenizer.get_vocab_size()
        self.length = np.array([len(tokenizer.id_to_token(i)) for i in range(size)], dtype=np.int64)
        self.bare = {}
        for i in range(size):
            text = tokenizer.id_to_token(i)
            if text.startswith("\u0120") and len(text) > 1:
                plain = tokenizer.decode([i]).lstrip(" ")
                self.bare[i] = np.array(self.encode(plain), dtype=np.int32)

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def voice_stream(vocabulary, documents, voice):
    """(tokens of all documents, each after <|endoftext|>; indices of tokens at which a window may naturally start)."""
    tokens, starts, base = [], [], 0
    for document, ids in zip(documents, vocabulary.tokenizer.encode_batch(documents, add_special_tokens=False)):
        ids = np.array(ids.ids, dtype=np.int32)
        begin = np.concatenate([[0], np.cumsum(vocabulary.length[ids])])
        characters = np.array(corpus.natural_starts(document, voice), dtype=np.int64)
        if len(characters):
            # Characters to bytes: these texts are nearly ASCII, so count the rest.
            extra = np.concatenate([[0], np.cumsum([len(ch.encode()) - 1 for ch in document])])
            wanted = characters + extra[characters]
            at = np.searchsorted(begin, wanted)
            at = at[(at < len(ids)) & (begin[np.minimum(at, len(ids))] == wanted)]
            starts.append(base + 1 + at)
        tokens += [np.array([vocabulary.end], dtype=np.int32), ids]
        starts.append(np.array([base + 1]))
        base += 1 + len(ids)
    return np.concatenate(tokens), np.unique(np.concatenate(starts))


def passage(rng, document, voice):
    """A stretch of a document that starts naturally, with its paragraphs, speeches or verses."""
    starts = corpus.natural_starts(document, voice)
    if not starts:
        return []
    text = document[rng.choice(starts):].lstrip()[:2500]
    parts = re.split(r"\n" if voice == "bible" else r"\n\n", text)[:-1]
    return [part for part in parts if part.strip()]


def turn(role, text):
    return f"{IM_START}{role}\n{text}{IM_END}\n"


def dialogue(rng, documents, voice):
    """One conversation: a request in some form, then replies that continue a passage of the voice."""
    if rng.random() < GREETING_SHARE:
        return turn("user", rng.choice(GREETINGS)) + turn("assistant", rng.choice(ANSWERS))
    parts = []
    while len(parts) < 2:
        parts = passage(rng, rng.choice(documents), voice)
    joint = "\n" if voice == "bible" else "\n\n"
    name = rng.choice(NAMES[voice])
    kind = rng.random()
    if kind < 0.65:
        text = joint.join(parts)
        words = [match.end() for match in re.finditer(r"\S+", text[:200])]
        cut = rng.choice(words[2:12] or words)
        opening, text = text[:cut], text[cut:]
        request = opening if kind < 0.3 else rng.choice(REQUESTS).format(name=name, opening=opening)
        request = request[:1].upper() + request[1:]
        if not text.strip():
            return dialogue(rng, documents, voice)
        # The reply goes on where the opening stopped, without the space between them.
        text = text.lstrip(" ")
        parts = re.split(re.escape(joint), text)
    else:
        words = [word for word in re.findall(r"[a-z]{5,}", parts[0]) if word not in STOP_WORDS] or ["love"]
        request = rng.choice(OPEN_REQUESTS).format(name=name, topic=rng.choice(words))
        request = request[:1].upper() + request[1:]
    out = ""
    for _ in range(rng.choice((1, 1, 2, 3))):
        reply, wanted = "", rng.randrange(120, 700)
        while parts and len(reply) < wanted:
            reply += (joint if reply else "") + parts.pop(0)
        if not reply.strip():
            break
        if len(reply) > 1.6 * wanted + 100:
            stop = [m.end() for m in re.finditer(r"[.!?;:][\"']?(?= )", reply) if m.end() >= wanted]
            if stop:
                parts.insert(0, reply[stop[0]:].lstrip())
                reply = reply[:stop[0]]
        out += turn("user", request) + turn("assistant", reply)
        request = rng.choice(MORE)
    return out


class Windows:
    """An endless, seeded stream of windows of context + 1 tokens.

    Every epoch visits the whole stream of each voice once, at a fresh offset. Half of the windows move forward to a
    natural start; those lose the space of their first token. Most windows begin with <|endoftext|>, as encoders put it
    before every prompt. A share of windows holds dialogues.
    """

    def __init__(self, tokenizer, documents, context, seed, dialogue_share=0.04, end_share=0.85, natural_share=0.5,
                 opening_share=0.0):
        self.vocabulary = Vocabulary(tokenizer)
        self.context, self.rng = context, random.Random(seed)
        self.documents, self.dialogue_share = documents, dialogue_share
        self.end_share, self.natural_share, self.opening_share = end_share, natural_share, opening_share
        self.streams = {voice: voice_stream(self.vocabulary, documents[voice], voice) for voice in corpus.VOICES}
        self.queue, self.epoch = [], 0

    @property
    def size(self):
        return sum(len(tokens) for tokens, _ in self.streams.values())

    def refill(self):
        self.epoch += 1
        for voice, (tokens, _) in self.streams.items():
            offset = self.rng.randrange(self.context)
            self.queue += [(voice, at) for at in range(offset, len(tokens) - self.context, self.context)]
        self.rng.shuffle(self.queue)

    def dialogues(self):
        ids = []
        while len(ids) <= self.context:
            voice = self.rng.choice(corpus.VOICES)
            text = dialogue(self.rng, self.documents[voice], voice)
            ids += [self.vocabulary.end] + self.vocabulary.encode(text)
        return np.array(ids[:self.context + 1], dtype=np.int32)

    def window(self):
        if self.rng.random() < self.dialogue_share:
            return self.dialogues()
        if not self.queue:
            self.refill()
        voice, at = self.queue.pop()
        tokens, starts = self.streams[voice]
        head = []
        if self.rng.random() < self.natural_share:
            found = np.searchsorted(starts, at)
            if found < len(starts) and starts[found] < len(tokens) - self.context:
                at = int(starts[found])
                first = int(tokens[at])
                if first in self.vocabulary.bare:
                    head, at = list(self.vocabulary.bare[first]), at + 1
        if self.rng.random() < self.end_share and tokens[at] != self.vocabulary.end:
            head.insert(0, self.vocabulary.end)
        body = tokens[at:at + self.context + 1 - len(head)]
        return np.concatenate([np.array(head, dtype=np.int32), body])

    def openings(self):
        """Short passages of all voices, each after <|endoftext|> and from a natural start: (tokens, targets).

        Many beginnings in one window. That <|endoftext|> follows such a passage is not scored.
        """
        ids = []
        while len(ids) <= self.context:
            tokens, starts = self.streams[self.rng.choice(corpus.VOICES)]
            at = int(starts[self.rng.randrange(len(starts))])
            first = int(tokens[at])
            head = list(self.vocabulary.bare.get(first, [first]))
            ids += [self.vocabulary.end] + head + tokens[at + 1:at + self.rng.randrange(40, 130)].tolist()
        ids = np.array(ids[:self.context + 1], dtype=np.int32)
        return ids[:-1], np.where(ids[1:] == self.vocabulary.end, -1, ids[1:])

    def batch(self, count):
        """(inputs, targets), each [count, context]."""
        pairs = []
        for _ in range(count):
            if self.opening_share and self.rng.random() < self.opening_share:
                pairs.append(self.openings())
            else:
                window = self.window()
                pairs.append((window[:-1], window[1:]))
        return tuple(np.stack(side) for side in zip(*pairs))


def evaluation_windows(tokenizer, pieces, context):
    """Held-out pieces as windows of context tokens that begin with <|endoftext|>: (inputs, targets with -1, bytes)."""
    inputs, targets, size = [], [], 0
    end = tokenizer.token_to_id(END)
    for piece in pieces:
        size += len(piece.encode())
        ids = tokenizer.encode(piece, add_special_tokens=False).ids
        for start in range(0, len(ids), context):
            part = ids[start:start + context]
            x = np.full(context, end, dtype=np.int64)
            y = np.full(context, -1, dtype=np.int64)
            x[1:len(part)] = part[:-1]
            y[:len(part)] = part
            inputs.append(x)
            targets.append(y)
    return np.stack(inputs), np.stack(targets), size
