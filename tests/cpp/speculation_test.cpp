#include "speculation.h"

#include <cmath>

#include "test.h"

namespace inferno {
namespace {

constexpr int32_t kRows = 64;

std::vector<DraftOffer> offers(int32_t n, int32_t n_drafted, double rate) {
    std::vector<DraftOffer> result;
    for (int32_t slot = 0; slot < n; ++slot) {
        result.push_back({slot, n_drafted, rate});
    }
    return result;
}

// Steps of up to 64 rows take `base` ms and `row` ms for each.
Speculation knowing(double base, double row) {
    Speculation speculation;
    for (int32_t rows = 1; rows <= kRows; ++rows) {
        speculation.observe(rows, base + row * rows);
    }
    return speculation;
}

TEST(a_record_follows_what_is_accepted) {
    DraftRecord record;
    CHECK_EQ(record.rate(), 0.5);
    for (int i = 0; i < 50; ++i) {
        record.observe(4, 4);
    }
    CHECK(record.rate() > 0.98);
    for (int i = 0; i < 50; ++i) {
        record.observe(4, 0);
    }
    CHECK(record.rate() < 0.02);
    for (int i = 0; i < 50; ++i) {
        record.observe(8, 3);  // three right for each one that is wrong
    }
    CHECK(std::abs(record.rate() - 0.75) < 0.1);
}

TEST(a_number_of_rows_costs_what_was_seen_or_more_than_fewer_and_less_than_more) {
    RowCost cost;
    CHECK(!cost.ms(4, 1.0));
    cost.observe(4, 10);
    CHECK(!cost.ms(3, 1.0));
    CHECK_EQ(*cost.ms(4, 1.0), 10.0);
    CHECK_EQ(*cost.ms(6, 1.0), 12.0);
    cost.observe(8, 11);
    CHECK_EQ(*cost.ms(6, 1.0), 11.0);
    CHECK_EQ(*cost.ms(9, 1.0), 12.0);
    CHECK(!cost.ms(0, 1.0));
    CHECK(!cost.ms(RowCost::kMaxRows + 1, 1.0));
    cost.observe(RowCost::kMaxRows + 1, 5);
    for (int i = 0; i < 100; ++i) {
        cost.observe(4, 20);
    }
    CHECK(std::abs(*cost.ms(4, 1.0) - 20) < 0.1);
}

TEST(nothing_is_drafted_before_a_step_has_been_seen) {
    Speculation speculation;
    CHECK_EQ(speculation.length(offers(1, 8, 0.9), kRows, 0.1), 0);
    speculation.observe(1, 3);
    CHECK(speculation.length(offers(1, 8, 0.9), kRows, 0.1) > 0);
    CHECK_EQ(speculation.length(offers(1, 0, 0.9), kRows, 0.1), 0);
    CHECK_EQ(speculation.length({}, kRows, 0.1), 0);
}

TEST(sure_guesses_are_taken_whole_and_doubtful_ones_in_part) {
    Speculation speculation = knowing(3, 0.5);
    CHECK_EQ(speculation.length(offers(1, 8, 0.97), kRows, 0.5), 8);
    const int32_t some = speculation.length(offers(1, 8, 0.6), kRows, 0.5);
    CHECK(some > 0 && some < 4);
    CHECK_EQ(speculation.length(offers(1, 8, 0.1), kRows, 0.5), 0);
}

TEST(rows_that_cost_as_much_as_a_step_are_not_drafted) {
    Speculation speculation = knowing(0, 3);
    CHECK_EQ(speculation.length(offers(1, 8, 0.95), kRows, 3), 0);
}

TEST(there_are_no_more_rows_than_may_be) {
    Speculation speculation = knowing(3, 0.1);
    CHECK_EQ(speculation.length(offers(4, 8, 0.97), 20, 0.1), 4);
    CHECK_EQ(speculation.length(offers(4, 8, 0.97), 7, 0.1), 0);
}

TEST(one_guess_among_many_sequences_is_not_worth_a_pass) {
    Speculation speculation = knowing(3, 0.1);
    auto        some        = offers(8, 0, 0.9);
    some[3].n_drafted       = 4;
    CHECK_EQ(speculation.length(some, kRows, 0.1), 0);
    for (auto & offer : some) {
        offer.n_drafted = 4;
    }
    CHECK_EQ(speculation.length(some, kRows, 0.1), 4);
    some[0].n_drafted = 0;  // seven of eight, in slots one after the other
    CHECK(speculation.length(some, kRows, 0.1) > 0);
    for (size_t i = 1; i < some.size(); i += 2) {
        some[i].n_drafted = 0;  // gaps
    }
    CHECK_EQ(speculation.length(some, kRows, 0.1), 0);
}

TEST(guesses_that_have_to_be_made_pay_when_making_them_is_cheap) {
    Speculation speculation = knowing(3, 0.1);
    auto        made        = offers(1, 8, 0.9);
    made[0].is_made         = true;
    const int32_t cheap     = speculation.length(made, kRows, 0.1, 0.2);
    const int32_t dear      = speculation.length(made, kRows, 0.1, 1.5);
    CHECK(cheap > dear && dear > 0);
    CHECK_EQ(speculation.length(made, kRows, 0.1, 3), 0);
    made[0].is_made = false;
    CHECK_EQ(speculation.length(made, kRows, 0.1, 3), 8);
}

TEST(what_does_not_pay_is_tried_once_in_a_while) {
    Speculation speculation = knowing(3, 0.5);
    int         tried       = 0;
    for (int i = 0; i < 640; ++i) {
        tried += speculation.length(offers(1, 8, 0.05), kRows, 0.5) > 0 ? 1 : 0;
    }
    CHECK_EQ(tried, 10);
}

}  // namespace
}  // namespace inferno
