"""Find the text that is nearest to another."""

from inferno import LLM

texts = ["A kitten sleeps on the sofa.", "Share prices fell on Monday.", "The train leaves at noon."]

with LLM("smollm2-135m-instruct") as llm:
    vectors = llm.embed(texts)
    query = llm.embed("A cat is lying on the couch.")[0]

nearness = vectors @ query  # rows have length 1, so these are cosines
print(vectors.shape, nearness.round(2))
print("Nearest:", texts[nearness.argmax()])
