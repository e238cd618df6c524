#include "gbnf.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "model.h"

namespace inferno {

namespace {

using Kind     = GrammarRules::Kind;
using Element  = GrammarRules::Element;
using Sequence = std::vector<Element>;
using Range    = std::pair<uint32_t, uint32_t>;
using Ranges   = std::vector<Range>;

constexpr int      kMaxDepth         = 64;      // parentheses; the parser recurses
constexpr size_t   kMaxElements      = 400000;  // in all, after repetitions have been written out
constexpr uint64_t kMaxRepetitions   = 4096;
constexpr uint64_t kNoEnd            = std::numeric_limits<uint64_t>::max();
constexpr uint32_t kLargestCodePoint = 0x10FFFF;

[[noreturn]] void refuse(const std::string & why) {
    throw std::invalid_argument(why);
}

struct Rule {
    std::vector<Sequence> alternatives;
    bool                  defined = false;
    bool                  loop    = false;  // written out from a repetition: its last element may be itself
};

// ---- characters -> bytes ----------------------------------------------------------------------------------------

std::string encoded(uint32_t c) {
    std::string result;
    const int   more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    if (more == 0) {
        return {static_cast<char>(c)};
    }
    static const uint32_t lead[] = {0, 0xC0, 0xE0, 0xF0};
    result.push_back(static_cast<char>(lead[more] | c >> (6 * more)));
    for (int i = more - 1; i >= 0; --i) {
        result.push_back(static_cast<char>(0x80 | (c >> (6 * i) & 0x3F)));
    }
    return result;
}

ByteSet byte_range(char from, char to) {
    ByteSet result;
    for (unsigned byte = static_cast<unsigned char>(from); byte <= static_cast<unsigned char>(to); ++byte) {
        result.set(byte);
    }
    return result;
}

// Splits a range of characters so that each part is all combinations of one range of bytes at each place.
void add_byte_sequences(uint32_t from, uint32_t to, std::vector<std::vector<ByteSet>> & out) {
    for (const uint32_t last : {0x7Fu, 0x7FFu, 0xFFFFu}) {
        if (from <= last && last < to) {
            add_byte_sequences(from, last, out);
            return add_byte_sequences(last + 1, to, out);
        }
    }
    for (int bits = 6; bits <= 18 && to > 0x7F; bits += 6) {
        const uint32_t low = (1u << bits) - 1;
        if ((from & ~low) == (to & ~low)) {
            continue;
        }
        if ((from & low) != 0) {
            add_byte_sequences(from, from | low, out);
            return add_byte_sequences((from | low) + 1, to, out);
        }
        if ((to & low) != low) {
            add_byte_sequences(from, (to & ~low) - 1, out);
            return add_byte_sequences(to & ~low, to, out);
        }
    }
    const std::string    first = encoded(from);
    const std::string    last  = encoded(to);
    std::vector<ByteSet> sequence;
    for (size_t i = 0; i < first.size(); ++i) {
        sequence.push_back(byte_range(first[i], last[i]));
    }
    out.push_back(std::move(sequence));
}

// All characters that are not in `ranges`; sorted, without surrogates, which UTF-8 does not write.
Ranges complement(Ranges ranges) {
    ranges.emplace_back(0xD800, 0xDFFF);
    std::sort(ranges.begin(), ranges.end());
    Ranges   result;
    uint32_t next = 0;
    for (const auto & [from, to] : ranges) {
        if (from > next) {
            result.emplace_back(next, from - 1);
        }
        next = std::max(next, to + 1);
    }
    if (next <= kLargestCodePoint) {
        result.emplace_back(next, kLargestCodePoint);
    }
    return result;
}

// ---- text -> rules ----------------------------------------------------------------------------------------------

class Parser {
public:
    Parser(std::string_view text, const Vocabulary * vocabulary) : text_(text), vocabulary_(vocabulary) {
        for (size_t byte = 0; byte < 256; ++byte) {
            byte_sets_.push_back(ByteSet().set(byte));
        }
    }

    void parse() {
        skip_space(true);
        while (!done()) {
            rule();
        }
        for (const auto & [name, index] : names_) {
            if (!rules_[index].defined) {
                refuse("uses a rule that it does not define: " + name.substr(0, 40));
            }
        }
        if (names_.count("root") == 0) {
            refuse("has no rule named root");
        }
    }

    std::vector<Rule>    take_rules() { return std::move(rules_); }
    std::vector<ByteSet> take_byte_sets() { return std::move(byte_sets_); }
    uint32_t             root() const { return names_.at("root"); }

private:
    // ---- reading ----

