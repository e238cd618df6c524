#include "json_schema.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "error.h"
#include "gbnf_writer.h"
#include "json_pattern.h"
#include "json_range.h"
#include "json_shape.h"

namespace inferno {

namespace {

using Names = std::vector<std::string_view>;

constexpr int64_t kMaxRepetitions  = 4096;  // of items and characters: a grammar has a rule for each
constexpr int64_t kNoEnd           = std::numeric_limits<int64_t>::max();
constexpr size_t  kMaxDepth        = 64;
constexpr size_t  kMaxPatternBytes = 1024;
constexpr size_t  kMaxOneOf        = 64;  // each is compared with each
constexpr size_t  kMaxNameBytes    = 256;  // of a property
constexpr size_t  kMaxPathBytes    = 200;

// Keywords that say something about the value. All others are annotations.
const Names kSupported = {"$ref",     "anyOf",    "oneOf",     "allOf",            "const",
                          "enum",     "type",     "items",     "prefixItems",      "minItems",
                          "maxItems", "pattern",  "minLength", "maxLength",        "format",
                          "minimum",  "maximum",  "required",  "exclusiveMinimum", "exclusiveMaximum",
                          "properties", "additionalProperties"};
const Names kUnsupported = {"not",           "if",
                            "then",          "else",
                            "$dynamicRef",   "$recursiveRef",
                            "contains",      "minContains",
                            "maxContains",   "uniqueItems",
                            "multipleOf",    "patternProperties",
                            "propertyNames", "minProperties",
                            "maxProperties", "dependencies",
                            "dependentSchemas", "dependentRequired",
                            "additionalItems", "unevaluatedItems",
                            "unevaluatedProperties"};

// Which keywords make a schema without a type one of that type.
const std::vector<std::pair<std::string_view, Names>> kHints = {
    {"object", {"properties", "required", "additionalProperties"}},
    {"array", {"items", "prefixItems", "minItems", "maxItems"}},
    {"string", {"pattern", "minLength", "maxLength", "format"}},
    {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}}};

constexpr std::array<std::string_view, 7> kTypes = {"object", "array",   "string", "number",
                                                    "integer", "boolean", "null"};

const std::map<std::string_view, std::string_view> kFormats = {
    {"date",
     R"([12] [0-9]{3} "-" (("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | )"
     R"(("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])))"},
    {"time",
     R"(([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? )"
     R"(("Z" | [+\-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]))"},
    {"uuid", R"([0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12})"},
    {"ipv4",
     R"((("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9]{2} | [1-9]? [0-9]) "."){3} )"
     R"(("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9]{2} | [1-9]? [0-9]))"},
    {"hostname", R"([a-z0-9]+ ("-" [a-z0-9]+)* ("." [a-z0-9]+ ("-" [a-z0-9]+)*)*)"},
    {"ipv6", R"(([0-9a-f]{1,4} ":"){7} [0-9a-f]{1,4})"},
    {"duration",
     R"("P" ([0-9]{1,4} "D" | ([0-9]{1,4} "D")? "T" ([0-9]{1,4} "H" ([0-9]{1,2} "M" ([0-9]{1,2} "S")?)? | )"
     R"([0-9]{1,4} "M" ([0-9]{1,2} "S")? | [0-9]{1,5} "S")))"},
    {"uri",
     R"("http" "s"? "://" [a-z0-9]+ ("-" [a-z0-9]+)* ("." [a-z0-9]+ ("-" [a-z0-9]+)*)* ("/" [A-Za-z0-9._~\-]*)*)"},
    {"email",
     R"([A-Za-z0-9_]+ ([.+\-] [A-Za-z0-9_]+)* "@" [a-z0-9]+ ("-" [a-z0-9]+)* ("." [a-z0-9]+ ("-" [a-z0-9]+)*)+)"}};

// ---- what is wrong, and where -----------------------------------------------------------------------------------

std::string shortened(const std::string & path) {
    if (path.size() <= kMaxPathBytes) {
        return path;
    }
    size_t end = kMaxPathBytes;
    while (end > 0 && (static_cast<unsigned char>(path[end]) & 0xC0) == 0x80) {
        --end;  // not inside a character
    }
    return path.substr(0, end) + "...";
}

