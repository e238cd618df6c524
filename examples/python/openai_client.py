"""The `openai` package as a client: a chat, a streamed chat, embeddings."""

from openai import OpenAI

client = OpenAI(base_url="http://localhost:8080/v1", api_key="your_api_key")

answer = client.chat.completions.create(
    model="llama-2-7b",
    messages=[
        {"role": "system", "content": "You answer in one sentence."},
        {"role": "user", "content": "What is a llama?"},
    ],
    max_tokens=48,
)
print("Answer:", answer.choices[0].message.content)

stream = client.chat.completions.create(
    model="llama-2-7b",
    messages=[{"role": "user", "content": "Tell me about the Andes."}],
    max_tokens=64,
    stream=True,
)
print("Stream: ", end="")
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

vectors = client.embeddings.create(model="llama-2-7b", input=["Hello world", "How are you?"])
print("Vectors:", [len(item.embedding) for item in vectors.data])