    bool done() const { return i_ >= text_.size(); }
    char peek(size_t ahead = 0) const { return i_ + ahead < text_.size() ? text_[i_ + ahead] : '\0'; }

    bool take(std::string_view expected) {
        if (text_.substr(i_, expected.size()) != expected) {
            return false;
        }
        i_ += expected.size();
        return true;
    }

    void expect(std::string_view expected) {
        if (!take(expected)) {
            unreadable(std::string(expected) + " is missing");
        }
    }

    [[noreturn]] void unreadable(const std::string & why) const {
        const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(i_), '\n');
        refuse("cannot be read: " + why + " in line " + std::to_string(line));
    }

    void skip_space(bool newlines) {
        while (!done()) {
            const char c = peek();
            if (c == '#') {
                i_ = std::min(text_.find_first_of("\r\n", i_), text_.size());
            } else if (c == ' ' || c == '\t' || (newlines && (c == '\r' || c == '\n'))) {
                ++i_;
            } else {
                return;
            }
        }
    }

    static bool is_digit(char c) { return '0' <= c && c <= '9'; }
    static bool is_word(char c) {
        return is_digit(c) || ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z') || c == '-';
    }

    std::string_view word() {
        const size_t begin = i_;
        while (!done() && is_word(peek())) {
            ++i_;
        }
        if (i_ == begin) {
            unreadable("a name is missing");
        }
        return text_.substr(begin, i_ - begin);
    }

    uint64_t number() {
        if (!is_digit(peek())) {
            unreadable("a number is missing");
        }
        uint64_t result = 0;
        while (is_digit(peek())) {
            result = std::min<uint64_t>(result * 10 + static_cast<uint64_t>(peek() - '0'), kNoEnd / 16);
            ++i_;
        }
        return result;
    }

    // ---- rules ----

    uint32_t new_rule() {
        rules_.emplace_back();
        return static_cast<uint32_t>(rules_.size() - 1);
    }

    uint32_t rule_named(std::string_view name) {
        const auto known = names_.find(std::string(name));
        return known != names_.end() ? known->second : names_.emplace(name, new_rule()).first->second;
    }

    void define(uint32_t index, std::vector<Sequence> alternatives) {
        count(alternatives.size());
        rules_[index].alternatives = std::move(alternatives);
        rules_[index].defined      = true;
    }

    void count(size_t n) {
        n_elements_ += n;
        if (n_elements_ > kMaxElements) {
            refuse("is too large once its repetitions are written out");
        }
    }

    void rule() {
        const uint32_t index = rule_named(word());
        skip_space(false);
        expect("::=");
        skip_space(true);
        define(index, alternatives(false));
        if (!done() && peek() != '\r' && peek() != '\n') {
            unreadable("something that does not belong there");
        }
        skip_space(true);
    }

    std::vector<Sequence> alternatives(bool nested) {
        std::vector<Sequence> result{sequence(nested)};
        while (take("|")) {
            skip_space(true);
            result.push_back(sequence(nested));
        }
        return result;
    }

    Sequence sequence(bool nested) {
        Sequence result;
        size_t   last = 0;  // where the item begins that a repetition is about
        while (!done()) {
            if (std::string_view("*+?{").find(peek()) != std::string_view::npos) {
                repeat(result, last);
            } else {
                const size_t before = result.size();
                if (!item(result)) {
                    break;
                }
                count(result.size() - before);
                last = before;
            }
            skip_space(nested);
        }
        return result;
    }

    bool item(Sequence & out) {
        const char c = peek();
        if (c == '"') {
            literal(out);
        } else if (c == '[') {
            out.push_back(character_class());
        } else if (c == '<' || c == '!') {
            out.push_back(token());
        } else if (c == '(') {
            out.push_back(group());
        } else if (c == '.') {
            ++i_;
            out.push_back(class_element(complement({})));
        } else if (is_word(c)) {
            out.push_back({Kind::rule, rule_named(word())});
        } else {
            return false;
        }
        return true;
    }

    Element group() {
        if (++depth_ > kMaxDepth) {
            refuse("nests deeper than " + std::to_string(kMaxDepth) + " levels");
        }
        expect("(");
        skip_space(true);
        const uint32_t index = new_rule();
        define(index, alternatives(true));
        expect(")");
        --depth_;
        return {Kind::rule, index};
    }

    // ---- repetitions ----