[[noreturn]] void refuse(const std::string & path, const std::string & why) {
    const std::string field = shortened(path);
    throw Error(ErrorCode::invalid_request, field + " " + why + ".", field);
}

std::string under(const std::string & path, std::string_view key) {
    return path + "." + std::string(key);
}

std::string at(const std::string & path, size_t index) {
    return path + "[" + std::to_string(index) + "]";
}

// nlohmann's parser takes any depth, but what walks the result recurses.
void check_depth(std::string_view text) {
    size_t depth     = 0;
    bool   in_string = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            i += c == '\\' ? 1 : 0;
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > kMaxDepth) {
                refuse("json_schema", "nests deeper than " + std::to_string(kMaxDepth) + " levels");
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            --depth;
        }
    }
}

// ---- reading single keywords ------------------------------------------------------------------------------------

const Json * find(const Json & schema, std::string_view key) {
    const auto found = schema.find(key);
    return found == schema.end() ? nullptr : &*found;
}

int64_t read_count(const Json & schema, std::string_view key, const std::string & path, int64_t missing) {
    const Json * value = find(schema, key);
    if (value == nullptr) {
        return missing;
    }
    const double number = value->is_number() ? value->get<double>() : -1;
    if (number < 0 || number > static_cast<double>(kMaxRepetitions) || number != std::floor(number)) {
        refuse(under(path, key), "must be an integer of at least 0 and at most " + std::to_string(kMaxRepetitions));
    }
    return static_cast<int64_t>(number);
}

std::string read_text(const Json & value, const std::string & path) {
    if (!value.is_string()) {
        refuse(path, "must be a string");
    }
    return value.get<std::string>();
}

const Json & read_list(const Json & value, const std::string & path) {
    if (!value.is_array() || value.empty()) {
        refuse(path, "must be a list that is not empty");
    }
    return value;
}

// JSON text of a value, in one line.
std::string written(const Json & value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::strict);
}

std::string times(const std::string & expression, int64_t least, int64_t most) {
    return expression + "{" + std::to_string(least) + "," + (most == kNoEnd ? "" : std::to_string(most)) + "}";
}

// How many are left of `most` after `n`.
int64_t left_of(int64_t most, int64_t n) {
    return most == kNoEnd ? kNoEnd : std::max<int64_t>(most - n, 0);
}

std::string alternatives(const std::vector<std::string> & expressions) {
    std::string result;
    for (const std::string & expression : expressions) {
        result += (result.empty() ? "" : " | ") + expression;
    }
    return expressions.size() == 1 ? result : "(" + result + ")";
}

// ---- bounds of numbers ------------------------------------------------------------------------------------------

// 2^63, the first double beyond int64_t.
constexpr double  kBeyondInteger  = 9223372036854775808.0;
constexpr int64_t kLargestInteger = std::numeric_limits<int64_t>::max();

const Json * read_bound(const Json & schema, std::string_view key, const std::string & path) {
    const Json * value = find(schema, key);
    if (value != nullptr && !value->is_number()) {
        refuse(under(path, key), "must be a number");
    }
    return value;
}

// The first integer that a lower bound (`up` is 1) or an upper one (-1) lets through, cut to what 64 bits hold.
int64_t first_integer(const Json & bound, bool exclusive, int up, const std::string & path) {
    const double number = bound.get<double>();
    const bool   exact  = bound.is_number_integer() && !(bound.is_number_unsigned() && number >= kBeyondInteger &&
                                                      bound.get<uint64_t>() > uint64_t{kLargestInteger});
    const double whole  = up > 0 ? std::ceil(number) : std::floor(number);
    if (!exact && std::fabs(whole) >= kBeyondInteger) {
        if ((whole > 0) == (up > 0)) {
            refuse(path, "is beyond what a 64-bit integer holds");
        }
        return up > 0 ? std::numeric_limits<int64_t>::min() : kLargestInteger;
    }
    const int64_t value = exact ? bound.get<int64_t>() : static_cast<int64_t>(whole);
    const bool    skip  = exclusive && (exact || whole == number);
    if (skip && value == (up > 0 ? kLargestInteger : std::numeric_limits<int64_t>::min())) {
        refuse(path, "is beyond what a 64-bit integer holds");
    }
    return skip ? value + up : value;
}

