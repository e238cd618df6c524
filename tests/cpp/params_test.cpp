#include "params.h"

#include <cmath>
#include <functional>

#include "error.h"
#include "test.h"

namespace inferno {
namespace {

// The field that validate() refuses after `change`; "" when it refuses nothing.
std::string refused(const std::function<void(SamplingParams &)> & change) {
    SamplingParams params;
    change(params);
    try {
        validate(params);
    } catch (const Error & error) {
        return error.field();
    }
    return "";
}

TEST(defaults_are_valid) {
    validate(SamplingParams{});
    validate(EngineOptions{});
}

TEST(both_ends_of_a_bound_hold) {
    CHECK_EQ(refused([](auto & p) { p.temperature = 0; }), "");
    CHECK_EQ(refused([](auto & p) { p.temperature = 2; }), "");
    CHECK_EQ(refused([](auto & p) { p.temperature = -0.001f; }), "temperature");
    CHECK_EQ(refused([](auto & p) { p.temperature = 2.001f; }), "temperature");
    CHECK_EQ(refused([](auto & p) { p.max_tokens = 0; }), "max_tokens");
    CHECK_EQ(refused([](auto & p) { p.repeat_penalty = 0; }), "repeat_penalty");
}

TEST(numbers_that_are_none_are_refused) {
    CHECK_EQ(refused([](auto & p) { p.top_p = NAN; }), "top_p");
    CHECK_EQ(refused([](auto & p) { p.presence_penalty = INFINITY; }), "presence_penalty");
}

TEST(lists_and_texts_are_bounded) {
    CHECK_EQ(refused([](auto & p) { p.stop.assign(17, "x"); }), "stop");
    CHECK_EQ(refused([](auto & p) { p.stop = {"fine", std::string(257, 'x')}; }), "stop[1]");
    CHECK_EQ(refused([](auto & p) { p.stop = {""}; }), "stop[0]");
    CHECK_EQ(refused([](auto & p) { p.logit_bias = {{5, 101.0f}}; }), "logit_bias.5");
    CHECK_EQ(refused([](auto & p) { p.grammar.assign(65537, 'x'); }), "grammar");
}

TEST(a_choice_is_one_of_those_there_are) {
    EngineOptions options;
    for (const std::string & mode : choices_of("read mmap mlock mmap_mlock direct auto")) {
        options.load_mode = mode;
        validate(options);
    }
    options.load_mode = "rea";
    try {
        validate(options);
        CHECK(false);
    } catch (const Error & error) {
        CHECK_EQ(error.field(), "load_mode");
    }
}

TEST(a_message_names_field_and_range) {
    SamplingParams params;
    params.temperature = 3;
    try {
        validate(params);
    } catch (const Error & error) {
        CHECK_EQ(std::string(error.what()), "temperature must be at least 0 and at most 2.");
    }
}

}  // namespace
}  // namespace inferno
