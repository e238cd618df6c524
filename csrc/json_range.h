// GBNF expressions for the JSON numbers within bounds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace inferno {

// One end of a range.
struct NumberBound {
    std::string digits;  // a decimal without exponent, as in "-12.5"
    bool        exclusive = false;
};

// Integers without exponent and without leading zeros. Without a bound they have at most 15 digits, so that every
// reader of JSON gets them exactly. Nullopt when there are none.
std::optional<std::string> integers_between(std::optional<int64_t> low, std::optional<int64_t> high);

// Numbers with at most 16 digits after the point and no exponent. Nullopt when there are none.
// Throws std::invalid_argument for a bound with too many digits.
std::optional<std::string> numbers_between(const std::optional<NumberBound> & low,
                                           const std::optional<NumberBound> & high);

}  // namespace inferno
