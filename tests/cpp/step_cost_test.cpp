#include "step_cost.h"

#include <cmath>

#include "test.h"

namespace inferno {
namespace {

Load load(int32_t rows, int32_t position) {
    Load result;
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
    CHECK(std::abs(cost.base_ms() - 10) < 0.5);
    const Load other = load(100, 1500);
    CHECK(std::abs(cost.ms(other) - (10 + 50 + 0.001 * other.depth)) < 2);
    CHECK(std::abs(cost.ms(100, 1500) + cost.base_ms() - cost.ms(other)) < 1e-6);
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
        CHECK(cost.base_ms() >= 0);
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
    CHECK(std::abs(cost.generation_ms(load(8, 50)) - 30) < 1);
    CHECK_EQ(cost.generation_ms({}), 0.0);
    cost.observe(load(8, 50), load(200, 0), 30 + 110);
    CHECK(std::abs(cost.prompt().ms(load(200, 0)) - 110) < 5);
}

}  // namespace
}  // namespace inferno
