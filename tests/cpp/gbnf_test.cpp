#include "gbnf.h"

#include <random>
#include <stdexcept>

#include "error.h"
#include "following.h"
#include "test.h"

namespace inferno {
namespace {

std::string repeated(const std::string & text, int n) {
    std::string result;
    for (int i = 0; i < n; ++i) {
        result += text;
    }
    return result;
}

std::string refusal(const std::string & grammar) {
    try {
        parse_gbnf(grammar, nullptr);
        return "";
    } catch (const std::invalid_argument & error) {
        return error.what();
    }
}

void check_follows(const std::string & grammar, const std::vector<std::string> & texts, bool expected) {
    for (const std::string & text : texts) {
        if (follows(grammar, text) != expected) {
            testing::fail(__FILE__, __LINE__, grammar + (expected ? " refuses " : " takes ") + text);
        }
    }
}

TEST(texts_follow_their_grammar) {
    struct Case {
        const char *             grammar;
        std::vector<std::string> yes;
        std::vector<std::string> no;
    };
    const std::vector<Case> cases = {
        {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "y", "yesno"}},
        {"root ::= \"a\"* \"b\"+ \"c\"?", {"b", "aabbc"}, {"a", "abcc"}},
        {"root ::= \"ab\"{2} | [x-z]{1,2} | \"q\"{3,}", {"abab", "x", "zy", "qqqqq"}, {"ab", "xyz", "qq"}},
        {"root ::= [^a-c\\n] .", {"d!", "\xC3\xA9\n", "\xF0\x9F\x98\x80\xE2\x82\xAC"}, {"ax", "\n!", "d"}},
        {"root ::= [\xC3\xA0-\xC3\xBF\\u20AC]+", {"\xC3\xA9\xE2\x82\xAC"}, {"e", "\xC3", "\xC3\x9F"}},
        {"root ::= item (\", \" item)*\nitem ::= [0-9]+ # digits\n", {"1", "1, 22, 3"}, {"1,2", "1, "}},
        {"root ::= (\n \"a\" |\n \"b\"\n)+", {"abba"}, {"", "c"}},
        {"root ::= \"(\" root \")\" | \"\"", {"", "((()))"}, {"(", "())"}},
        {"root ::= (\"a\"*)* \"b\"", {"b", "aaab"}, {"a"}},
        {"root ::= \"\\x41\\t\\\"\\\\\" [\\-\\]\\[]", {"A\t\"\\-", "A\t\"\\]"}, {"A\t\"\\a"}},
        {"root ::= \"a\"{0,0} \"b\"", {"b"}, {"ab"}},
        {"root ::= \"x\" dead | \"y\"\ndead ::= \"d\" dead", {"y"}, {"x", "xd"}},
    };
    for (const Case & c : cases) {
        check_follows(c.grammar, c.yes, true);
        check_follows(c.grammar, c.no, false);
    }
}

TEST(text_that_is_no_utf8_follows_nothing) {
    check_follows("root ::= [^x]*", {"\xFF", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xC3"}, false);
    check_follows("root ::= .*", {"\xF4\x8F\xBF\xBF", "\xEE\x80\x80", "\x7F"}, true);
}

TEST(what_is_no_grammar_is_refused_with_a_reason) {
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"", "no rule named root"},
        {"other ::= \"a\"", "no rule named root"},
        {"root ::= missing", "does not define: missing"},
        {"root ::= (", ") is missing"},
        {"root ::= )", "does not belong"},
        {"root ::= \"a", "not closed"},
        {"root ::= [a", "not closed"},
        {"root ::= []", "class is empty"},
        {"root ::= [z-a]", "range ends"},
        {"root ::= *", "nothing to repeat"},
        {"root ::= \"a\"{3,2}", "repetition ends"},
        {"root ::= \"a\"{x}", "a number is missing"},
        {"root ::= \"a\"{99999}", "more than 4096 times"},
        {"root ::= \"a\"{1,18446744073709551616}", "more than 4096 times"},
        {"root ::= \"\\q\"", "escape"},
        {"root ::= \"\\uD800\"", "surrogate"},
        {"root ::= \"\\UFFFFFFFF\"", "beyond Unicode"},
        {"root ::= \"\xFF\"", "no UTF-8"},
        {"root ::= root \"a\" | \"b\"", "begins with itself"},
        {"root ::= a\na ::= b \"x\"\nb ::= \"\" c\nc ::= a | \"y\"", "begins with itself"},
        {"root ::= n root \"a\" | \"b\"\nn ::= m*\nm ::= \"x\"", "begins with itself"},
        {"root ::= \"a\" root", "never comes to an end"},
        {"root = \"a\"\n", "::= is missing"},
        {"root ::= \"a\"\nother :", "in line 2"},
        {"root ::= <nothing", "> is missing"},
        {std::string("root ::= \"a\0b\"", 13), "null character"},
        {"root ::= " + repeated("(", 60000) + "\"a\"" + repeated(")", 60000), "nests deeper"},
        {"root ::= ((\"abcdefgh\"{4000} \"c\"){4000}){4000}", ""},
        {"root ::= \"" + repeated("abcdefgh", 100) + "\"{4000}", "too large"},
    };
    for (const auto & [grammar, reason] : cases) {
        const std::string why = refusal(grammar);
        if ((reason.empty() && !why.empty()) || why.find(reason) == std::string::npos) {
            testing::fail(__FILE__, __LINE__, grammar.substr(0, 60) + ": '" + why + "' instead of '" + reason + "'");
        }
    }
}

// Everything hostile is either compiled or refused, quickly: the time is that of all together.
TEST(large_grammars_take_little_time) {
    std::string chain = "root ::= r0\n";
    for (int i = 0; i < 5000; ++i) {
        chain += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + "\n";
    }
    std::string ways = "r30 ::= \"z\"\n";
    for (int i = 0; i < 30; ++i) {
        const std::string next = "r" + std::to_string(i + 1);
        ways += (i == 0 ? "root" : "r" + std::to_string(i)) + " ::= " + next + " \"x\" | " + next + " \"y\"\n";
    }
    const double began = testing::processor_seconds();
    CHECK(follows(chain + "r5000 ::= \"end\"\n", "end"));
    CHECK_THROWS(follows(ways, "z"), Error);
    CHECK(follows("root ::= ((\"a\"{0,2000}){0,2}){0,2}", "aaa"));
    CHECK_THROWS(follows("root ::= ((\"a\"{0,2000}){0,2000}){0,2000}", "a"), Error);
    CHECK(testing::processor_seconds() - began < 4);
}

TEST(damaged_grammars_do_no_harm) {
    const std::string seed = "root ::= \"a\\x41\" ([^b-\xC3\xA9]{1,3} | <[5]> !<tok>)* sub? # c\n"
                             "sub ::= . root | \"\\u20AC\"+\n";
    std::mt19937      random(7);
    const std::string letters = "\"[](){}*+?|.<>!:=#\\-\n ax09,\xC3";
    for (int i = 0; i < 20000; ++i) {
        std::string text = seed;
        for (int n = 1 + static_cast<int>(random() % 4); n > 0; --n) {
            const size_t at = random() % text.size();
            switch (random() % 3) {
                case 0:
                    text.erase(at, 1 + random() % 4);
                    break;
                case 1:
                    text.insert(at, 1, letters[random() % letters.size()]);
                    break;
                default:
                    text[at] = letters[random() % letters.size()];
            }
        }
        refusal(text);
    }
}

}  // namespace
}  // namespace inferno
