#include "scheduler.h"

#include <memory>

#include "test.h"

namespace inferno {
namespace {

constexpr SchedulerOptions kOptions{4, 64, 80.0, true, true};

TimePoint at(int ms) {
    return TimePoint() + std::chrono::milliseconds(ms);
}

// Sequences that a test keeps, and steps that always succeed.
class Bench {
public:
    explicit Bench(SchedulerOptions options = kOptions) : scheduler(options) {}

    // A prompt that has nothing in common with others.
    Sequence & add(int32_t n_prompt, int32_t priority = 0) {
        return add_prompt(
            std::vector<Token>(static_cast<size_t>(n_prompt), static_cast<Token>(sequences.size() + 1000)), priority);
    }

    Sequence & add_prompt(std::vector<Token> prompt, int32_t priority = 0) {
        sequences.push_back(std::make_unique<Sequence>(sequences.size() + 1, std::move(prompt), SamplingParams{}));
        sequences.back()->priority = priority;
        sequences.back()->accepted = at(now);
        scheduler.add(sequences.back().get());
        return *sequences.back();
    }

    // Plans, "computes" in `ms`, and samples one token for each finished row.
    Step run(double ms = 1) {
        const Step step = scheduler.plan(at(now));
        for (const auto & save : step.saves) {
            save.sequence->saved = {1};
        }
        for (const auto & restore : step.restores) {
            restore.sequence->saved.clear();
        }
        scheduler.commit(step, ms);
        for (const Step::Part & part : step.parts) {
            if (part.samples) {
                part.sequence->tokens.push_back(0);
            }
        }
        now += static_cast<int>(ms);
        return step;
    }

