"""The official OpenAI client against a running server: python openai_client.py BASE_URL MODEL."""

import sys
import threading

import openai

base_url, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=20)
messages = [{"role": "user", "content": "hi"}]
endless = {"257": -100, "261": -100}


def chat(**fields):
    return client.chat.completions.create(**{"model": model, "messages": messages, "seed": 7, **fields})


def raises(error, code, **fields):
    try:
        chat(**fields)
    except error as e:
        assert e.code == code, (e.code, code)
        return e
    raise AssertionError(f"no {error.__name__} for {fields}")


assert [m.id for m in client.models.list()] == [model]
assert client.models.retrieve(model).id == model

whole = chat(max_tokens=20, logit_bias=endless, temperature=1.0)
assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 20
chunks = list(
    chat(max_tokens=20, logit_bias=endless, temperature=1.0, stream=True, stream_options={"include_usage": True})
)
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == whole.choices[0].message.content, (text, whole)
assert chunks[0].choices[0].delta.role == "assistant"
assert chunks[-1].usage == whole.usage

capital_a = chat(logit_bias={"65": 100}, max_tokens=9, stop="AAA", extra_body={"top_k": 5, "min_p": 0.1})
assert (capital_a.choices[0].message.content, capital_a.choices[0].finish_reason) == ("", "stop")

error = raises(openai.BadRequestError, "unsupported_parameter", presence_penalty=1)
assert error.param == "presence_penalty"
raises(openai.BadRequestError, None, temperature=3)
raises(openai.BadRequestError, "context_length_exceeded", messages=[{"role": "user", "content": "x" * 9000}])
raises(openai.NotFoundError, "model_not_found", model="another")

# One slot and a queue of one: a stream that runs, a request that waits, and no room.
with chat(stream=True, logit_bias=endless) as stream:
    running = iter(stream)
    next(running), next(running)
    limited, answered = [], []

    def ask():
        try:
            answered.append(chat(max_tokens=1))
        except openai.RateLimitError as e:
            limited.append(e)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limited and limited[0].response.headers["retry-after"] == "1", answered
    assert len(limited) + len(answered) == 8
print("the openai client agrees")
