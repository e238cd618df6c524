#include "json_schema.h"

#include <cmath>
#include <random>

#include "error.h"
#include "following.h"
#include "json_range.h"
#include "test.h"

namespace inferno {
namespace {

struct Case {
    std::string              schema;
    std::vector<std::string> yes;
    std::vector<std::string> no;
};

void check(const Case & c) {
    const std::string grammar = json_schema_grammar(c.schema);
    for (const std::string & text : c.yes) {
        if (!follows(grammar, text)) {
            testing::fail(__FILE__, __LINE__, c.schema + " refuses " + text);
        }
    }
    for (const std::string & text : c.no) {
        if (follows(grammar, text)) {
            testing::fail(__FILE__, __LINE__, c.schema + " takes " + text);
        }
    }
}

TEST(values_of_each_type) {
    const std::vector<Case> cases = {
        {R"({"type": "string"})",
         {R"("")", R"("a é € 😀 \" \\ \n \u00e9")"},
         {"a", "\"\n\"", R"("\ud800")", R"("\x")"}},
        {R"({"type": "integer"})", {"0", "-7", "123456789012345"}, {"01", "1.0", "1e3", "", "1234567890123456"}},
        {R"({"type": "number"})", {"0", "-1.25", "3e8", "2.5E-7"}, {"01", ".5", "1.", "NaN"}},
        {R"({"type": "boolean"})", {"true", "false"}, {"True", "1"}},
        {R"({"type": "null"})", {"null"}, {"none"}},
        {R"({"type": ["string", "null"]})", {"null", R"("x")"}, {"1"}},
        {R"({"type": "object"})", {"{}", R"({"a": [1, {"b": null}], "c": "d"})"}, {"[]", R"({"a":1})", "{} "}},
        {R"({"type": "array"})", {"[]", R"([1, "a", [true]])"}, {"[1,2]", "[1, ]"}},
        {R"({})", {"1", "{}", R"("x")", "[null]"}, {"", "x"}},
        {R"({"enum": ["a b", 1, null, {"x": [1]}]})", {R"("a b")", "1", "null", R"({"x":[1]})"}, {R"("a")", "2"}},
        {R"({"type": "string", "enum": ["a", 1, "b"]})", {R"("a")", R"("b")"}, {"1"}},
        {R"({"const": "tab\t\"quoted\" é"})", {R"("tab\t\"quoted\" é")"}, {R"("tab")"}},
        {R"({"anyOf": [{"type": "integer"}, {"const": "none"}]})", {"5", R"("none")"}, {R"("some")"}},
        {R"({"allOf": [{"type": "boolean"}], "title": "flag"})", {"true"}, {"1"}},
    };
    for (const Case & c : cases) {
        check(c);
    }
}

TEST(strings) {
    const std::vector<Case> cases = {
        {R"({"type": "string", "minLength": 2, "maxLength": 3})",
         {R"("ab")", R"("é\n😀")", R"("\u00e9b")"},
         {R"("a")", R"("abcd")"}},
        {R"({"type": "string", "maxLength": 0})", {R"("")"}, {R"("a")"}},
        {R"({"minLength": 1})", {R"("a")"}, {R"("")", "1"}},
        {R"({"type": "string", "format": "date"})",
         {R"("2024-01-31")", R"("1999-02-28")"},
         {R"("2024-02-30")", R"("24-1-1")"}},
        {R"({"format": "date-time"})",
         {R"("2024-04-30T23:59:59.5Z")", R"("2024-04-30T00:00:00+02:00")"},
         {R"("2024-04-30")"}},
        {R"({"format": "time"})", {R"("08:30:00Z")"}, {R"("8:30")", R"("24:00:00Z")"}},
        {R"({"format": "uuid"})", {R"("123e4567-e89b-12d3-a456-426614174000")"}, {R"("123e4567")"}},
        {R"({"format": "ipv4"})", {R"("192.168.0.1")", R"("255.255.255.255")"}, {R"("256.1.1.1")", R"("01.1.1.1")"}},
        {R"({"format": "email"})", {R"("ada.l@example.com")"}, {R"("ada")", R"("a@b")"}},
        {R"({"format": "ipv6"})", {R"("2001:db8:0:0:0:0:0:1")"}, {R"("::1")"}},
        {R"({"format": "duration"})", {R"("P3D")", R"("PT1H30M")", R"("P1DT5S")"}, {R"("P")", R"("PT")", R"("3D")"}},
        {R"({"format": "uri"})",
         {R"("https://example.org/a/b.html")", R"("http://a")"},
         {R"("example.org")", R"("http://")"}},
        {R"({"format": "hostname"})", {R"("my-host.example.org")"}, {R"("-x")", R"("a..b")"}},
    };
    for (const Case & c : cases) {
        check(c);
    }
}

TEST(patterns) {
    const std::vector<Case> cases = {
        {R"({"pattern": "^[A-Z]{2}-\\d+$"})", {R"("AB-12")"}, {R"("A-1")", R"("AB-12x")", R"("xAB-12")"}},
        {R"({"pattern": "b+"})", {R"("b")", R"("abbc")", R"("\nb\"")"}, {R"("ac")"}},
        {R"({"pattern": "^a|b$"})", {R"("ax")", R"("xb")"}, {R"("xa")", R"("bx")"}},
        {R"({"pattern": "^(?:red|gr(e|a)y)?$"})", {R"("red")", R"("gray")", R"("")"}, {R"("green")"}},
        {R"({"pattern": "^[^a\"\\\\]$"})",
         {R"("b")", R"("€")"},
         {R"("a")", R"("\"")", R"("\\")", R"("")", R"("""")"}},
        {R"({"pattern": "^\"[\\n\\]x-]\\.$"})", {R"("\"\n.")", R"("\"].")", R"("\"-.")"}, {R"("\"n.")", R"(""x.")"}},
        {R"({"pattern": "^.$"})", {R"("x")", R"("\"")", R"("😀")"}, {R"("\n")", R"("")", R"("""")"}},
        {R"({"pattern": "^\\w\\s\\S\\D\\W$"})", {R"("a b!-")", R"("_\tx.?")"}, {R"("- b!-")", R"("a b1-")"}},
        {R"({"pattern": "^[\\s\\S]$"})", {R"("a")", R"(" ")"}, {R"("ab")"}},
        {R"({"pattern": "^(?<year>[0-9]{4})\\u0041\\x42$"})", {R"("2024AB")"}, {R"("2024")"}},
        {R"({"pattern": "^(a*)*b{2,}?$"})", {R"("aabb")", R"("bbb")"}, {R"("ab")"}},
        {R"({"pattern": "^(a+)+$"})", {R"("aaaa")"}, {R"("")", R"("b")"}},
        {R"({"pattern": "^é+$"})", {R"("éé")"}, {R"("e")"}},
        {R"({"pattern": ""})", {R"("")", R"("anything")"}, {"1"}},
    };
    for (const Case & c : cases) {
        check(c);
    }
}

TEST(arrays) {
    const std::string integers = R"("items": {"type": "integer"})";
    const std::vector<Case> cases = {
        {"{" + integers + "}", {"[]", "[1]", "[1, 2, 3]"}, {"[true]", R"("x")"}},
        {"{" + integers + R"(, "minItems": 1, "maxItems": 2})", {"[1]", "[1, 2]"}, {"[]", "[1, 2, 3]"}},
        {"{" + integers + R"(, "minItems": 3})", {"[1, 2, 3]", "[1, 2, 3, 4]"}, {"[1, 2]"}},
        {"{" + integers + R"(, "maxItems": 0})", {"[]"}, {"[1]"}},
        {R"({"items": false})", {"[]"}, {"[1]"}},
        {R"({"prefixItems": [{"type": "integer"}, {"type": "boolean"}]})", {"[1, true]"}, {"[1]", "[1, true, 1]"}},
        {R"({"items": [{"type": "integer"}, {"type": "boolean"}]})", {"[1, true]"}, {"[true, 1]"}},
        {R"({"prefixItems": [{"type": "null"}], "items": {"type": "integer"}, "maxItems": 3})",
         {"[null]", "[null, 1]", "[null, 1, 2]"},
         {"[1]", "[null, 1, 2, 3]"}},
        {R"({"prefixItems": [{"type": "null"}, {"type": "null"}], "maxItems": 1})", {"[null]"}, {"[null, null]", "[]"}},
    };
    for (const Case & c : cases) {
        check(c);
    }
}

TEST(objects) {
    const std::string ab = R"("properties": {"a": {"type": "integer"}, "b": {"type": "integer"}})";
    const std::vector<Case> cases = {
        {"{" + ab + R"(, "required": ["a", "b"]})", {R"({"a": 1, "b": 2})"}, {R"({"b": 2, "a": 1})", R"({"a": 1})"}},
        {"{" + ab + "}", {"{}", R"({"a": 1})", R"({"b": 2})", R"({"a": 1, "b": 2})"}, {R"({"c": 1})", R"({, "b": 2})"}},
        {"{" + ab + R"(, "required": ["b"]})", {R"({"b": 2})", R"({"a": 1, "b": 2})"}, {"{}", R"({"a": 1})"}},
        {"{" + ab + R"(, "additionalProperties": {"type": "null"}})",
         {R"({"a": 1, "x": null})", R"({"aa": null, "": null})", R"({"x": null, "ab": null})"},
         {R"({"a": null})", R"({"x": 1})", R"({"\u0061": null})"}},
        {R"({"additionalProperties": {"type": "integer"}})", {"{}", R"({"x": 1, "\u0061": 2})"}, {R"({"x": true})"}},
        {R"({"properties": {}, "additionalProperties": false})", {"{}"}, {R"({"a": 1})"}},
        {R"({"required": ["x"]})", {R"({"x": [], "y": 1})"}, {"{}", R"({"y": 1})", R"({"x": 1, "x": 2})"}},
        {R"({"properties": {"q\"\\": {"type": "null"}, "é]": {"type": "null"}}, "additionalProperties": true})",
         {R"({"q\"\\": null, "é]": null, "é": 1})"},
         {R"({"é]": 1})", R"({"q\"\\": 1})"}},
        {R"({"type": "object", "properties": {"a": true}, "required": ["a"], "examples": [1], "nullable": true})",
         {R"({"a": {"b": 1}})"},
         {"{}"}},
    };
    for (const Case & c : cases) {
        check(c);
    }
}