    Scheduler                              scheduler;
    std::vector<std::unique_ptr<Sequence>> sequences;
    int                                    now = 0;
};

int32_t rows_of(const Step & step, const Sequence & sequence) {
    for (const Step::Part & part : step.parts) {
        if (part.sequence == &sequence) {
            return part.n_rows;
        }
    }
    return 0;
}

TEST(a_prompt_alone_takes_whole_batches) {
    Bench            bench;
    const Sequence & sequence = bench.add(100);
    CHECK_EQ(rows_of(bench.run(), sequence), 64);
    CHECK_EQ(rows_of(bench.run(), sequence), 36);
    CHECK_EQ(rows_of(bench.run(), sequence), 1);
}

TEST(generating_sequences_are_never_skipped) {
    Bench            bench;
    const Sequence & generating = bench.add(10);
    bench.run();
    bench.add(1000);
    for (int i = 0; i < 20; ++i) {
        CHECK_EQ(rows_of(bench.run(20), generating), 1);
    }
}

TEST(a_prompt_beside_generation_keeps_to_the_time_budget) {
    Bench bench({4, 512, 80.0, true, true});
    bench.add(10);
    bench.run(10);
    const Sequence & prompt = bench.add(400);
    int32_t          rows   = 0;
    for (int i = 0; i < 6; ++i) {
        // Each row costs 2 ms, so 80 ms are 40 rows.
        const Step step = bench.scheduler.plan(at(bench.now));
        rows            = rows_of(step, prompt);
        bench.scheduler.commit(step, 2.0 * static_cast<double>(step.batch.rows.size()));
        for (const Step::Part & part : step.parts) {
            if (part.samples) {
                part.sequence->tokens.push_back(0);
            }
        }
    }
    CHECK_EQ(rows, 39);  // 40 with the row that generates
}

TEST(the_shorter_prompt_goes_first) {
    Bench bench({4, 64, 80.0, true, true});
    bench.add(5);
    bench.run(50);
    const Sequence & long_prompt  = bench.add(2000);
    const Sequence & short_prompt = bench.add(20);
    const Step       step         = bench.run(50);
    CHECK(rows_of(step, short_prompt) > 0);
    CHECK(rows_of(step, short_prompt) >= rows_of(step, long_prompt));
}

TEST(a_long_prompt_is_not_starved_by_short_ones) {
    Bench            bench({4, 64, 80.0, true, true});
    const Sequence & long_prompt = bench.add(640);
    int              steps       = 0;
    while (long_prompt.n_generated() == 0 && steps < 200) {
        // A stream of short prompts, each of which would fill the batch.
        if (bench.scheduler.running().size() < 4) {
            bench.add(64);
        }
        bench.run(64);
        ++steps;
        const auto running = bench.scheduler.running();
        for (Sequence * sequence : running) {
            if (sequence != &long_prompt && sequence->n_generated() > 0) {
                bench.scheduler.remove(sequence);
            }
        }
    }
    CHECK(steps < 60);
}

TEST(priority_starts_first_and_arrival_next) {
    Bench bench({1, 64, 80.0, true, true});
    bench.add(4, 0);
    const Sequence & second = bench.add(4, 5);
    bench.run();
    CHECK(bench.scheduler.running()[0] == &second);
}

TEST(a_higher_priority_takes_the_slot_of_the_newest_lower_one) {
    Bench bench({2, 64, 80.0, true, true});
    bench.add(4, 0);
    Sequence & newest = bench.add(4, 0);
    bench.run();
    const Sequence & urgent = bench.add(4, 9);
    const Step       step   = bench.run();
    CHECK_EQ(step.saves.size(), size_t{1});
    CHECK(step.saves[0].sequence == &newest);
    CHECK(rows_of(step, urgent) > 0);
    CHECK_EQ(bench.scheduler.preemptions(), uint64_t{1});
}

TEST(a_preempted_sequence_is_restored_where_it_was) {
    Bench bench({1, 64, 80.0, true, true});
    Sequence & sequence = bench.add(4, 0);
    bench.run();
    Sequence & urgent = bench.add(4, 9);
    bench.run();
    bench.scheduler.remove(&urgent);
    const Position before = sequence.n_past;
    const Step     step   = bench.run();
    CHECK_EQ(step.restores.size(), size_t{1});
    CHECK_EQ(sequence.n_past, before + 1);
}

TEST(equal_priority_preempts_nobody) {
    Bench bench({1, 64, 80.0, true, true});
    bench.add(4);
    bench.run();
    bench.add(4);
    CHECK(bench.run().saves.empty());
    CHECK_EQ(bench.scheduler.waiting().size(), size_t{1});
}

TEST(without_room_cached_texts_go_before_running_ones) {
    Bench      bench;
    Sequence & done = bench.add(4);
    bench.run();
    bench.scheduler.remove(&done);
    bench.add(4);
    bench.run();
    CHECK(bench.scheduler.make_room());
    CHECK_EQ(bench.scheduler.preemptions(), uint64_t{0});
    CHECK_EQ(bench.scheduler.cached_tokens(), 0);
}

TEST(without_room_the_newest_is_preempted_and_nothing_starts_until_one_leaves) {
    Bench      bench;
    Sequence & first = bench.add(4);
    bench.add(4);
    bench.run();
    CHECK(bench.scheduler.make_room());
    CHECK_EQ(bench.scheduler.running().size(), size_t{1});
    bench.run();
    CHECK_EQ(bench.scheduler.running().size(), size_t{1});
    bench.scheduler.remove(&first);
    bench.run();
    CHECK_EQ(bench.scheduler.running().size(), size_t{1});
    CHECK_EQ(bench.scheduler.waiting().size(), size_t{0});
}

TEST(a_single_sequence_cannot_make_room) {
    Bench bench;
    bench.add(4);
    bench.run();
    CHECK(!bench.scheduler.make_room());
}

TEST(gaps_between_running_slots_are_closed) {
    Bench bench;
    bench.add(4);
    Sequence & middle = bench.add(4);
    bench.add(4);
    bench.run();
    bench.scheduler.remove(&middle);
    const Step step = bench.run();
    CHECK_EQ(step.swaps.size(), size_t{1});
    const auto & running = bench.scheduler.running();
    CHECK_EQ(std::abs(running[0]->slot - running[1]->slot), 1);
}

TEST(what_a_running_prompt_has_computed_can_be_copied) {
    Bench bench;
    bench.add_prompt(std::vector<Token>(200, 7));
    bench.run();
    bench.run();
    const Sequence & other = bench.add_prompt(std::vector<Token>(100, 7));
    bench.run();
    CHECK_EQ(other.n_cached, 99);
}

TEST(rows_come_in_slot_order) {
    Bench bench;
    for (int i = 0; i < 4; ++i) {
        bench.add(5);
    }
    const Step step = bench.run();
    for (size_t i = 1; i < step.batch.rows.size(); ++i) {
        CHECK(step.batch.rows[i].slot >= step.batch.rows[i - 1].slot);
    }
}

TEST(a_failed_step_is_computed_again_from_the_start) {
    Bench            bench;
    const Sequence & sequence = bench.add(10);
    bench.run();
    const Step failed = bench.scheduler.plan(at(1));
    bench.scheduler.recompute(failed);
    CHECK_EQ(sequence.n_past, 0);
    CHECK_EQ(rows_of(bench.run(), sequence), 11);
}

TEST(the_cost_of_a_step_is_learned) {
    StepCost cost;
    CHECK_EQ(cost.rows_within(100), 0);
    for (int rows = 1; rows <= 64; rows *= 2) {
        cost.observe(rows, 10 + 0.5 * rows);
    }
    CHECK(std::abs(cost.row_ms() - 0.5) < 0.01);
    CHECK(std::abs(cost.rows_within(60) - 100) <= 2);
}

}  // namespace
}  // namespace inferno
