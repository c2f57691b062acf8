"""What transformers makes of a folder: `python load.py FOLDER TEXT [IDS]` prints JSON: the ids of the text, a rendered conversation, the
model's name, and the logits of IDS, which are null without torch (and accelerate, for packed models)."""
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = os.environ["TORCHDYNAMO_DISABLE"] = "1"
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, is_torch_available

folder, text, *ids = sys.argv[1:]
config = AutoConfig.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
conversation = [{"role": "user", "content": "Hello."}]
found = {
    "model": config.architectures[0],
    "ids": tokenizer(text)["input_ids"],
    "chat": tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    if tokenizer.chat_template else None,
    "ends": GenerationConfig.from_pretrained(folder).eos_token_id,
    "logits": None,
}
if is_torch_available() and ids:
    import torch
    from transformers import AutoModelForCausalLM
    # A packed model keeps the type of its file, and has no method that changes it.
    model = torch.nn.Module.float(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    with torch.no_grad():
        found["logits"] = model(torch.tensor([[int(word) for word in ids[0].split(",")]])).logits[0].tolist()
print(json.dumps(found))
