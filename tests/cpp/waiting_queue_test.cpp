#include "waiting_queue.h"

#include <memory>

#include "test.h"

namespace inferno {
namespace {

// A queue and the sequences in it.
class Bench {
public:
    Sequence * add(uint64_t tenant, int32_t priority = 0) {
        sequences_.push_back(
            std::make_unique<Sequence>(sequences_.size() + 1, std::vector<Token>{1}, SamplingParams{}));
        Sequence * sequence  = sequences_.back().get();
        sequence->cache_salt = tenant;
        sequence->priority   = priority;
        queue.enter(*sequence);
        queue.push(sequence);
        return sequence;
    }

    // The next starts and has `n_rows` computed; returns its tenant.
    uint64_t serve(int32_t n_rows) {
        Sequence * next = queue.first(1)[0];
        queue.take(next);
        queue.charge(*next, n_rows);
        queue.leave(*next);
        return next->cache_salt;
    }

    WaitingQueue queue;

private:
    std::vector<std::unique_ptr<Sequence>> sequences_;
};

TEST(higher_priorities_come_first_whatever_they_were_served) {
    Bench bench;
    bench.add(1, 0);
    bench.add(2, 5);
    bench.add(2, 5);
    CHECK_EQ(bench.queue.priority(), 5);
    CHECK_EQ(bench.serve(1000), uint64_t{2});
    CHECK_EQ(bench.serve(1000), uint64_t{2});
    CHECK_EQ(bench.queue.priority(), 0);
    CHECK_EQ(bench.serve(1), uint64_t{1});
    CHECK(bench.queue.empty());
}

TEST(equals_come_in_order_of_arrival) {
    Bench bench;
    bench.add(9);
    bench.add(3);
    CHECK_EQ(bench.serve(10), uint64_t{9});
    CHECK_EQ(bench.serve(10), uint64_t{3});
}

TEST(who_was_away_has_saved_nothing_up) {
    Bench bench;
    for (int i = 0; i < 20; ++i) {
        bench.add(1);
    }
    for (int i = 0; i < 10; ++i) {
        bench.serve(100);
    }
    for (int i = 0; i < 6; ++i) {
        bench.add(2);
    }
    // Level with what the first had been served when it last had its turn, so one turn ahead and then alternating.
    std::vector<uint64_t> turns;
    for (int i = 0; i < 6; ++i) {
        turns.push_back(bench.serve(100));
    }
    CHECK(turns == (std::vector<uint64_t>{2, 1, 2, 1, 2, 1}));
}

TEST(coming_back_does_not_wipe_out_what_was_served) {
    Bench bench;
    bench.add(1);
    bench.add(2);
    bench.add(2);
    bench.add(2);
    CHECK_EQ(bench.serve(1000), uint64_t{1});
    bench.add(1);
    CHECK_EQ(bench.serve(100), uint64_t{2});
    CHECK_EQ(bench.serve(100), uint64_t{2});
    CHECK_EQ(bench.serve(100), uint64_t{2});
    CHECK_EQ(bench.serve(100), uint64_t{1});
}

TEST(of_very_many_tenants_those_who_are_away_are_forgotten) {
    Bench bench;
    bench.add(0);
    bench.queue.charge(*bench.queue.first(1)[0], 50);
    bench.add(1);
    CHECK_EQ(bench.serve(1000), uint64_t{1});  // and is away
    for (uint64_t tenant = 2; tenant < 2000; ++tenant) {
        bench.add(tenant);
        CHECK_EQ(bench.serve(1), tenant);
    }
    bench.add(1);
    CHECK_EQ(bench.serve(1), uint64_t{1});
    CHECK_EQ(bench.serve(1), uint64_t{0});
}

TEST(one_that_is_taken_out_is_not_served) {
    Bench      bench;
    Sequence * first = bench.add(1);
    bench.add(1);
    bench.queue.erase(first);
    bench.queue.erase(first);
    bench.queue.leave(*first);
    CHECK_EQ(bench.queue.size(), size_t{1});
    CHECK(bench.queue.first(5)[0] != first);
}

}  // namespace
}  // namespace inferno
