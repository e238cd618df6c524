#include "params.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "error.h"

namespace inferno {

namespace {

std::string text_of(double bound) {
    std::ostringstream out;
    out.precision(17);
    if (bound == std::nearbyint(bound)) {
        out << std::fixed;
        out.precision(0);
    }
    out << bound;
    return out.str();
}

[[noreturn]] void refuse(const std::string & field, const std::string & expected) {
    throw Error(ErrorCode::invalid_request, field + " must be " + expected + ".", field);
}

template <class Row>
void check_number(const std::string & field, double value, const Row & row) {
    const bool above = row.min_exclusive ? value > row.min : value >= row.min;
    if (!std::isfinite(value) || !above || value > row.max) {
        refuse(field, std::string(row.min_exclusive ? "greater than " : "at least ") + text_of(row.min) +
                          " and at most " + text_of(row.max));
    }
}

template <class Row>
void check_count(const std::string & field, size_t count, const Row & row) {
    if (row.max_items != 0 && count > row.max_items) {
        refuse(field, "a list of at most " + std::to_string(row.max_items) + " items");
    }
}

std::string joined(const std::vector<std::string> & words) {
    std::string result;
    for (const std::string & word : words) {
        result += (result.empty() ? "" : ", ") + word;
    }
    return result;
}

template <class Row>
void check(const std::string &, bool, const Row &) {}

template <class Row>
void check(const std::string & field, int32_t value, const Row & row) {
    check_number(field, value, row);
}

template <class Row>
void check(const std::string & field, float value, const Row & row) {
    check_number(field, static_cast<double>(value), row);
}

template <class Row>
void check(const std::string & field, const std::optional<int64_t> & value, const Row & row) {
    if (value) {
        check_number(field, static_cast<double>(*value), row);
    }
}

template <class Row>
void check(const std::string & field, const std::string & value, const Row & row) {
    if (value.size() > row.max_length) {
        refuse(field, "at most " + std::to_string(row.max_length) + " bytes long");
    }
    const std::vector<std::string> choices = choices_of(row.choices);
    if (!choices.empty() && std::find(choices.begin(), choices.end(), value) == choices.end()) {
        refuse(field, "one of " + joined(choices));
    }
}

template <class Row>
void check(const std::string & field, const JsonText & value, const Row & row) {
    check(field, value.text, row);
}

template <class Row>
void check(const std::string & field, const std::filesystem::path & value, const Row & row) {
    check(field, value.string(), row);
}

template <class Row>
void check(const std::string & field, const LogitBias & value, const Row & row) {
    check_number(field, static_cast<double>(value.bias), row);
}

std::string item_name(const std::string & field, size_t index, const LogitBias & item) {
    (void) index;
    return field + "." + std::to_string(item.token);
}

template <class Item>
std::string item_name(const std::string & field, size_t index, const Item &) {
    return field + "[" + std::to_string(index) + "]";
}

template <class Item, class Row>
void check(const std::string & field, const std::vector<Item> & items, const Row & row) {
    check_count(field, items.size(), row);
    for (size_t i = 0; i < items.size(); ++i) {
        const std::string name = item_name(field, i, items[i]);
        if constexpr (std::is_same_v<Item, std::string>) {
            if (items[i].empty()) {
                refuse(name, "a text that is not empty");
            }
        }
        check(name, items[i], row);
    }
}

template <class Owner, class Table>
void check_all(const Owner & owner, const Table & table) {
    std::apply([&](const auto &... rows) { (check(rows.name, owner.*rows.member, rows), ...); }, table);
}

}  // namespace

std::vector<std::string> choices_of(const char * choices) {
    std::vector<std::string> result;
    std::istringstream       words(choices);
    for (std::string word; words >> word;) {
        result.push_back(word);
    }
    return result;
}

void validate(const SamplingParams & params) {
    check_all(params, kSamplingFields);
}

void validate(const EngineOptions & options) {
    check_all(options, kEngineFields);
    if (options.flash_attention == "off" && options.cache_type_v.front() == 'q') {
        refuse("cache_type_v", "f32, f16 or bf16 where flash_attention is off");
    }
    if (options.main_gpu != 0 && options.split_mode != "none") {
        refuse("main_gpu", "0 where split_mode is not none");
    }
}

}  // namespace inferno
