#include "step_cost.h"

#include <cmath>

#include "test.h"

namespace inferno {
namespace {

Load load(int32_t rows, int32_t position) {
    Load result{1, 0, 0};
    for (int32_t i = 0; i < rows; ++i) {
        result.add(position + i);
    }
    return result;
}

TEST(rows_and_depth_are_told_apart) {
    LinearCost cost;
    CHECK(!cost.known());
    for (int i = 0; i < 60; ++i) {
        const Load seen = load(16 << (i % 5), 300 * (i % 7));
        cost.observe(seen, 10 + 0.5 * seen.rows + 0.001 * seen.depth);
    }
    CHECK(std::abs(cost.row_ms() - 0.5) < 0.01);
    CHECK(std::abs(cost.pass_ms() - 10) < 0.5);
    const Load other = load(100, 1500);
    CHECK(std::abs(cost.ms(other) - (10 + 50 + 0.001 * other.depth)) < 2);
    CHECK(std::abs(cost.ms(100, 1500) - cost.ms(other)) < 1e-6);
}

TEST(passes_are_told_apart_from_rows) {
    LinearCost cost;
    for (int i = 0; i < 60; ++i) {
        Load seen = load(32 << (i % 4), 0);
        seen.passes = 1 + i % 3;
        cost.observe(seen, 3.0 * seen.passes + 0.3 * seen.rows);
    }
    CHECK(std::abs(cost.pass_ms() - 3) < 0.1);
    CHECK(std::abs(cost.row_ms() - 0.3) < 0.01);
}

TEST(as_many_rows_fit_as_cost_that_much) {
    LinearCost cost;
    for (int i = 0; i < 60; ++i) {
        const Load seen = load(16 << (i % 5), 300 * (i % 7));
        cost.observe(seen, 10 + 0.5 * seen.rows + 0.001 * seen.depth);
    }
    for (const int32_t position : {0, 1000, 4000}) {
        const int32_t rows = cost.rows_within(60, position);
        CHECK(cost.ms(rows, position) <= 60);
        CHECK(cost.ms(rows + 1, position) > 60);
    }
    CHECK_EQ(cost.rows_within(-5, 0), 0);
}

TEST(one_size_of_step_gives_the_cost_of_a_row) {
    LinearCost cost;
    for (int i = 0; i < 20; ++i) {
        cost.observe(load(512, 0), 256);
    }
    CHECK(std::abs(cost.ms(100, 0) - 50) < 2);
}

TEST(noise_never_makes_a_cost_negative) {
    LinearCost cost;
    for (int i = 0; i < 30; ++i) {
        cost.observe(load(100 + i, 3000 - 100 * i), 100 + i % 3);
        CHECK(cost.pass_ms() >= 0);
        CHECK(cost.row_ms() > 0);
        CHECK(cost.ms(load(1, 4000)) > 0);
    }
}

TEST(generation_does_not_blur_the_cost_of_prompts) {
    StepCost cost;
    cost.observe({}, load(100, 0), 60);
    cost.observe({}, load(300, 0), 160);
    const double before = cost.prompt().row_ms();
    for (int i = 0; i < 1000; ++i) {
        cost.observe(load(8, 50), {}, 30);
    }
    CHECK_EQ(cost.prompt().row_ms(), before);
    CHECK(std::abs(cost.common().ms(load(8, 50)) - 30) < 1);
    CHECK_EQ(cost.common().ms({}), 0.0);
    cost.observe(load(8, 50), load(200, 0), 30 + 110);
    CHECK(std::abs(cost.prompt().ms(load(200, 0)) - 110) < 5);
}

// Slow steps at the start, of few rows, say nothing about many rows on an idle machine.
TEST(a_wrong_guess_about_generation_does_not_last_beside_prompts) {
    StepCost cost;
    for (int i = 0; i < 20; ++i) {
        cost.observe(load(1 + i % 13, 200), {}, 10.0 * (1 + i % 13));
    }
    CHECK(cost.common().ms(load(32, 200)) > 200);
    for (int i = 0; i < 60; ++i) {
        const Load prompt = load(16 + i % 9, 200);
        cost.observe(load(32, 200), prompt, 20 + 3 + 0.3 * prompt.rows);
    }
    CHECK(cost.common().ms(load(32, 200)) < 25);
    CHECK(std::abs(cost.common().ms(load(32, 200)) + cost.prompt().ms(load(20, 200)) - 29) < 2);
}

}  // namespace
}  // namespace inferno