    void repeat(Sequence & out, size_t begin) {
        if (begin == out.size()) {
            unreadable("there is nothing to repeat");
        }
        uint64_t least = 0;
        uint64_t most  = kNoEnd;
        if (take("+")) {
            least = 1;
        } else if (take("?")) {
            most = 1;
        } else if (!take("*")) {
            std::tie(least, most) = braces();
        }
        const Sequence what(out.begin() + static_cast<std::ptrdiff_t>(begin), out.end());
        out.resize(begin);
        for (uint64_t i = 0; i < least; ++i) {
            append(out, what);
        }
        if (most > least) {
            out.push_back({Kind::rule, most == kNoEnd ? any_number_of(what) : up_to(most - least, what)});
        }
    }

    std::pair<uint64_t, uint64_t> braces() {
        expect("{");
        skip_space(true);
        const uint64_t least = number();
        skip_space(true);
        uint64_t most = least;
        if (take(",")) {
            skip_space(true);
            most = is_digit(peek()) ? number() : kNoEnd;
            skip_space(true);
        }
        expect("}");
        if (least > kMaxRepetitions || (most != kNoEnd && most > kMaxRepetitions)) {
            refuse("repeats more than " + std::to_string(kMaxRepetitions) + " times");
        }
        if (most < least) {
            unreadable("a repetition ends before it begins");
        }
        return {least, most};
    }

    void append(Sequence & out, const Sequence & what) {
        count(what.size());
        out.insert(out.end(), what.begin(), what.end());
    }

    // r ::= what r |
    uint32_t any_number_of(const Sequence & what) {
        const uint32_t index = new_rule();
        Sequence       once  = what;
        once.push_back({Kind::rule, index});
        count(once.size());
        define(index, {std::move(once), {}});
        rules_[index].loop = true;
        return index;
    }

    // r_n ::= what r_(n-1) |
    uint32_t up_to(uint64_t n, const Sequence & what) {
        std::optional<uint32_t> rest;
        for (uint64_t i = 0; i < n; ++i) {
            Sequence once = what;
            if (rest) {
                once.push_back({Kind::rule, *rest});
            }
            count(once.size());
            rest = new_rule();
            define(*rest, {std::move(once), {}});
        }
        return *rest;
    }

    // ---- characters ----

    void literal(Sequence & out) {
        expect("\"");
        while (!take("\"")) {
            for (const char byte : encoded(scalar_value())) {
                out.push_back({Kind::bytes, static_cast<unsigned char>(byte)});
            }
        }
    }

    Element character_class() {
        expect("[");
        const bool negated = take("^");
        Ranges     ranges;
        while (!take("]")) {
            const uint32_t from = character();
            uint32_t       to   = from;
            if (peek() == '-' && peek(1) != ']') {
                ++i_;
                to = character();
            }
            if (from > to) {
                unreadable("a range ends before it begins");
            }
            ranges.emplace_back(from, to);
        }
        if (ranges.empty()) {
            unreadable("a class is empty");
        }
        const Ranges others = complement(std::move(ranges));
        return class_element(negated ? others : complement(others));
    }

    // One character of these; a byte set where that is enough, else a rule.
    Element class_element(const Ranges & ranges) {
        const auto known = classes_.find(ranges);
        if (known != classes_.end()) {
            return known->second;
        }
        ByteSet                           ascii;
        std::vector<std::vector<ByteSet>> sequences;
        for (const auto & [from, to] : ranges) {
            add_byte_sequences(from, to, sequences);
        }
        std::vector<Sequence> alternatives;
        for (const std::vector<ByteSet> & sequence : sequences) {
            if (sequence.size() == 1) {
                ascii |= sequence[0];
                continue;
            }
            alternatives.emplace_back();
            for (const ByteSet & set : sequence) {
                alternatives.back().push_back(byte_element(set));
            }
            count(sequence.size());
        }
        if (ascii.any() || alternatives.empty()) {
            alternatives.push_back({byte_element(ascii)});
        }
        if (alternatives.size() == 1 && alternatives[0].size() == 1) {
            return classes_[ranges] = alternatives[0][0];
        }
        const uint32_t index = new_rule();
        define(index, std::move(alternatives));
        return classes_[ranges] = {Kind::rule, index};
    }

    Element byte_element(const ByteSet & set) {
        const auto [known, is_new] = set_numbers_.emplace(set, static_cast<uint32_t>(byte_sets_.size()));
        if (is_new) {
            byte_sets_.push_back(set);
        }
        return {Kind::bytes, known->second};
    }

    uint32_t scalar_value() {
        const uint32_t c = character();
        if (0xD800 <= c && c <= 0xDFFF) {
            unreadable("a surrogate");
        }
        return c;
    }

