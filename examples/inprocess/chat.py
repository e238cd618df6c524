"""Hold a conversation: the model sees its own answers."""

from inferno import LLM

questions = ["What is the capital of France?", "And what is that city known for?"]
messages = [{"role": "system", "content": "You answer in one sentence."}]

with LLM("smollm2-135m-instruct") as llm:
    for question in questions:
        messages.append({"role": "user", "content": question})
        answer = llm.chat(messages, max_tokens=48, temperature=0).text
        messages.append({"role": "assistant", "content": answer})
        print(f"> {question}\n{answer}")
