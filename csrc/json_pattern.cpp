#include "json_pattern.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace inferno {

namespace {

constexpr int      kMaxDepth         = 32;
constexpr int      kMaxRepetitions   = 4096;
constexpr uint32_t kLargestCodePoint = 0x10FFFF;

[[noreturn]] void refuse(const std::string & why) {
    throw std::invalid_argument(why);
}

// ---- sets of characters -----------------------------------------------------------------------------------------

using Range = std::pair<uint32_t, uint32_t>;
using Set   = std::vector<Range>;

const Set kDigits   = {{'0', '9'}};
const Set kWord     = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Set kSpace    = {{'\t', '\r'}, {' ', ' '}};
const Set kAscii    = {{0x20, 0x7E}};
const Set kNonAscii = {{0x80, 0xD7FF}, {0xE000, kLargestCodePoint}};
const Set kText     = {{0x20, 0x7E}, {0x80, 0xD7FF}, {0xE000, kLargestCodePoint}};  // no control characters
const Set kNewlines = {{0x2028, 0x2029}};                                          // beside control characters
// What one dialect or another calls a space.
const Set kAnySpace = {{'\t', '\r'},     {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
                       {0x180E, 0x180E}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                       {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};

// Dialects differ about some characters: those that are in for all of them, and for one of them at least.
struct Class {
    Set sure;
    Set possible;
};

Set sorted(Set set) {
    std::sort(set.begin(), set.end());
    Set result;
    for (const Range & range : set) {
        if (!result.empty() && range.first <= result.back().second + 1) {
            result.back().second = std::max(result.back().second, range.second);
        } else {
            result.push_back(range);
        }
    }
    return result;
}

// What is in `all` and not in `set`; both sorted.
Set without(const Set & all, const Set & set) {
    Set result;
    for (Range range : all) {
        for (const Range & hole : set) {
            if (hole.second < range.first || hole.first > range.second) {
                continue;
            }
            if (hole.first > range.first) {
                result.emplace_back(range.first, hole.first - 1);
            }
            range.first = hole.second + 1;
        }
        if (range.first <= range.second) {
            result.push_back(range);
        }
    }
    return result;
}

Set both(Set a, const Set & b) {
    a.insert(a.end(), b.begin(), b.end());
    return sorted(std::move(a));
}

bool contains(const Set & set, uint32_t c) {
    return std::any_of(set.begin(), set.end(), [&](const Range & r) { return r.first <= c && c <= r.second; });
}

std::string escaped(uint32_t c) {
    char text[16];
    std::snprintf(text, sizeof text, "\\U%08X", c);
    return text;
}

std::string class_of(const Set & set) {
    std::string result = "[";
    for (const Range & range : set) {
        result += escaped(range.first);
        result += range.first == range.second ? "" : "-" + escaped(range.second);
    }
    return result + "]";
}

std::string json_escape(uint32_t c) {
    switch (c) {
        case '"':
            return "\\\"";
        case '\\':
            return "\\\\";
        case '\b':
            return "\\b";
        case '\f':
            return "\\f";
        case '\n':
            return "\\n";
        case '\r':
            return "\\r";
        case '\t':
            return "\\t";
        default:
            char text[8];
            std::snprintf(text, sizeof text, "\\u%04x", c);
            return text;
    }
}

// The JSON spellings of one character of the set.
std::string spelling(const Set & set) {
    std::vector<std::string> alternatives;
    const Set                plain = without(set, {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}, {0xD800, 0xDFFF}});
    if (!plain.empty()) {
        alternatives.push_back(class_of(plain));
    }
    for (uint32_t c = 0; c <= '\\'; ++c) {
        if ((c < 0x20 || c == '"' || c == '\\') && contains(set, c)) {
            alternatives.push_back(gbnf_literal(json_escape(c)));
        }
    }
    if (alternatives.empty()) {
        refuse("has a class that no character is in");
    }
    std::string result = alternatives[0];
    for (size_t i = 1; i < alternatives.size(); ++i) {
        result += " | " + alternatives[i];
    }
    return alternatives.size() == 1 ? result : "(" + result + ")";
}

// ---- the parser -------------------------------------------------------------------------------------------------

class Parser {
public:
    Parser(std::string_view text, GbnfWriter & rules) : text_(text), rules_(rules) {}

    std::string whole() {
        const std::string character = rules_.add(kJsonCharacter);
        std::string       result;
        do {
            result += result.empty() ? "" : " | ";
            const bool from_start = take("^");
            const std::string body = sequence();
            const bool to_end = take("$");
            result += (from_start ? "" : character + "* ") + body + (to_end ? "" : " " + character + "*");
        } while (take("|"));
        if (!done()) {
            refuse(peek() == ')' ? "has a parenthesis too many" : "has an anchor inside, which is not supported");
        }
        return "(" + result + ")";
    }

private:
    bool done() const { return i_ >= text_.size(); }
    char peek() const { return text_[i_]; }

    bool take(std::string_view expected) {
        if (text_.substr(i_, expected.size()) != expected) {
            return false;
        }
        i_ += expected.size();
        return true;
    }

    // Up to what ends an alternative.
    std::string sequence() {
        std::string result;
        while (!done() && peek() != '|' && peek() != ')' && peek() != '$' && peek() != '^') {
            result += (result.empty() ? "" : " ") + repeated(atom());
        }
        return result.empty() ? "\"\"" : result;
    }

    std::string group() {
        if (++depth_ > kMaxDepth) {
            refuse("nests deeper than " + std::to_string(kMaxDepth) + " levels");
        }
        if (take("?") && !take(":")) {
            skip_group_name();
        }
        std::string result = sequence();
        while (take("|")) {
            result += " | " + sequence();
        }
        if (!take(")")) {
            refuse(done() ? "has a parenthesis that is not closed" : "has an anchor inside, which is not supported");
        }
        --depth_;
        return "(" + result + ")";
    }

    void skip_group_name() {
        const bool   named = take("<") && !done() && peek() != '=' && peek() != '!';
        const size_t end   = text_.find('>', i_);
        if (!named || end == std::string_view::npos) {
            refuse("has a look-around or flags, which are not supported");
        }
        i_ = end + 1;
    }

    std::string atom() {
        const uint32_t c = character();
        switch (c) {
            case '(':
                return group();
            case '[':
                return spelling(bracket());
            case '.':
                return spelling(without(kText, kNewlines));
            case '\\':
                return spelling(escape(false).sure);
            case '*':
            case '+':
            case '?':
            case '{':
                refuse("has nothing to repeat");
            default:
                return spelling({{c, c}});
        }
    }

    std::string repeated(const std::string & atom) {
        std::string result;
        if (take("*") || take("+") || take("?")) {
            result = atom + text_[i_ - 1];
        } else if (take("{")) {
            result = atom + braces();
        } else {
            return atom;
        }
        take("?");  // as few as possible: the same strings match
        if (!done() && (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{')) {
            refuse("repeats a repetition");
        }
        return result;
    }

    std::string braces() {
        const std::optional<int> least = number();
        std::optional<int>       most  = least;
        if (take(",")) {
            most = number();
        }
        if (!least || !take("}") || (most && *most < *least)) {
            refuse("has a repetition that cannot be read");
        }
        return "{" + std::to_string(*least) + "," + (most ? std::to_string(*most) : "") + "}";
    }

    std::optional<int> number() {
        std::optional<int> result;
        while (!done() && peek() >= '0' && peek() <= '9') {
            result = result.value_or(0) * 10 + (text_[i_++] - '0');
            if (*result > kMaxRepetitions) {
                refuse("repeats more than " + std::to_string(kMaxRepetitions) + " times");
            }
        }
        return result;
    }

    Set bracket() {
        const bool negated = take("^");
        Class      all;
        while (!done() && peek() != ']') {
            Class next = member();
            if (text_.substr(i_, 1) == "-" && text_.substr(i_, 2) != "-]") {
                ++i_;
                next = span(next, done() ? Class{} : member());
            }
            all = {both(std::move(all.sure), next.sure), both(std::move(all.possible), next.possible)};
        }
        if (!take("]")) {
            refuse("has a class that is not closed");
        }
        return negated ? without(kText, all.possible) : all.sure;
    }

    static Class span(const Class & first, const Class & last) {
        const auto single = [](const Class & c) {
            return c.possible.size() == 1 && c.possible[0].first == c.possible[0].second;
        };
        if (!single(first) || !single(last) || first.sure[0].first > last.sure[0].first) {
            refuse("has a range that cannot be read");
        }
        return literal(first.sure[0].first, last.sure[0].first);
    }

    static Class literal(uint32_t from, uint32_t to) { return {{{from, to}}, {{from, to}}}; }

    Class member() {
        const uint32_t c = character();
        return c == '\\' ? escape(true) : literal(c, c);
    }

    // After the backslash.
    Class escape(bool in_class) {
        if (done()) {
            refuse("ends in a backslash");
        }
        const uint32_t c = character();
        switch (c) {
            case 'd':
                return {kDigits, both(kDigits, kNonAscii)};
            case 'w':
                return {kWord, both(kWord, kNonAscii)};
            case 's':
                return {kSpace, kAnySpace};
            case 'D':
                return {without(kAscii, kDigits), without(kText, kDigits)};
            case 'W':
                return {without(kAscii, kWord), without(kText, kWord)};
            case 'S':
                return {without(kText, kAnySpace), without(kText, kSpace)};
            default:
                const uint32_t itself = escaped_character(c, in_class);
                return literal(itself, itself);
        }
    }

    uint32_t escaped_character(uint32_t c, bool in_class) {
        switch (c) {
            case 't':
                return '\t';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 'f':
                return '\f';
            case 'v':
                return '\v';
            case 'x':
                return hexadecimal(2);
            case 'u':
                return hexadecimal(4);
            default:
                break;
        }
        const bool letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (letter || c > 0x7F || (c == '-' && !in_class)) {
            refuse("has an escape that is not supported");
        }
        return c;
    }

    uint32_t hexadecimal(size_t digits) {
        const std::string_view text = text_.substr(i_, digits);
        if (text.size() < digits || text.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos) {
            refuse("has an escape that cannot be read");
        }
        i_ += digits;
        return static_cast<uint32_t>(std::stoul(std::string(text), nullptr, 16));
    }

    // The next code point. REQUIRES: !done(), valid UTF-8.
    uint32_t character() {
        const auto     lead   = static_cast<unsigned char>(text_[i_++]);
        const int      more   = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        uint32_t       result = more == 0 ? lead : lead & (0x3Fu >> more);
        for (int n = 0; n < more && !done(); ++n) {
            result = result << 6 | (static_cast<unsigned char>(text_[i_++]) & 0x3Fu);
        }
        return result;
    }

    std::string_view text_;
    GbnfWriter &     rules_;
    size_t           i_     = 0;
    int              depth_ = 0;
};

}  // namespace

std::string pattern_grammar(std::string_view pattern, GbnfWriter & rules) {
    return Parser(pattern, rules).whole();
}

}  // namespace inferno