TEST(references) {
    check({R"({"$defs": {"n": {"properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/n"},
              {"type": "null"}]}}, "required": ["v", "next"]}}, "$ref": "#/$defs/n", "description": "a list"})",
           {R"({"v": 1, "next": null})", R"({"v": 1, "next": {"v": 2, "next": null}})"},
           {R"({"v": 1})"}});
    check({R"({"type": "array", "items": {"$ref": "#"}})", {"[]", "[[], [[]]]"}, {"[1]"}});
    check({R"({"properties": {"a~/b": {"const": 1}, "c": {"$ref": "#/properties/a~0~1b"}}, "required": ["c"]})",
           {R"({"c": 1})"},
           {R"({"c": 2})"}});
}

TEST(one_of_when_it_is_sure_that_only_one_fits) {
    check({R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})", {"1", R"("a")"}, {"null"}});
    check({R"({"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "discriminator": {"propertyName": "kind"},
              "$defs": {"cat": {"properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
                        "dog": {"properties": {"kind": {"enum": ["dog", "hound"]}}, "required": ["kind"]}}})",
           {R"({"kind": "cat"})", R"({"kind": "hound"})"},
           {R"({"kind": "bird"})"}});
}

std::string field_of(const std::string & schema) {
    try {
        json_schema_grammar(schema);
        return "";
    } catch (const Error & error) {
        CHECK(error.code() == ErrorCode::invalid_request);
        CHECK_EQ(std::string(error.what()).substr(0, error.field().size()), error.field());
        return error.field();
    }
}