NumberBound number_bound(const Json & bound, bool exclusive) {
    char       text[1200];  // the longest double
    const auto end = std::to_chars(text, text + sizeof text, bound.get<double>(), std::chars_format::fixed).ptr;
    return {std::string(text, end), exclusive};
}

// ---- the converter ----------------------------------------------------------------------------------------------

class Converter {
public:
    explicit Converter(const Json & root) : root_(root) {}

    std::string grammar() {
        const std::string start = visit(root_, "json_schema");
        while (!references_due_.empty()) {
            const auto [pointer, path] = references_due_.back();
            references_due_.pop_back();
            rules_.define(references_.at(pointer), visit(root_.at(Json::json_pointer(pointer)), path));
        }
        return rules_.text(start);
    }

private:
    // The expression of the values that a schema allows: an atom, that is, one that may be repeated as it is.
    std::string visit(const Json & schema, const std::string & path) {
        if (schema.is_boolean()) {
            return schema.get<bool>() ? any_value() : nothing(path);
        }
        if (!schema.is_object()) {
            refuse(path, "must be an object");
        }
        check_keywords(schema, path);
        if (const Json * reference = find(schema, "$ref")) {
            return visit_reference(*reference, alone(schema, path, {"$ref"}));
        }
        for (const std::string_view key : {"anyOf", "oneOf", "allOf"}) {
            if (const Json * list = find(schema, key)) {
                return visit_list(key, read_list(*list, under(path, key)), alone(schema, path, {key}));
            }
        }
        for (const std::string_view key : {"const", "enum"}) {
            if (find(schema, key) != nullptr) {
                return visit_values(schema, key, alone(schema, path, {key, "type"}));
            }
        }
        return visit_types(schema, path);
    }

    [[noreturn]] static std::string nothing(const std::string & path) { refuse(path, "lets nothing through"); }

    static void check_keywords(const Json & schema, const std::string & path) {
        for (const std::string_view key : kUnsupported) {
            const Json * value = find(schema, key);
            if (value != nullptr && !(key == "uniqueItems" && *value == false)) {
                refuse(under(path, key), "is not supported");
            }
        }
        if (find(schema, "$id") != nullptr && path != "json_schema") {
            refuse(under(path, "$id"), "is supported at the root only");
        }
        (void) types_of(schema, path);
    }

    // Path of `only[0]`, which no other keyword may stand beside: grammars cannot be intersected.
    static std::string alone(const Json & schema, const std::string & path, const Names & only) {
        for (const std::string_view key : kSupported) {
            if (find(schema, key) != nullptr && std::find(only.begin(), only.end(), key) == only.end()) {
                refuse(under(path, key), "beside " + std::string(only[0]) + " is not supported");
            }
        }
        return under(path, only[0]);
    }

    // ---- references and combinations ----

    // The JSON pointer of a reference into this document.
    std::string pointer_of(const Json & reference, const std::string & path) const {
        const std::string text = read_text(reference, path);
        if (text != "#" && text.compare(0, 2, "#/") != 0) {
            refuse(path, "must point into the schema itself, as in #/$defs/name");
        }
        const std::string pointer = text.substr(1);
        try {
            (void) root_.at(Json::json_pointer(pointer));
        } catch (const Json::exception &) {
            refuse(path, "points to nothing");
        }
        return pointer;
    }

    std::string visit_reference(const Json & reference, const std::string & path) {
        const std::string pointer = pointer_of(reference, path);
        const auto        known   = references_.find(pointer);
        if (known != references_.end()) {
            return known->second;
        }
        std::string target = "json_schema" + pointer;
        std::replace(target.begin() + 11, target.end(), '/', '.');
        references_due_.emplace_back(pointer, target);
        return references_[pointer] = rules_.reserve();
    }

    std::string visit_list(std::string_view key, const Json & list, const std::string & path) {
        if (key == "allOf" && list.size() > 1) {
            refuse(path, "with more than one schema is not supported");
        }
        std::vector<std::string> expressions;
        for (size_t i = 0; i < list.size(); ++i) {
            expressions.push_back(visit(list[i], at(path, i)));
        }
        if (key == "oneOf") {
            check_exclusive(list, path);
        }
        return rules_.add(alternatives(expressions));
    }

