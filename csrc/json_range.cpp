#include "json_range.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

namespace inferno {

namespace {

constexpr uint64_t kLargestExact = 999'999'999'999'999;  // 15 digits: a double holds each such integer
constexpr int      kMaxFraction  = 16;
constexpr size_t   kMaxDigits    = 15;  // of a bound, before and after the point

using Expression = std::optional<std::string>;  // nullopt: nothing fits

std::string joined(const std::vector<std::string> & alternatives) {
    std::string result;
    for (const std::string & alternative : alternatives) {
        result += (result.empty() ? "" : " | ") + alternative;
    }
    return alternatives.size() > 1 ? "(" + result + ")" : result;
}

Expression any_of(const std::vector<std::string> & alternatives) {
    return alternatives.empty() ? std::nullopt : Expression(joined(alternatives));
}

std::string digit_class(char from, char to) {
    return from == to ? std::string{'"', from, '"'} : std::string{'[', from, '-', to, ']'};
}

std::string any_digits(size_t n) {
    return n == 0 ? "" : n == 1 ? " [0-9]" : " [0-9]{" + std::to_string(n) + "}";
}

// ---- integers ---------------------------------------------------------------------------------------------------

// Numbers of as many digits as the bounds, which have equally many.
std::string same_length(const std::string & low, const std::string & high) {
    const size_t      rest = low.size() - 1;
    const std::string nines(rest, '9');
    const std::string zeros(rest, '0');
    if (rest == 0 || (low.substr(1) == zeros && high.substr(1) == nines)) {
        return digit_class(low[0], high[0]) + any_digits(rest);
    }
    if (low[0] == high[0]) {
        return digit_class(low[0], low[0]) + " " + same_length(low.substr(1), high.substr(1));
    }
    std::vector<std::string> alternatives;
    alternatives.push_back(digit_class(low[0], low[0]) + " " + same_length(low.substr(1), nines));
    if (high[0] - low[0] > 1) {
        const auto from = static_cast<char>(low[0] + 1);
        const auto to   = static_cast<char>(high[0] - 1);
        alternatives.push_back(digit_class(from, to) + any_digits(rest));
    }
    alternatives.push_back(digit_class(high[0], high[0]) + " " + same_length(zeros, high.substr(1)));
    return joined(alternatives);
}

Expression natural_numbers(uint64_t low, uint64_t high) {
    if (low > high) {
        return std::nullopt;
    }
    std::string              from = std::to_string(low);
    const std::string        to   = std::to_string(high);
    std::vector<std::string> alternatives;
    while (from.size() < to.size()) {
        alternatives.push_back(same_length(from, std::string(from.size(), '9')));
        from = "1" + std::string(from.size(), '0');
    }
    alternatives.push_back(same_length(from, to));
    return joined(alternatives);
}

uint64_t magnitude(int64_t value) {
    return value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
}

// ---- fractions --------------------------------------------------------------------------------------------------

// The digits of a bound that are still to be compared; zeros follow them.
struct Tight {
    std::string digits;
    bool        exclusive;

