"""Schemas and grammars made to hurt are refused, or compiled in less than a second of computing and 64 MiB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = r"""
import json, resource, time
from pathlib import Path
from inferno import _core, errors

def nested(n, inside="true"):
    return '{"items":' * n + inside + "}" * n

REFUSED = {
    "deep": nested(1000),
    "deeper": nested(7000),
    "deep enum": '{"enum":[' + "[" * 30000 + "]" * 30000 + "]}",
    "cycle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "endless": {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "remote": {"$ref": "http://127.0.0.1:9/schema"},
    "file": {"$ref": "file:///etc/passwd"},
    "minItems": {"minItems": 10**9},
    "maxItems": {"maxItems": 10**9},
    "maxLength": {"maxLength": 10**9},
    "huge number": {"minLength": 10**400},
    "too large": {"properties": {f"property{i}": {} for i in range(10_000)}},
    "allOf": {"allOf": [{"allOf": [{"allOf": [{}, {}]}] * 10}] * 10},
    "look-behind": {"pattern": "(?<=a)b"},
    "class": {"pattern": r"\p{L}"},
    "braces": {"pattern": "a{,99999}"},
    "long chain": "root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1}" for i in range(5000)) + '\nr5000 ::= "x"',
    "alternation": {"pattern": "|".join(str(i) for i in range(10_000))},
    "parentheses": "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000,
    "open parentheses": "root ::= " + "(" * 60_000,
    "left recursion": 'root ::= root "a" | "b"',
    "hidden left recursion": 'root ::= a\na ::= b? root "x" | "y"\nb ::= "z"',
    "nested repetitions": 'root ::= (("a"{0,2000}){0,2000}){0,2000}',
    "large repetition": 'root ::= "' + "a" * 60_000 + '"{4000}',
    "ways": "\n".join(f"r{i} ::= r{i + 1} \"x\" | r{i + 1} \"y\"" for i in range(40)) + '\nr40 ::= "z"\nroot ::= r0',
}
COMPILED = {
    "recursion": {"items": {"$ref": "#"}},
    "web": {"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"items": {"anyOf": [{"$ref": f"#/$defs/d{(i * 7 + k) % 300}"}
            for k in range(3)]}} for i in range(300)}},
    "enum": {"enum": list(range(10_000))},
    "optional": {"properties": {str(i): {} for i in range(5000)}},
    "optional and more": {"properties": {str(i): {} for i in range(5000)}, "additionalProperties": True},
    "sizes": {"anyOf": [{"type": "string", "maxLength": i} for i in range(20, 400)]},
    "plus of plus": {"pattern": "(a+)+$"},
    "plus of choice": {"pattern": "^(a|aa)+$"},
    "long": {"const": "x" * 60_000},
    "nested braces": {"pattern": "((a{1,2000}){1,2000}){1,2000}"},
    "chain": "root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1}" for i in range(3500)) + '\nr3500 ::= "x"',
    "star of star": 'root ::= ("a"*)*',
}

def fields(value):
    is_grammar = isinstance(value, str) and "::=" in value
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return {"grammar": text} if is_grammar else {"json_schema": text}

_core.validate_sampling({"json_schema": "{}", "grammar": ""})
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
wrong = []
for refused, cases in ((True, REFUSED), (False, COMPILED)):
    for name, value in cases.items():
        given = fields(value)
        began = time.process_time()
        try:
            _core.validate_sampling(given)
            was_refused = False
        except errors.InvalidRequest as error:
            was_refused = error.field.split(".")[0] in given
        if was_refused != refused or time.process_time() - began > 1:
            wrong.append((name, was_refused, time.process_time() - began))
print(wrong)
"""


def test_hostile_schemas_and_grammars(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
