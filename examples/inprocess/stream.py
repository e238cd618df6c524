"""Print a text while it is generated."""

from inferno import LLM

with LLM("smollm2-135m-instruct") as llm, llm.stream("Once upon a time", max_tokens=48) as stream:
    for piece in stream:
        print(piece, end="", flush=True)
    print()
