// What a JSON Schema says about its values without looking at all of it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace inferno {

using Json = nlohmann::ordered_json;

// The JSON Schema type of a value: object, array, string, integer, number (when it is no integer), boolean or null.
std::string json_type(const Json & value);

// True when values of `type` are also of type `wanted`.
bool is_of_type(const std::string & type, const std::string & wanted);

// False only when it is sure that no value is valid under both schemas: their types, their listed values or the listed
// values of a property that both require have nothing in common. `root` is what references point into.
bool may_overlap(const Json & a, const Json & b, const Json & root);

}  // namespace inferno
