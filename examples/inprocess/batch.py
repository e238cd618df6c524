"""Many texts at once: a list of prompts is computed side by side."""

from inferno import LLM

prompts = [f"The capital of {country} is" for country in ("France", "Italy", "Japan", "Egypt", "Peru", "Kenya")]

with LLM("smollm2-135m-instruct", parallel=len(prompts), context_size=256) as llm:
    for prompt, result in zip(prompts, llm.generate(prompts, max_tokens=6, temperature=0), strict=True):
        print(prompt + result.text)