    std::string visit_values(const Json & schema, std::string_view key, const std::string & path) {
        const Json                     wanted = types_of(schema, path);
        const Json &                   given  = schema.at(std::string(key));
        const Json                     values = key == "const" ? Json::array({given}) : read_list(given, path);
        std::vector<std::string>       expressions;
        for (const Json & value : values) {
            const std::string type = json_type(value);
            const bool fits = wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](const Json & name) {
                                  return is_of_type(type, name.get<std::string>());
                              });
            if (fits) {
                expressions.push_back(gbnf_literal(written(value)));
            }
        }
        if (expressions.empty()) {
            refuse(path, "has no value of the type beside it");
        }
        return rules_.add(alternatives(expressions));
    }

    // oneOf: a value that fits two of them would not do.
    void check_exclusive(const Json & list, const std::string & path) const {
        if (list.size() > kMaxOneOf) {
            refuse(path, "must have at most " + std::to_string(kMaxOneOf) + " schemas");
        }
        for (size_t i = 0; i < list.size(); ++i) {
            for (size_t j = 0; j < i; ++j) {
                if (may_overlap(list[i], list[j], root_)) {
                    refuse(path, "has schemas that may fit the same value; with anyOf that is no matter");
                }
            }
        }
    }

    // ---- types ----

    // The types a schema names; empty when it names none.
    static Json types_of(const Json & schema, const std::string & path) {
        const Json * type = find(schema, "type");
        if (type == nullptr) {
            return Json::array();
        }
        const Json types = type->is_array() ? read_list(*type, under(path, "type")) : Json::array({*type});
        for (const Json & name : types) {
            if (!name.is_string() || std::find(kTypes.begin(), kTypes.end(), name.get<std::string>()) == kTypes.end()) {
                refuse(under(path, "type"), "must be object, array, string, number, integer, boolean or null");
            }
        }
        return types;
    }

    std::string visit_types(const Json & schema, const std::string & path) {
        std::vector<std::string> types;
        for (const Json & type : types_of(schema, path)) {
            types.push_back(type.get<std::string>());
        }
        if (types.empty()) {
            for (const auto & [type, keywords] : kHints) {
                const auto given = [&](std::string_view key) { return find(schema, key) != nullptr; };
                if (std::any_of(keywords.begin(), keywords.end(), given)) {
                    types.emplace_back(type);
                }
            }
        }
        if (types.empty()) {
            return any_value();
        }
        std::vector<std::string> expressions;
        for (const std::string & type : types) {
            expressions.push_back(visit_type(type, schema, path));
        }
        return expressions.size() == 1 ? expressions[0] : rules_.add(alternatives(expressions));
    }

    std::string visit_type(const std::string & type, const Json & schema, const std::string & path) {
        if (type == "object") {
            return visit_object(schema, path);
        }
        if (type == "array") {
            return visit_array(schema, path);
        }
        if (type == "string") {
            return visit_string(schema, path);
        }
        if (type == "integer") {
            return visit_integer(schema, path);
        }
        if (type == "number") {
            return visit_number(schema, path);
        }
        return type == "null" ? "\"null\"" : boolean();
    }

    std::string boolean() { return rules_.add(R"("true" | "false")"); }
    std::string character() { return rules_.add(kJsonCharacter); }
    std::string string() { return rules_.add(R"("\"" )" + character() + R"(* "\"")"); }
    std::string integer() { return rules_.add(R"("-"? ("0" | [1-9] [0-9]{0,14}))"); }
    std::string number() { return rules_.add(integer() + R"( ("." [0-9]{1,16})? ([eE] [+\-]? [0-9]{1,2})?)"); }

    std::string any_value() {
        if (any_value_.empty()) {
            any_value_ = rules_.reserve();
            rules_.define(any_value_, any_object() + " | " + any_array() + " | " + string() + " | " + number() + " | " +
                                          boolean() + " | \"null\"");
        }
        return any_value_;
    }

    std::string any_object() { return rules_.add(object_of(string() + " \": \" " + any_value())); }
    std::string any_array() { return rules_.add(array_of(any_value(), 0, kNoEnd)); }

    static std::string object_of(const std::string & pair) {
        return "\"{\" (" + pair + " (\", \" " + pair + ")*)? \"}\"";
    }

    static std::string array_of(const std::string & item, int64_t least, int64_t most) {
        if (most == 0) {
            return "\"[]\"";
        }
        const std::string more  = times("(\", \" " + item + ")", left_of(least, 1), left_of(most, 1));
        const std::string items = item + " " + more;
        return "\"[\" " + (least == 0 ? "(" + items + ")?" : items) + " \"]\"";
    }

    // ---- strings and numbers ----

    std::string visit_string(const Json & schema, const std::string & path) {
        const Json * pattern = find(schema, "pattern");
        const Json * format  = find(schema, "format");
        const bool   sized   = find(schema, "minLength") != nullptr || find(schema, "maxLength") != nullptr;
        if ((pattern != nullptr) + (format != nullptr) + sized > 1) {
            refuse(under(path, pattern != nullptr ? "pattern" : "format"),
                   "together with another limit of the same string is not supported");
        }
        if (pattern != nullptr) {
            return visit_pattern(read_text(*pattern, under(path, "pattern")), under(path, "pattern"));
        }
        if (format != nullptr) {
            return visit_format(read_text(*format, under(path, "format")), under(path, "format"));
        }
        if (!sized) {
            return string();
        }
        const int64_t least = read_count(schema, "minLength", path, 0);
        const int64_t most  = read_count(schema, "maxLength", path, kNoEnd);
        if (most < least) {
            refuse(under(path, "maxLength"), "is less than minLength");
        }
        return rules_.add(R"("\"" )" + times(character(), least, most) + R"( "\"")");
    }

    std::string visit_pattern(const std::string & pattern, const std::string & path) {
        if (pattern.size() > kMaxPatternBytes) {
            refuse(path, "must be at most " + std::to_string(kMaxPatternBytes) + " bytes long");
        }
        try {
            return rules_.add(R"("\"" )" + pattern_grammar(pattern, rules_) + R"( "\"")");
        } catch (const std::invalid_argument & error) {
            refuse(path, error.what());
        }
    }

    std::string visit_format(const std::string & format, const std::string & path) {
        const auto quoted = [&](const std::string & body) { return rules_.add(R"("\"" )" + body + R"( "\"")"); };
        const auto rule   = [&](std::string_view name) { return rules_.add(std::string(kFormats.at(name))); };
        if (format == "date-time") {
            return quoted(rule("date") + " \"T\" " + rule("time"));
        }
        if (kFormats.count(format) == 0) {
            std::string names = "date-time";
            for (const auto & [name, body] : kFormats) {
                names += ", " + std::string(name);
            }
            refuse(path, "must be one of " + names);
        }
        return quoted(rule(format));
    }

    std::string visit_integer(const Json & schema, const std::string & path) {
        std::optional<int64_t> low;
        std::optional<int64_t> high;
        for (const std::string_view key : {"minimum", "exclusiveMinimum"}) {
            if (const Json * bound = read_bound(schema, key, path)) {
                const int64_t first = first_integer(*bound, key != "minimum", 1, under(path, key));
                low = std::max(low.value_or(first), first);
            }
        }
        for (const std::string_view key : {"maximum", "exclusiveMaximum"}) {
            if (const Json * bound = read_bound(schema, key, path)) {
                const int64_t last = first_integer(*bound, key != "maximum", -1, under(path, key));
                high = std::min(high.value_or(last), last);
            }
        }
        if (!low && !high) {
            return integer();
        }
        const auto expression = integers_between(low, high);
        return expression ? rules_.add(*expression) : nothing(path);
    }

    // The stricter of an inclusive and an exclusive bound; `sign` is 1 for lower bounds and -1 for upper ones.
    static std::optional<NumberBound> stricter(const Json * inclusive, const Json * exclusive, double sign) {
        if (inclusive == nullptr && exclusive == nullptr) {
            return std::nullopt;
        }
        const bool open = inclusive == nullptr ||
                          (exclusive != nullptr && sign * exclusive->get<double>() >= sign * inclusive->get<double>());
        return number_bound(open ? *exclusive : *inclusive, open);
    }

    std::string visit_number(const Json & schema, const std::string & path) {
        const auto bound = [&](std::string_view key) { return read_bound(schema, key, path); };
        const auto low   = stricter(bound("minimum"), bound("exclusiveMinimum"), 1);
        const auto high  = stricter(bound("maximum"), bound("exclusiveMaximum"), -1);
        if (!low && !high) {
            return number();
        }
        try {
            const auto expression = numbers_between(low, high);
            return expression ? rules_.add(*expression) : nothing(path);
        } catch (const std::invalid_argument & error) {
            refuse(path, std::string("has a bound that ") + error.what());
        }
    }

    // ---- arrays ----

    std::string visit_array(const Json & schema, const std::string & path) {
        const int64_t least = read_count(schema, "minItems", path, 0);
        const int64_t most  = read_count(schema, "maxItems", path, kNoEnd);
        if (most < least) {
            refuse(under(path, "maxItems"), "is less than minItems");
        }
        const Json * items  = find(schema, "items");
        const Json * prefix = find(schema, "prefixItems");
        if (prefix != nullptr || (items != nullptr && items->is_array())) {
            return visit_tuple(schema, least, most, path);
        }
        if (items != nullptr && *items == false && least == 0) {
            return "\"[]\"";
        }
        const std::string item = items == nullptr ? any_value() : visit(*items, under(path, "items"));
        return rules_.add(array_of(item, least, most));
    }

    // The first items each have their own schema. No more follow unless `items` says what they are.
    std::string visit_tuple(const Json & schema, int64_t least, int64_t most, const std::string & path) {
        const Json *      prefix = find(schema, "prefixItems");
        const Json *      items  = prefix == nullptr ? nullptr : find(schema, "items");
        const std::string key    = prefix == nullptr ? "items" : "prefixItems";
        const Json &      list   = read_list(schema.at(key), under(path, key));
        std::string       body;
        const auto        add = [&](const std::string & item) { body += (body.empty() ? "" : " \", \" ") + item; };
        const auto        n   = static_cast<int64_t>(list.size());
        for (int64_t i = 0; i < std::min(n, most); ++i) {
            add(visit(list[static_cast<size_t>(i)], at(under(path, key), static_cast<size_t>(i))));
        }
        const bool closed = items == nullptr || *items == false;
        if (closed && least > n) {
            refuse(under(path, "minItems"), "is more than the items that are described");
        }
        if (!closed && most > n) {
            const std::string item = visit(*items, under(path, "items"));
            body += " " + times("(\", \" " + item + ")", left_of(least, n), left_of(most, n));
        }
        return rules_.add("\"[\" " + body + " \"]\"");
    }

    // ---- objects ----

    struct Property {
        std::string pair;  // name, colon and value
        bool        required;
    };

    std::string visit_object(const Json & schema, const std::string & path) {
        const std::set<std::string> required   = read_required(schema, path);
        const Json *                properties = find(schema, "properties");
        if (properties != nullptr && !properties->is_object()) {
            refuse(under(path, "properties"), "must be an object");
        }
        const Json               none     = Json::object();
        const Json &             declared = properties != nullptr ? *properties : none;
        const std::string        more     = additional(schema, declared, path);
        std::vector<std::string> names;
        std::vector<Property>    pairs;
        for (const auto & [name, property] : declared.items()) {
            check_name(name, under(path, "properties"));
            const std::string value = visit(property, under(under(path, "properties"), name));
            pairs.push_back({pair_of(name, value), required.count(name) != 0});
            names.push_back(name);
        }
        for (const std::string & name : required) {
            if (!declared.contains(name)) {
                pairs.push_back({pair_of(name, undeclared(more, path)), true});
                names.push_back(name);
            }
        }
        const std::string others = more.empty() ? "" : rules_.add(other_name(names) + " \": \" " + more);
        return pairs.empty() && !others.empty() ? rules_.add(object_of(others)) : object_with(pairs, others);
    }

    static std::set<std::string> read_required(const Json & schema, const std::string & path) {
        std::set<std::string> result;
        const Json *          required = find(schema, "required");
        if (required != nullptr && !required->is_array()) {
            refuse(under(path, "required"), "must be a list");
        }
        for (size_t i = 0; required != nullptr && i < required->size(); ++i) {
            const std::string name = read_text((*required)[i], at(under(path, "required"), i));
            check_name(name, under(path, "required"));
            result.insert(name);
        }
        return result;
    }

    static void check_name(const std::string & name, const std::string & path) {
        if (name.size() > kMaxNameBytes) {
            refuse(path, "has a name of more than " + std::to_string(kMaxNameBytes) + " bytes");
        }
    }

    // What properties that are not declared look like; empty when there are none.
    std::string additional(const Json & schema, const Json & declared, const std::string & path) {
        const Json * given = find(schema, "additionalProperties");
        if (given == nullptr) {
            return declared.empty() ? any_value() : "";
        }
        return *given == false ? "" : visit(*given, under(path, "additionalProperties"));
    }

    std::string undeclared(const std::string & more, const std::string & path) {
        if (!more.empty()) {
            return more;
        }
        refuse(under(path, "required"), "names a property that properties does not describe");
    }

    static std::string pair_of(const std::string & name, const std::string & value) {
        return gbnf_literal(written(name) + ": ") + " " + value;
    }

    // All properties in their order; those that are not required may be left out. Two rules for each place in the
    // list: what follows when nothing has been written yet, and what follows a property.
    std::string object_with(const std::vector<Property> & pairs, const std::string & others) {
        std::string first = others.empty() ? "" : rules_.add("(" + others + " (\", \" " + others + ")*)?");
        std::string next  = others.empty() ? "" : rules_.add("(\", \" " + others + ")*");
        for (auto pair = pairs.rbegin(); pair != pairs.rend(); ++pair) {
            const std::string or_not_first = pair->required ? "" : " | " + (first.empty() ? "\"\"" : first);
            const std::string or_not_next  = pair->required ? "" : " | " + (next.empty() ? "\"\"" : next);
            first = rules_.add(pair->pair + " " + next + or_not_first);
            next  = rules_.add("\", \" " + pair->pair + " " + next + or_not_next);
        }
        return rules_.add("\"{\" " + first + " \"}\"");
    }

    // Any string but these. Names are written without escapes, so that no other spelling of one of them slips through.
    std::string other_name(const std::vector<std::string> & names) {
        if (names.empty()) {
            return string();
        }
        std::vector<std::string> plain;
        for (const std::string & name : names) {
            if (written(name) == "\"" + name + "\"" && name.find('\x7F') == std::string::npos) {
                plain.push_back(name);
            }
        }
        std::sort(plain.begin(), plain.end());
        return rules_.add(R"("\"" )" + other_than(plain.begin(), plain.end(), 0) + R"( "\"")");
    }

    using Name = std::vector<std::string>::const_iterator;

    // What may follow the first `n` bytes, which all of the names have, without becoming one of them.
    std::string other_than(Name begin, Name end, size_t n) {
        static const std::string plain    = R"([^"\\\x00-\x1F\x7F])";
        std::string              branches;
        std::string              taken;
        bool                     is_name = false;
        while (begin != end) {
            if (begin->size() == n) {
                is_name = true;
                ++begin;
                continue;
            }
            const std::string character = begin->substr(n, character_bytes((*begin)[n]));
            const auto        same      = [&](const std::string & name) {
                return name.compare(n, character.size(), character) == 0;
            };
            const auto last = std::find_if_not(begin, end, same);
            branches += gbnf_literal(character) + " " + other_than(begin, last, n + character.size()) + " | ";
            taken += character == "]" || character == "-" || character == "[" ? "\\" + character : character;
            begin = last;
        }
        const std::string other = R"([^"\\\x00-\x1F\x7F)" + taken + "] " + plain + "*";
        return rules_.add(branches + other + (is_name ? "" : " | \"\""));
    }

    static size_t character_bytes(char lead) {
        const auto byte = static_cast<unsigned char>(lead);
        return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
    }

    const Json &                                     root_;
    GbnfWriter                                       rules_;
    std::string                                      any_value_;
    std::map<std::string, std::string>               references_;  // pointer -> rule
    std::vector<std::pair<std::string, std::string>> references_due_;
};

}  // namespace

std::string json_schema_grammar(const std::string & schema) {
    check_depth(schema);
    const Json root = Json::parse(schema, nullptr, false);
    if (root.is_discarded() || !root.is_object()) {
        refuse("json_schema", "must be a JSON object");
    }
    return Converter(root).grammar();
}

}  // namespace inferno
