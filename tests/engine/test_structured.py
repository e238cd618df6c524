"""Text that follows a schema or a grammar, on real engines. Validity is the `jsonschema` package's judgement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from inferno import LLM, errors
from inferno.request import Choice
from jsonschema import Draft202012Validator

Schema: TypeAlias = dict[str, Any]


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _text(longest: int) -> Schema:
    return {"type": "string", "maxLength": longest}


_INT: Schema = {"type": "integer"}
_ADDRESS = _object(["street"], street=_text(20), zip={"type": "string", "pattern": "^\\d{5}$"})
PERSON = _object(
    ["name", "age", "address"],
    name={**_text(20), "minLength": 1},
    age={**_INT, "minimum": 0, "maximum": 120},
    job={"enum": ["teacher", "doctor", "Bäcker"]},
    address={**_ADDRESS, "additionalProperties": False},
    tags=_list(_text(8), maxItems=3),
    score={"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
    nickname={"anyOf": [_text(5), {"type": "null"}]},
)
_NODE = _object(["value", "children"], value=_INT, children=_list({"$ref": "#/$defs/node"}, maxItems=2))
_FORMATS: dict[str, Schema] = {
    name: {"type": "string", "format": name} for name in ("date", "uuid", "ipv4", "email", "date-time", "time")
}
SCHEMAS: dict[str, Schema] = {
    "person": {**PERSON, "additionalProperties": False},
    "any object": {"type": "object"},
    "any value": {"anyOf": [{}, {"type": "string"}]},
    "people": _list(PERSON, minItems=1, maxItems=2),
    "strings": _list({"type": "string"}, minItems=2, maxItems=6),
    "escapes": _list({"type": "string", "pattern": '^[é"\\\\/\\n\\t]{2,4}$'}, minItems=3, maxItems=3),
    "numbers": {
        "prefixItems": [{"type": "number"}, _INT, {**_INT, "exclusiveMaximum": -7}],
        **_list({"type": "number", "minimum": -0.75, "exclusiveMaximum": 12.5}, minItems=5, maxItems=9),
    },
    "options": {
        **_object(["c"], **{name: {"type": "boolean"} for name in "abcdefgh"}),
        "additionalProperties": _INT,
    },
    "tree": {"$defs": {"node": _NODE}, "$ref": "#/$defs/node"},
    "formats": _object(["date", "uuid", "ipv4", "date-time"], **_FORMATS),
    "tagged": {
        "oneOf": [
            _object(["kind"], kind={"const": "cat"}, lives=_INT),
            _object(["kind", "name"], kind={"const": "dog"}, name={"type": "string"}),
        ]
    },
}


@pytest.fixture(scope="module")
def llm(tiny_model: Path) -> Iterator[LLM]:
    with LLM(tiny_model, context_size=512, parallel=8) as llm:
        yield llm


@pytest.fixture(scope="module")
def smol(smollm2: Path) -> Iterator[LLM]:
    with LLM(smollm2, context_size=1024, parallel=4) as llm:
        yield llm


def check(choice: Choice, schema: Schema) -> None:
    """Valid under the schema, or cut off."""
    if choice.finish_reason == "length":
        return
    assert choice.finish_reason == "stop"
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(json.loads(choice.text))


def biased(llm: LLM, **letters: float) -> dict[int, float]:
    """The tiny model writes every byte as readily as any other; texts end when these are likelier."""
    return {llm.tokenize(letter, add_special=False)[0]: bias for letter, bias in letters.items()}


@pytest.mark.parametrize("name", SCHEMAS)
def test_nonsense_is_valid_all_the_same(llm: LLM, name: str) -> None:
    closing = biased(llm, **{'"': 12, "}": 12, "]": 12, ",": 8, "\\": 8})
    wild: dict[str, Any] = {"temperature": 2, "repeat_penalty": 1.0, "top_p": 1.0, "logit_bias": closing}
    prompts = ["x", "y"]
    results = llm.generate(prompts, n=8, seed=1, max_tokens=400, json_schema=SCHEMAS[name], **wild)
    choices = [choice for result in results for choice in result.choices]
    for choice in choices:
        check(choice, SCHEMAS[name])
    assert any(choice.finish_reason == "stop" for choice in choices)


@pytest.mark.parametrize("name", ["person", "formats", "any object"])
def test_a_real_model_fills_in_a_schema(smol: LLM, name: str) -> None:
    messages = [{"role": "user", "content": "Ada is a doctor of 36. She lives in Baker Street. Describe her as JSON."}]
    result = smol.chat(messages, n=3, seed=1, temperature=0.7, max_tokens=100, json_schema=SCHEMAS[name])
    for choice in result.choices:
        check(choice, SCHEMAS[name])


def test_a_schema_may_be_text(llm: LLM) -> None:
    assert llm.generate("x", json_schema='{"const": 7}').text == "7"


def test_the_end_of_the_json_is_the_end_of_the_text(llm: LLM) -> None:
    result = llm.generate("x", json_schema={"const": 907}, ignore_eos=True, min_tokens=100, max_tokens=200)
    assert (result.text, result.choices[0].finish_reason) == ("907", "stop")
    assert result.usage.completion_tokens == 3  # one for each digit; none closes the text


def test_what_is_cut_off_says_so(llm: LLM) -> None:
    result = llm.generate("x", json_schema=PERSON, max_tokens=5)
    assert (result.text, result.choices[0].finish_reason) == ('{"nam', "length")


def test_stop_texts_and_log_probabilities_work_as_ever(llm: LLM) -> None:
    schema = {"enum": ["abcdef"]}
    result = llm.generate("x", json_schema=schema, stop=["de"], logprobs=2, temperature=0)
    choice = result.choices[0]
    assert (choice.text, choice.finish_reason, choice.stop_match) == ('"abc', "stop", "de")
    assert [item.raw for item in choice.logprobs] == [b'"', b"a", b"b", b"c"]
    assert all(item.logprob <= 0 and len(item.top) == 2 for item in choice.logprobs)


def test_texts_with_and_without_schemas_share_steps(llm: LLM) -> None:
    alone = llm.generate("abc", seed=5, max_tokens=30).text
    streams = [llm.stream("x", json_schema=schema, max_tokens=60, seed=3) for schema in SCHEMAS.values()]
    free = llm.stream("abc", seed=5, max_tokens=30)
    assert free.result().text[:10] == alone[:10]
    for stream, schema in zip(streams, SCHEMAS.values(), strict=True):
        check(stream.result().choices[0], schema)


def test_a_seed_fixes_the_text_whatever_has_been_remembered(llm: LLM) -> None:
    fields: dict[str, Any] = {"json_schema": SCHEMAS["options"], "seed": 9, "max_tokens": 60, "temperature": 1.5}
    first = llm.generate("x", **fields).text
    assert [llm.generate("x", **fields).text for _ in range(3)] == [first] * 3


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"json_schema": {"properties": {"a": {"not": {}}}}}, "json_schema.properties.a.not"),
        ({"json_schema": {"a": float("nan")}}, "json_schema"),
        ({"json_schema": {"a": object()}}, "json_schema"),
        ({"json_schema": 5}, "json_schema"),
        ({"json_schema": {}, "grammar": 'root ::= "a"'}, "json_schema"),
        ({"grammar": "root ::= ("}, "grammar"),
        ({"grammar": "root ::= <[100000]>"}, "grammar"),
    ],
)
def test_what_cannot_be_followed_is_refused(llm: LLM, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        llm.generate("x", **fields)
    assert caught.value.field == field


def test_a_pattern_that_turns_out_too_ambiguous_is_the_askers_error(llm: LLM) -> None:
    schema = {"type": "string", "pattern": "^((a{0,200}){0,200}){0,200}$"}
    with pytest.raises(errors.InvalidRequest, match="too many ways"):
        llm.generate("Hello", json_schema=schema, max_tokens=8)


def test_a_schema_that_is_too_deep_or_round_is_refused(llm: LLM) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"items": deep}
    round_about: dict[str, Any] = {}
    round_about["items"] = round_about
    for schema in (deep, round_about):
        with pytest.raises(errors.InvalidRequest):
            llm.generate("x", json_schema=schema)
