// Regular expression -> GBNF expression of the JSON strings that it matches.
#pragma once

#include <string>
#include <string_view>

#include "gbnf_writer.h"

namespace inferno {

// What stands between the quotes of a JSON string: `pattern` is ECMA 262 as JSON Schema uses it, found anywhere in the
// string unless it is anchored. Where dialects differ (\w, \s, .) only characters that all of them take are written;
// control characters are written only where the pattern lists them.
// Throws std::invalid_argument, whose text is the end of a sentence about the pattern, for what is no regular
// expression, has no grammar (look-around, back-references) or nests too deeply.
std::string pattern_grammar(std::string_view pattern, GbnfWriter & rules);

// Characters of a JSON string as it is written, with or without escapes; one is one code point.
inline constexpr const char * kJsonCharacter =
    R"([^"\\\x00-\x1F\x7F] | "\\" (["\\bfnrt] | "u" ([0-9a-cA-CefEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2})))";

}  // namespace inferno