    uint32_t character() {
        if (done() || peek() == '\n') {
            unreadable("a quote or bracket is not closed");
        }
        if (peek() != '\\') {
            return code_point();
        }
        const char c = peek(1);
        i_ += 2;
        switch (c) {
            case 'x':
                return hexadecimal(2);
            case 'u':
                return hexadecimal(4);
            case 'U':
                return hexadecimal(8);
            case 't':
                return '\t';
            case 'r':
                return '\r';
            case 'n':
                return '\n';
            case '\\':
            case '"':
            case '[':
            case ']':
            case '-':
                return static_cast<uint32_t>(c);
            default:
                unreadable("an escape that is not known");
        }
    }

    uint32_t hexadecimal(size_t digits) {
        const std::string_view text = text_.substr(i_, digits);
        if (text.size() < digits || text.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos) {
            unreadable("an escape that is too short");
        }
        i_ += digits;
        const auto result = std::stoul(std::string(text), nullptr, 16);
        if (result > kLargestCodePoint) {
            unreadable("a character beyond Unicode");
        }
        return static_cast<uint32_t>(result);
    }

    uint32_t code_point() {
        const auto lead = static_cast<unsigned char>(text_[i_]);
        const int  more = lead < 0x80 ? 0 : lead < 0xC0 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF8 ? 3 : -1;
        uint32_t   result = more <= 0 ? lead : lead & (0x3Fu >> more);
        for (int n = 1; n <= more; ++n) {
            result = result << 6 | (static_cast<unsigned char>(peek(static_cast<size_t>(n))) & 0x3Fu);
        }
        const auto length = static_cast<size_t>(1 + std::max(more, 0));
        if (more < 0 || result > kLargestCodePoint || encoded(result) != text_.substr(i_, length)) {
            unreadable("text that is no UTF-8");
        }
        i_ += length;
        return result;
    }

    // ---- tokens ----

    Element token() {
        const Kind kind = take("!") ? Kind::other_token : Kind::token;
        if (take("<[")) {
            const uint64_t id = number();
            expect("]>");
            if (vocabulary_ != nullptr && id >= static_cast<uint64_t>(vocabulary_->size())) {
                refuse("names a token outside the vocabulary");
            }
            return {kind, static_cast<uint32_t>(std::min<uint64_t>(id, std::numeric_limits<int32_t>::max()))};
        }
        const size_t begin = i_;
        const size_t end   = text_.find('>', begin);
        expect("<");
        if (end == std::string_view::npos) {
            unreadable("> is missing");
        }
        i_ = end + 1;
        return {kind, token_named(text_.substr(begin, i_ - begin))};
    }

    uint32_t token_named(std::string_view name) const {
        if (vocabulary_ == nullptr) {
            return 0;
        }
        const std::vector<Token> tokens = vocabulary_->tokenize(name, false, true);
        if (tokens.size() != 1) {
            refuse("names a token that the model does not have: " + std::string(name.substr(0, 40)));
        }
        return static_cast<uint32_t>(tokens[0]);
    }

