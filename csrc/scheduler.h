// Pure policy: waiting and running sequences -> the next step. No llama.h, no threads, no I/O; time is an argument.
//
// Each step takes one row of every generating sequence (they are never skipped), then prompt rows as far as the time
// budget goes: the whole batch when nobody generates, otherwise what the measured cost says fits. Prompts that are
// nearly done go first, and every millisecond of waiting counts as a millisecond less to do, so none starves.
//
// Waiting sequences start by priority, then in order of arrival. One of higher priority takes the slot of the
// newest running one of lower priority, whose KV state is saved and restored later.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "batch.h"
#include "prefix_cache.h"
#include "sequence.h"

namespace inferno {

// Milliseconds of a step as a linear function of its rows, by least squares over recent steps (older ones fade).
class StepCost {
public:
    void observe(int32_t rows, double ms);
    // How many rows fit into `ms`; 0 while nothing has been observed.
    int32_t rows_within(double ms) const;
    double  row_ms() const;

private:
    double weight_ = 0, x_ = 0, y_ = 0, xx_ = 0, xy_ = 0;
};

struct Step {
    struct Part {
        Sequence * sequence;
        int32_t    n_rows;
        bool       samples;   // its last row has logits
        size_t     last_row;  // index into batch.rows
    };
    struct Move {
        Sequence * sequence;
        Slot       slot;
    };
    // In this order, before the batch: exchange slots, save preempted states, restore them.
    std::vector<std::pair<Slot, Slot>> swaps;
    std::vector<Move>                  saves;
    std::vector<Move>                  restores;
    Batch                              batch;
    std::vector<Part>                  parts;
};

struct SchedulerOptions {
    int32_t parallel;
    int32_t batch_size;
    double  step_budget_ms;
    bool    prefix_cache;
    bool    can_trim;
};

// Sequences are borrowed: whoever adds one keeps it alive until remove().
class Scheduler {
public:
    explicit Scheduler(const SchedulerOptions & options);

    void add(Sequence * sequence);
    // Waiting or running. A running one's tokens stay in its slot for prompts that extend them.
    void remove(Sequence * sequence);

    // Starts what can start and says what to compute. Empty when nothing runs.
    Step plan(TimePoint now);

    // The step was computed in `ms`.
    void commit(const Step & step, double ms);
    // The step found no room and changed nothing: evicts cached texts, else preempts one sequence.
    // False when a single sequence has all the room there is.
    bool make_room();
    // The step failed or was aborted with its slots in an unknown state: all of it is to be computed again.
    void recompute(const Step & step);

    const std::vector<Sequence *> & running() const { return running_; }
    const std::vector<Sequence *> & waiting() const { return waiting_; }
    int64_t cached_tokens() const { return cache_.cached_tokens(); }
    uint64_t preemptions() const { return preemptions_; }

private:
    void    close_gap(Step & step);
    void    admit(Step & step, TimePoint now);
    void    start(Sequence * sequence, Step & step, TimePoint now);
    void    preempt(Sequence * sequence);
    // The running sequence to give up: lowest priority, then newest.
    Sequence * lowest() const;
    int32_t prompt_rows(int32_t n_decoding) const;
    void    add_rows(Step & step, TimePoint now);

    SchedulerOptions        options_;
    PrefixCache             cache_;
    StepCost                cost_;
    std::vector<Sequence *> waiting_;  // by priority, then id
    std::vector<Sequence *> running_;  // in order of start
    std::vector<Step::Move> pending_saves_;
    std::vector<CacheEdit>  pending_edits_;
    bool                    short_of_room_ = false;  // start nothing until a running sequence has left
    uint64_t                preemptions_   = 0;
};

}  // namespace inferno
