// Pure policy: waiting and running sequences -> the next step. No llama.h, no threads, no I/O; time is an argument.
//
// Each step takes one row of every generating sequence (they are never skipped), then prompt rows as far as the time
// budget goes: the whole batch when nobody generates, otherwise what the measured cost says fits. Prompts that are
// nearly done go first, and every millisecond of waiting counts as a millisecond less to do, so none starves.
//
// Waiting sequences start by priority, then in order of arrival. One of higher priority takes the slot of the
// newest running one of lower priority, whose KV state is saved and restored later.
//
// What prompts have in common is computed once: a sequence whose prompt begins like one that is being computed follows
// that one, which is to wait, without a slot, until the common part can be copied. It does not wait longer than it would
// compute: its leader has at least its priority, has no more of the common part left than it would have itself, and has
// the urgency of that part alone. Whatever takes the leader off its slot sets its followers free.
#pragma once

#include <cstdint>
#include <map>
#include <set>
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

    Batch             batch;
    std::vector<Part> parts;
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
    // The step was aborted: its edits are done, its rows are to be computed again.
    void roll_back(const Step & step);
    // The step failed with its slots in an unknown state: all they held is to be computed again.
    void recompute(const Step & step);

    const std::vector<Sequence *> & running() const { return running_; }
    size_t n_waiting() const { return waiting_.size() + n_followers_; }
    int64_t cached_tokens() const { return cache_.cached_tokens(); }
    uint64_t preemptions() const { return preemptions_; }

private:
    using Followers = std::set<std::pair<Position, Sequence *>>;  // by where the common part ends

    void    close_gap(Step & step);
    void    admit(Step & step, TimePoint now);
    void    start(Sequence * sequence, Step & step, TimePoint now);
    void    leave_slot(Sequence * sequence);
    void    preempt(Sequence * sequence, std::vector<CacheEdit> & edits);
    // The running sequence to give up: lowest priority, then newest.
    Sequence * lowest() const;
    bool    follow(Sequence * sequence);
    void    unfollow(Sequence * sequence);
    // Those whose common part ends at `computed` or before need not wait any more.
    void    free_followers(Sequence * leader, Position computed);
    // Tokens until the prompt, or what others wait for of it, is done.
    int32_t n_urgent(const Sequence * sequence) const;
    int32_t prompt_rows(int32_t n_decoding) const;
    void    add_rows(Step & step, TimePoint now);

    SchedulerOptions                      options_;
    PrefixCache                           cache_;
    StepCost                              cost_;
    std::vector<Sequence *>               waiting_;        // by priority, then id; followers are not among them
    std::vector<Sequence *>               running_;        // in order of start
    std::map<const Sequence *, Followers> followers_;      // by leader; none is empty
    size_t                                n_followers_   = 0;
    std::vector<CacheEdit>                pending_edits_;  // due before anything else of the next step
    bool                                  short_of_room_ = false;  // start nothing until a running sequence has left
    uint64_t                              preemptions_   = 0;
};

}  // namespace inferno