    std::string_view                          text_;
    const Vocabulary *                        vocabulary_;
    size_t                                    i_          = 0;
    int                                       depth_      = 0;
    size_t                                    n_elements_ = 0;
    std::unordered_map<std::string, uint32_t> names_;
    std::vector<Rule>                         rules_;
    std::vector<ByteSet>                      byte_sets_;  // the first 256 have one byte each
    std::unordered_map<ByteSet, uint32_t>     set_numbers_;
    std::map<Ranges, Element>                 classes_;
};

// ---- what rules can do ------------------------------------------------------------------------------------------

// Rules with an alternative that consists of elements of which `holds` is true and of such rules.
template <class Holds>
std::vector<bool> rules_that_hold(const std::vector<Rule> & rules, Holds holds) {
    struct Alternative {
        uint32_t rule;
        size_t   missing;
    };
    std::vector<Alternative>           alternatives;
    std::vector<std::vector<uint32_t>> users(rules.size());  // alternatives that have this rule in them
    std::vector<uint32_t>              satisfied;
    std::vector<bool>                  result(rules.size());
    const auto                         satisfy = [&](uint32_t rule) {
        if (!result[rule]) {
            result[rule] = true;
            satisfied.push_back(rule);
        }
    };
    for (uint32_t rule = 0; rule < rules.size(); ++rule) {
        for (const Sequence & sequence : rules[rule].alternatives) {
            size_t missing = 0;
            for (const Element & element : sequence) {
                missing += element.kind == Kind::rule || !holds(element) ? 1 : 0;
                if (element.kind == Kind::rule) {
                    users[element.value].push_back(static_cast<uint32_t>(alternatives.size()));
                }
            }
            alternatives.push_back({rule, missing});
            if (missing == 0) {
                satisfy(rule);
            }
        }
    }
    while (!satisfied.empty()) {
        const uint32_t rule = satisfied.back();
        satisfied.pop_back();
        for (const uint32_t user : users[rule]) {
            if (--alternatives[user].missing == 0) {
                satisfy(alternatives[user].rule);
            }
        }
    }
    return result;
}

// Rules that `rule` may begin with.
std::vector<uint32_t> beginnings(const std::vector<Rule> & rules, uint32_t rule,
                                 const std::vector<bool> & may_be_empty) {
    std::vector<uint32_t> result;
    for (const Sequence & sequence : rules[rule].alternatives) {
        for (const Element & element : sequence) {
            if (element.kind != Kind::rule) {
                break;
            }
            // A repetition of something empty comes back to itself with nothing more to do, which does no harm.
            if (!(rules[rule].loop && element.value == rule)) {
                result.push_back(element.value);
            }
            if (!may_be_empty[element.value]) {
                break;
            }
        }
    }
    return result;
}

// A rule that begins with itself would be followed for ever: sorted by "begins with", no rule may be left over.
void refuse_left_recursion(const std::vector<Rule> & rules) {
    const std::vector<bool> may_be_empty = rules_that_hold(rules, [](const Element &) { return false; });
    std::vector<size_t>     begun_by(rules.size());
    for (uint32_t rule = 0; rule < rules.size(); ++rule) {
        for (const uint32_t other : beginnings(rules, rule, may_be_empty)) {
            ++begun_by[other];
        }
    }
    std::vector<uint32_t> free;
    for (uint32_t rule = 0; rule < rules.size(); ++rule) {
        if (begun_by[rule] == 0) {
            free.push_back(rule);
        }
    }
    size_t n_sorted = 0;
    for (; !free.empty(); ++n_sorted) {
        const uint32_t rule = free.back();
        free.pop_back();
        for (const uint32_t other : beginnings(rules, rule, may_be_empty)) {
            if (--begun_by[other] == 0) {
                free.push_back(other);
            }
        }
    }
    if (n_sorted != rules.size()) {
        refuse("has a rule that begins with itself");
    }
}

GrammarRules flattened(const std::vector<Rule> & rules, std::vector<ByteSet> byte_sets, uint32_t root) {
    const std::vector<bool> ends = rules_that_hold(rules, [&](const Element & element) {
        return element.kind != Kind::bytes || byte_sets[element.value].any();
    });
    if (!ends[root]) {
        refuse("never comes to an end");
    }
    const auto   possible = [&](const Element & element) {
        return element.kind == Kind::rule ? ends[element.value]
                                          : element.kind != Kind::bytes || byte_sets[element.value].any();
    };
    GrammarRules result;
    for (const Rule & rule : rules) {
        result.first.push_back(static_cast<uint32_t>(result.alternatives.size()));
        for (const Sequence & sequence : rule.alternatives) {
            if (std::all_of(sequence.begin(), sequence.end(), possible)) {
                result.alternatives.push_back(static_cast<uint32_t>(result.elements.size()));
                result.elements.insert(result.elements.end(), sequence.begin(), sequence.end());
                result.elements.push_back({Kind::end, 0});
            }
        }
    }
    result.first.push_back(static_cast<uint32_t>(result.alternatives.size()));
    result.byte_sets    = std::move(byte_sets);
    result.root         = root;
    result.names_tokens = std::any_of(result.elements.begin(), result.elements.end(), [](const Element & element) {
        return element.kind == Kind::token || element.kind == Kind::other_token;
    });
    return result;
}

}  // namespace

size_t GrammarRules::bytes() const {
    return elements.size() * sizeof(Element) + (alternatives.size() + first.size()) * sizeof(uint32_t) +
           byte_sets.size() * sizeof(ByteSet);
}

GrammarRules parse_gbnf(const std::string & text, const Vocabulary * vocabulary) {
    if (text.find('\0') != std::string::npos) {
        refuse("contains a null character");
    }
    Parser parser(text, vocabulary);
    parser.parse();
    const std::vector<Rule> rules = parser.take_rules();
    refuse_left_recursion(rules);
    return flattened(rules, parser.take_byte_sets(), parser.root());
}

}  // namespace inferno