TEST(what_cannot_be_kept_is_refused_by_name) {
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"", ""},
        {"[]", ""},
        {"{", ""},
        {R"({"type": "text"})", ".type"},
        {R"({"type": []})", ".type"},
        {R"({"type": 1})", ".type"},
        {R"({"properties": {"a": {"not": {}}}})", ".properties.a.not"},
        {R"({"properties": {"a": 1}})", ".properties.a"},
        {R"({"properties": []})", ".properties"},
        {R"({"properties": {"a": false}})", ".properties.a"},
        {R"({"required": "a"})", ".required"},
        {R"({"required": [1]})", ".required[0]"},
        {R"({"properties": {}, "required": ["a"], "additionalProperties": false})", ".required"},
        {R"({"additionalProperties": 3})", ".additionalProperties"},
        {R"({"items": {"uniqueItems": true}})", ".items.uniqueItems"},
        {R"({"items": {"type": "number", "multipleOf": 5}})", ".items.multipleOf"},
        {R"({"minItems": 2, "maxItems": 1})", ".maxItems"},
        {R"({"minItems": 1000000000})", ".minItems"},
        {R"({"maxItems": -1})", ".maxItems"},
        {R"({"maxLength": 1000000000})", ".maxLength"},
        {R"({"minLength": 2, "maxLength": 1})", ".maxLength"},
        {R"({"minLength": "2"})", ".minLength"},
        {R"({"prefixItems": [true], "minItems": 2, "items": false})", ".minItems"},
        {R"({"pattern": "a", "maxLength": 5})", ".pattern"},
        {R"({"format": "date", "maxLength": 5})", ".format"},
        {R"({"format": "iri"})", ".format"},
        {R"({"pattern": 1})", ".pattern"},
        {R"({"type": "integer", "minimum": 2, "maximum": 1})", "json_schema"},
        {R"({"type": "integer", "minimum": "2"})", ".minimum"},
        {R"({"type": "integer", "minimum": 1e300})", ".minimum"},
        {R"({"type": "integer", "exclusiveMaximum": -9223372036854775808})", ".exclusiveMaximum"},
        {R"({"minimum": 1.5, "maximum": 1.4})", "json_schema"},
        {R"({"minimum": 1e-30})", "json_schema"},
        {R"({"anyOf": []})", ".anyOf"},
        {R"({"anyOf": [{}, {"contains": {}}]})", ".anyOf[1].contains"},
        {R"({"anyOf": [{}], "type": "object"})", ".type"},
        {R"({"allOf": [{}, {}]})", ".allOf"},
        {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", ".oneOf"},
        {R"({"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]})", ".oneOf"},
        {R"({"oneOf": [{"enum": [1, 2]}, {"const": 2.0}]})", ".oneOf"},
        {R"({"oneOf": [{"const": {"a": 1, "b": 2}}, {"const": {"b": 2, "a": 1}}]})", ".oneOf"},
        {R"({"oneOf": [{"$ref": "#/$defs/a"}, {"type": "string"}], "$defs": {"a": {"$ref": "#/$defs/a"}}})", ".oneOf"},
        {R"({"enum": []})", ".enum"},
        {R"({"enum": [1], "minimum": 0})", ".minimum"},
        {R"({"type": "string", "const": 1})", ".const"},
        {R"({"$ref": "http://example.com/schema.json"})", ".$ref"},
        {R"({"$ref": "file:///etc/passwd"})", ".$ref"},
        {R"({"$ref": "other.json#/a"})", ".$ref"},
        {R"({"$ref": "#/$defs/none"})", ".$ref"},
        {R"({"$ref": "#name"})", ".$ref"},
        {R"({"$ref": 1})", ".$ref"},
        {R"({"$ref": "#/$defs/a", "$defs": {"a": {"if": true}}})", ".$defs.a.if"},
        {R"({"$ref": "#/$defs/a", "minLength": 1, "$defs": {"a": {}}})", ".minLength"},
        {R"({"items": {"$id": "x"}})", ".items.$id"},
    };
    for (const auto & [schema, path] : cases) {
        const std::string expected = path.compare(0, 4, "json") == 0 ? path : "json_schema" + path;
        if (field_of(schema) != expected) {
            testing::fail(__FILE__, __LINE__, schema + ": field '" + field_of(schema) + "'");
        }
    }
}

TEST(what_is_no_pattern_or_has_no_grammar_is_refused) {
    for (const char * pattern :
         {"(", ")", "a)", "[", "[z-a]", "a{2,1}", "a{", "a{,5}", "*", "a**", "a++", "\\\\", "(?=a)", "(?!a)", "(?<=a)",
          "(?i)a", "\\\\1", "\\\\b", "\\\\p{L}", "a^b", "(^a)", "(a$)", "[]", "a{99999}", "\\\\u12", "[\\\\d-z]",
          "[\\\\u0000]+x\\\\ud800"}) {
        CHECK_EQ(field_of(std::string(R"({"pattern": ")") + pattern + R"("})"), std::string("json_schema.pattern"));
    }
    const std::string deep = std::string(100, '(') + "a" + std::string(100, ')');
    CHECK_EQ(field_of(R"({"pattern": ")" + deep + R"("})"), std::string("json_schema.pattern"));
    CHECK_EQ(field_of(R"({"pattern": ")" + std::string(1025, 'a') + R"("})"), std::string("json_schema.pattern"));
}

TEST(paths_are_cut_between_characters) {
    std::string name;
    for (int i = 0; i < 100; ++i) {
        name += "\xC3\xA9";
    }
    const std::string field = field_of(R"({"properties": {")" + name + R"(": {"not": {}}}})");
    CHECK(field.size() < 210);
    CHECK_EQ(field.substr(field.size() - 5), std::string("\xC3\xA9...", 5));
}

// ---- numbers ----------------------------------------------------------------------------------------------------

TEST(integers_are_those_between_the_bounds) {
    std::mt19937 random(3);
    for (int i = 0; i < 60; ++i) {
        const auto        scale   = static_cast<int64_t>(std::pow(10, random() % 5));
        const int64_t     a       = static_cast<int64_t>(random() % 2001 - 1000) * scale / 37;
        const int64_t     b       = a + static_cast<int64_t>(random() % 1000) * scale / 13;
        const std::string grammar = "root ::= " + *integers_between(a, b);
        for (const int64_t edge : {a, b, int64_t{0}, (a + b) / 2, a * 10, b * 10}) {
            for (int64_t value = edge - 2; value <= edge + 2; ++value) {
                CHECK_EQ(follows(grammar, std::to_string(value)), a <= value && value <= b);
            }
        }
    }
    CHECK(!integers_between(3, 2));
    const std::string wide = "root ::= " + *integers_between(INT64_MIN, INT64_MAX);
    CHECK(follows(wide, "-9223372036854775808"));
    CHECK(follows(wide, "9223372036854775807"));
    CHECK(!follows(wide, "9223372036854775808"));
    const std::string from = "root ::= " + *integers_between(5, std::nullopt);
    CHECK(follows(from, "5") && follows(from, "999999999999999") && !follows(from, "4") && !follows(from, "-5"));
    const std::string to = "root ::= " + *integers_between(std::nullopt, -5);
    CHECK(follows(to, "-5") && follows(to, "-999999999999999") && !follows(to, "-4") && !follows(to, "5"));
}

TEST(numbers_are_those_between_the_bounds) {
    const std::vector<std::string> values = {"0",     "0.0",  "-0.5", "-0.25", "0.1",  "0.25",  "0.250", "0.2501",
                                             "0.249", "0.5",  "0.75", "0.999", "1",    "1.0",   "1.00",  "1.01",
                                             "1.5",   "-1",   "-1.5", "2",     "2.75", "2.750", "2.76",  "3",
                                             "9.99",  "10",   "99.5", "100",   "-10",  "-9.99", "-100.5", "12.25"};
    const std::vector<std::string> bounds = {"-100.5", "-1.5", "-1",   "-0.25", "0",   "0.25",
                                             "0.5",    "1",    "2.75", "10",    "99.5"};
    for (size_t i = 0; i < bounds.size(); ++i) {
        for (size_t j = i; j < bounds.size(); ++j) {
            for (int open = 0; open < 4; ++open) {
                const NumberBound low{bounds[i], (open & 1) != 0};
                const NumberBound high{bounds[j], (open & 2) != 0};
                const auto        expression = numbers_between(low, high);
                const double      from       = std::stod(low.digits);
                const double      to         = std::stod(high.digits);
                if (i == j && open != 0) {
                    CHECK(!expression);
                    continue;
                }
                for (const std::string & value : values) {
                    const double number = std::stod(value);
                    const bool   inside = (low.exclusive ? number > from : number >= from) &&
                                        (high.exclusive ? number < to : number <= to);
                    if (follows("root ::= " + *expression, value) != inside) {
                        testing::fail(__FILE__, __LINE__, value + " between " + low.digits + " and " + high.digits);
                    }
                }
            }
        }
    }
}

TEST(bounds_of_a_schema_are_the_stricter_ones) {
    check({R"({"type": "integer", "minimum": 1.2, "exclusiveMaximum": 4})", {"2", "3"}, {"1", "4"}});
    check({R"({"type": "integer", "minimum": 5, "exclusiveMinimum": 5})", {"6"}, {"5"}});
    check({R"({"type": "integer", "maximum": 9223372036854775807, "minimum": 0})", {"9223372036854775807"}, {"-1"}});
    check({R"({"type": "integer", "maximum": 1e300, "minimum": 18})", {"18"}, {"17"}});
    check({R"({"type": "integer", "maximum": 18446744073709551615, "minimum": -1e30})", {"-5"}, {"x"}});
    check({R"({"minimum": 0, "exclusiveMinimum": 0, "maximum": 1})", {"0.5", "1"}, {"0", "1.1"}});
    check({R"({"type": "number", "exclusiveMaximum": 10})", {"9.99", "-5"}, {"10", "10.0"}});
}

// ---- hostile schemas --------------------------------------------------------------------------------------------

std::string repeated(int n, const std::function<std::string(int)> & part, const std::string & separator) {
    std::string result;
    for (int i = 0; i < n; ++i) {
        result += (i == 0 ? "" : separator) + part(i);
    }
    return result;
}

TEST(hostile_schemas_are_refused_or_compiled_quickly) {
    const auto property = [](int i) { return "\"p" + std::to_string(i) + "\":{}"; };
    const auto defined  = [](int i) {
        const std::string next = "{\"$ref\":\"#/$defs/d" + std::to_string((i + 1) % 1000) + "\"}";
        return "\"d" + std::to_string(i) + "\":{\"anyOf\":[" + next + "," + next + "]}";
    };
    const auto sized = [](int i) { return "{\"type\":\"string\",\"maxLength\":" + std::to_string(4096 - i) + "}"; };
    const std::vector<std::string> schemas = {
        repeated(1000, [](int) { return R"({"items":)"; }, "") + "true" + std::string(1000, '}'),
        R"({"enum":[)" + repeated(5000, [](int i) { return "\"value" + std::to_string(i) + "\""; }, ",") + "]}",
        R"({"properties":{)" + repeated(4000, property, ",") + "}}",
        R"({"properties":{)" + repeated(4000, property, ",") + R"(},"additionalProperties":true})",
        R"({"$ref":"#/$defs/d0","$defs":{)" + repeated(1000, defined, ",") + "}}",
        R"({"anyOf":[)" + repeated(1500, sized, ",") + "]}",
        R"({"prefixItems":[)" + repeated(1500, sized, ",") + "]}",
        R"({"pattern":"^()" + repeated(120, [](int i) { return "alt" + std::to_string(i); }, "|") + R"(){1,4096}$"})",
        R"({"pattern":"^(((a{1,2000}){1,2000}){1,2000})$"})",
    };
    for (const std::string & schema : schemas) {
        const double began = testing::processor_seconds();
        try {
            follows(json_schema_grammar(schema), "1");
        } catch (const std::exception &) {
        }
        const double took = testing::processor_seconds() - began;
        if (took > 1) {
            testing::fail(__FILE__, __LINE__, schema.substr(0, 60) + " took " + std::to_string(took) + " s");
        }
    }
}

TEST(damaged_schemas_do_no_harm) {
    const std::string seed =
        R"({"type":"object","properties":{"a":{"type":"integer","minimum":-3,"maximum":12.5},"b":{"$ref":"#/$defs/x"},)"
        R"("c":{"pattern":"^a[b-d]{2,3}|(e)+$"},"d":{"oneOf":[{"const":1},{"enum":["q"]}]}},"required":["a"],)"
        R"("additionalProperties":{"items":{"format":"date"}},)"
        R"("$defs":{"x":{"anyOf":[{"minLength":2},{"type":"null"}]}}})";
    std::mt19937      random(11);
    const std::string letters = "\"[]{}:,0-9.ae$#/\\^|()+*?tf";
    for (int i = 0; i < 5000; ++i) {
        std::string text = seed;
        for (int n = 1 + static_cast<int>(random() % 3); n > 0; --n) {
            text[random() % text.size()] = letters[random() % letters.size()];
        }
        try {
            follows(json_schema_grammar(text), "{");
        } catch (const Error &) {
        } catch (const std::invalid_argument &) {
        }
    }
}

}  // namespace
}  // namespace inferno
