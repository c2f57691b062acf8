"""Renders every template here with every conversation by Hugging Face's own renderer, and prints one JSON object.

To write the golden renderings again: python render.py > golden.json
"""

import json
import pathlib
import sys

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

here = pathlib.Path(__file__).parent
conversations = json.loads((here / "conversations.json").read_text())
words = {"<s>": 0, "</s>": 1, "<unk>": 2, "<pad>": 3}
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")),
    bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
)


def render(template, fields):
    messages = fields["messages"]
    others = {name: value for name, value in fields.items() if name != "messages"}
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=True, tokenize=False, **others
        )
    except Exception as error:
        # What a template raises is part of its answer; how Python words its own errors is not.
        return {"refused": str(error) if type(error).__name__ == "TemplateError" else None}


rendered = {}
for path in sorted(here.glob("*.jinja")):
    with open(path, newline="") as file:
        template = file.read()
    # One template has many constructs and no conversation.
    chosen = ["one"] if path.stem == "constructs" else conversations
    rendered[path.stem] = {name: render(template, conversations[name]) for name in chosen}
json.dump(rendered, sys.stdout, ensure_ascii=False, indent=0, sort_keys=True)
print()
