// JSON Schema -> GBNF.
//
// Every text of the grammar is valid under the schema; where a schema allows more than a grammar can tell apart, the
// grammar is the narrower one (objects hold the properties that are named, in that order, unless additionalProperties
// says otherwise). What would change the meaning and is not understood is refused, never left out. JSON is written on
// one line, with one space after each colon and comma and none elsewhere.
#pragma once

#include <string>

namespace inferno {

// `schema` is JSON text. References are followed within the schema only; nothing is fetched or opened.
// Throws Error(invalid_request) whose field is the path of what is wrong, as in "json_schema.properties.age.not".
std::string json_schema_grammar(const std::string & schema);

}  // namespace inferno
