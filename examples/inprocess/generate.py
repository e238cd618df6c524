"""Continue a text."""

from inferno import LLM

with LLM("smollm2-135m-instruct") as llm:
    result = llm.generate("The capital of France is", max_tokens=16, temperature=0)
    print(result.text)
    print(result.choices[0].finish_reason, result.choices[0].usage.completion_tokens)