    bool  zero() const { return digits.find_first_not_of('0') == std::string::npos; }
    char  front() const { return digits.empty() ? '0' : digits[0]; }
    Tight rest() const { return {digits.empty() ? "" : digits.substr(1), exclusive}; }
};

using Limit = std::optional<Tight>;  // nullopt: the digits so far have settled it

Limit lower(const Limit & limit) {
    return limit && limit->zero() && !limit->exclusive ? std::nullopt : limit;
}

bool may_end(const Limit & low, const Limit & high) {
    return !lower(low) && (!high || !high->zero() || !high->exclusive);
}

// One to `left` digits.
Expression fraction_digits(const Limit & given_low, const Limit & high, int left) {
    const Limit low = lower(given_low);
    if (left == 0) {
        return std::nullopt;
    }
    if (!low && !high) {
        return "[0-9]{1," + std::to_string(left) + "}";
    }
    const char               from = low ? low->front() : '0';
    const char               to   = high ? high->front() : '9';
    std::vector<std::string> alternatives;
    const auto               add = [&](char first, char last, const Limit & next_low, const Limit & next_high) {
        const Expression rest  = fraction_digits(next_low, next_high, left - 1);
        const std::string head = digit_class(first, last);
        if (may_end(next_low, next_high)) {
            alternatives.push_back(rest ? head + " (" + *rest + ")?" : head);
        } else if (rest) {
            alternatives.push_back(head + " " + *rest);
        }
    };
    const auto settled = [](const Limit & limit, bool still_tight) {
        return still_tight ? Limit(limit->rest()) : std::nullopt;
    };
    // Digits that leave both bounds alike go together: the lowest, those between, the highest.
    for (char digit = from; digit <= to;) {
        const bool at_low  = low && digit == from;
        const bool at_high = high && digit == to;
        const char last    = at_low || at_high ? digit : static_cast<char>(high ? to - 1 : to);
        add(digit, last, settled(low, at_low), settled(high, at_high));
        digit = static_cast<char>(last + 1);
    }
    return any_of(alternatives);
}

Expression fraction(const Limit & low, const Limit & high) {
    const Expression digits = fraction_digits(low, high, kMaxFraction);
    if (may_end(low, high)) {
        return digits ? " (\".\" " + *digits + ")?" : "";
    }
    return digits ? Expression(" \".\" " + *digits) : std::nullopt;
}

// ---- numbers ----------------------------------------------------------------------------------------------------

struct Decimal {
    uint64_t whole;
    Tight    fraction;
};

bool negative(const NumberBound & bound) {
    return bound.digits[0] == '-' && bound.digits.find_first_of("123456789") != std::string::npos;
}

Decimal magnitude(const NumberBound & bound) {
    const std::string digits = bound.digits.substr(bound.digits[0] == '-' ? 1 : 0);
    const size_t      point  = std::min(digits.find('.'), digits.size());
    const std::string rest   = point < digits.size() ? digits.substr(point + 1) : "";
    if (point > kMaxDigits || rest.size() > kMaxDigits) {
        throw std::invalid_argument("has more than " + std::to_string(kMaxDigits) + " digits on a side of the point");
    }
    return {std::stoull(digits.substr(0, point)), {rest, bound.exclusive}};
}

Expression numbers_from_zero(const Decimal & low, const Decimal & high) {
    std::vector<std::string> alternatives;
    const auto               add = [&](const Expression & whole, const Expression & rest) {
        if (whole && rest) {
            alternatives.push_back(*whole + *rest);
        }
    };
    if (low.whole == high.whole) {
        add(natural_numbers(low.whole, low.whole), fraction(low.fraction, high.fraction));
    } else if (low.whole < high.whole) {
        add(natural_numbers(low.whole, low.whole), fraction(low.fraction, std::nullopt));
        add(natural_numbers(low.whole + 1, high.whole - 1), fraction(std::nullopt, std::nullopt));
        add(natural_numbers(high.whole, high.whole), fraction(std::nullopt, high.fraction));
    }
    return any_of(alternatives);
}

// The two halves of a range; `below` counts from zero downwards.
Expression with_sign(const Expression & below, const Expression & above) {
    std::vector<std::string> alternatives;
    if (below) {
        alternatives.push_back("\"-\" " + *below);
    }
    if (above) {
        alternatives.push_back(*above);
    }
    return any_of(alternatives);
}

}  // namespace

std::optional<std::string> integers_between(std::optional<int64_t> low, std::optional<int64_t> high) {
    constexpr auto exact   = static_cast<int64_t>(kLargestExact);
    constexpr auto largest = std::numeric_limits<int64_t>::max();
    const int64_t  from    = low.value_or(high.value_or(0) >= -exact ? -exact : std::numeric_limits<int64_t>::min());
    const int64_t  to      = high.value_or(from <= exact ? exact : largest);
    if (from > to) {
        return std::nullopt;
    }
    const Expression below = from < 0 ? natural_numbers(to < 0 ? magnitude(to) : 1, magnitude(from)) : std::nullopt;
    const Expression above = to >= 0 ? natural_numbers(from > 0 ? magnitude(from) : 0, magnitude(to)) : std::nullopt;
    return with_sign(below, above);
}

std::optional<std::string> numbers_between(const std::optional<NumberBound> & low,
                                           const std::optional<NumberBound> & high) {
    const Decimal zero{0, {"", false}};
    const Decimal far{kLargestExact, {"", false}};
    const bool    low_negative  = !low || negative(*low);
    const bool    high_negative = high && negative(*high);
    Expression    below;
    if (low_negative) {
        const Decimal least_below_zero{0, {"", true}};
        below = numbers_from_zero(high_negative ? magnitude(*high) : least_below_zero, low ? magnitude(*low) : far);
    }
    Expression above;
    if (!high_negative) {
        above = numbers_from_zero(low_negative ? zero : magnitude(*low), high ? magnitude(*high) : far);
    }
    return with_sign(below, above);
}

}  // namespace inferno
