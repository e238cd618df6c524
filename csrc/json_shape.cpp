#include "json_shape.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <vector>

namespace inferno {

namespace {

constexpr int kMaxReferences = 64;  // followed one after the other

using Values = std::vector<nlohmann::json>;  // unlike Json, equal whatever the order of names

struct Shape {
    std::set<std::string>         types;   // empty: any
    std::optional<Values>         values;  // when they are listed
    std::map<std::string, Values> tags;    // properties that an object always has, with their listed values
};

const Json * find(const Json & schema, const char * key) {
    const auto found = schema.find(key);
    return found == schema.end() ? nullptr : &*found;
}

std::optional<Values> listed_values(const Json & schema) {
    const Json * value = find(schema, "const");
    const Json * list  = find(schema, "enum");
    if (value == nullptr && (list == nullptr || !list->is_array())) {
        return std::nullopt;
    }
    Values result;
    for (const Json & item : value != nullptr ? Json::array({*value}) : *list) {
        result.emplace_back(item);
    }
    return result;
}

std::map<std::string, Values> tags_of(const Json & schema) {
    std::map<std::string, Values> result;
    const Json *                  properties = find(schema, "properties");
    const Json *                  required   = find(schema, "required");
    if (properties == nullptr || !properties->is_object() || required == nullptr || !required->is_array()) {
        return result;
    }
    for (const auto & [name, property] : properties->items()) {
        const auto values = property.is_object() ? listed_values(property) : std::nullopt;
        if (values && std::find(required->begin(), required->end(), name) != required->end()) {
            result.emplace(name, *values);
        }
    }
    return result;
}

// The schema itself or what it refers to; null when that leads nowhere.
const Json * resolved(const Json & schema, const Json & root) {
    const Json * result = &schema;
    for (int i = 0; i < kMaxReferences && result->is_object(); ++i) {
        const Json * reference = find(*result, "$ref");
        if (reference == nullptr) {
            return result;
        }
        if (!reference->is_string()) {
            return nullptr;
        }
        try {
            result = &root.at(Json::json_pointer(reference->get<std::string>().substr(1)));
        } catch (const Json::exception &) {
            return nullptr;
        }
    }
    return nullptr;
}

Shape shape_of(const Json & given, const Json & root) {
    Shape        result;
    const Json * schema = resolved(given, root);
    if (schema == nullptr) {
        return result;
    }
    result.values = listed_values(*schema);
    if (result.values) {
        std::transform(result.values->begin(), result.values->end(), std::inserter(result.types, result.types.end()),
                       [](const nlohmann::json & value) { return json_type(Json(value)); });
        return result;
    }
    if (const Json * type = find(*schema, "type")) {
        for (const Json & name : type->is_array() ? *type : Json::array({*type})) {
            result.types.insert(name.is_string() ? name.get<std::string>() : "");
        }
    }
    if (result.types.empty() || result.types == std::set<std::string>{"object"}) {
        result.tags = tags_of(*schema);
    }
    return result;
}

bool apart(const Values & a, const Values & b) {
    return std::none_of(a.begin(), a.end(),
                        [&](const auto & value) { return std::find(b.begin(), b.end(), value) != b.end(); });
}

bool apart(const std::set<std::string> & a, const std::set<std::string> & b) {
    const auto in_both = [&](const std::string & type) {
        return std::any_of(b.begin(), b.end(), [&](const std::string & other) {
            return is_of_type(type, other) || is_of_type(other, type);
        });
    };
    return !a.empty() && !b.empty() && std::none_of(a.begin(), a.end(), in_both);
}

}  // namespace

std::string json_type(const Json & value) {
    if (value.is_number()) {
        const bool whole = value.is_number_integer() || value.get<double>() == std::floor(value.get<double>());
        return whole ? "integer" : "number";
    }
    if (value.is_object() || value.is_array()) {
        return value.is_object() ? "object" : "array";
    }
    return value.is_string() ? "string" : value.is_null() ? "null" : "boolean";
}

bool is_of_type(const std::string & type, const std::string & wanted) {
    return type == wanted || (type == "integer" && wanted == "number");
}

bool may_overlap(const Json & a, const Json & b, const Json & root) {
    const Shape first  = shape_of(a, root);
    const Shape second = shape_of(b, root);
    if (apart(first.types, second.types) || (first.values && second.values && apart(*first.values, *second.values))) {
        return false;
    }
    return std::none_of(first.tags.begin(), first.tags.end(), [&](const auto & tag) {
        const auto other = second.tags.find(tag.first);
        return other != second.tags.end() && apart(tag.second, other->second);
    });
}

}  // namespace inferno
