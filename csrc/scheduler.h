// Pure policy: waiting and running sequences -> the next step. No llama.h, no threads, no I/O; time is an argument.
//
// Each step takes one row of every generating sequence (they are never skipped) and, beside those, one of every prompt,
// then prompt rows as far as the time budget goes: the whole batch when nobody generates, otherwise what the measured cost
// says fits. Prompts that are nearly done go first, and every millisecond of waiting counts as a millisecond less to do,
// so none starves.
//
// Waiting sequences start by priority, then by what has been computed for their tenant. Of the first few of a tenant the
// one with least to do starts, in the same sense: what others have computed counts as done. One of higher priority
// takes the slot of the newest running one of lower priority, whose KV state is saved and restored later, or computed
// again when there is no room for it: as much memory as prefixes without a slot may have is for both.
//
// While nobody's prompt is computed, sequences may have guesses of what follows computed with their next row
// (speculation.h).
//
// What prompts have in common is computed once: a sequence whose prompt begins like one that is being computed follows
// that one, which is to wait, without a slot, until the common part can be copied. It does not wait longer than it would
// compute: its leader has at least its priority, has no more of the common part left than it would have itself, and has
// the urgency of that part alone. Whatever takes the leader off its slot sets its followers free.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "batch.h"
#include "drafter.h"
#include "prefix_cache.h"
#include "sequence.h"
#include "speculation.h"
#include "step_cost.h"
#include "waiting_queue.h"

namespace inferno {

struct Step {
    struct Part {
        Sequence * sequence;
        int32_t    n_rows;
        bool       samples;    // its last row has logits, and those of its draft and the one before it
        int32_t    n_drafted;  // of its rows, the last
        size_t     last_row;   // index into batch.rows
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
    size_t  store_bytes = 0;  // for prefixes that have lost their slot, and states of preempted sequences
    size_t  token_bytes = 0;  // of those; 0: unknown
    int32_t max_outputs  = 0;  // rows of a step that may have logits
    int32_t draft_tokens = 0;  // of a sequence in a step, at most
    Drafter * drafter = nullptr;  // asked where nothing can be looked up; may be null
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
    // After that, for running sequences with a draft: the next token of it is in the text now ...
    void accept(Sequence * sequence);
    // ... and the others are to be forgotten.
    void settle(Sequence * sequence);
    // The step found no room and changed nothing: evicts cached texts, else preempts one sequence.
    // False when a single sequence has all the room there is.
    bool make_room();
    // The step was aborted: its edits are done, its rows are to be computed again.
    void roll_back(const Step & step);
    // The step failed with its slots in an unknown state: all they held is to be computed again.
    void recompute(const Step & step);

    // Before the first sequence: where to put what was kept elsewhere.
    PrefixStore & kept_prefixes() { return cache_.store(); }
    // After the last: edits that put what slots hold there.
    std::vector<CacheEdit> keep_prefixes() { return cache_.evict_idle(); }

    const std::vector<Sequence *> & running() const { return running_; }
    size_t  n_waiting() const;
    int64_t cached_tokens() const { return cache_.cached_tokens(); }
    size_t  stored_bytes() const { return cache_.stored_bytes(); }
    uint64_t fetched_tokens() const { return cache_.fetched_tokens(); }
    uint64_t preemptions() const { return preemptions_; }
    uint64_t drafted_tokens() const { return drafted_tokens_; }
    uint64_t accepted_tokens() const { return accepted_tokens_; }

private:
    using Followers = std::set<std::pair<Position, Sequence *>>;  // by where the common part ends

    void    close_gap(Step & step);
    void    admit(Step & step, TimePoint now);
    // Who starts next; null when all that were to follow do. REQUIRES: somebody is in the queue.
    Sequence * pick(TimePoint now);
    // Milliseconds of work, less those since it came: lower goes first.
    double  slack(const Sequence & sequence, int32_t n_rows, TimePoint now) const;
    void    start(Sequence * sequence, Step & step, TimePoint now);
    void    leave_slot(Sequence * sequence);
    void    preempt(Sequence * sequence, std::vector<CacheEdit> & edits);
    // Whether there is room for a state of `n` tokens. States of unknown size are at most as many as there are slots.
    bool    may_save(Position n);
    std::shared_ptr<SavedState> take_state(Sequence * sequence);  // null when it has none
    // The running sequence to give up: lowest priority, then newest.
    Sequence * lowest() const;
    bool    follow(Sequence * sequence);
    void    unfollow(Sequence * sequence);
    // Those whose common part ends at `computed` or before need not wait any more.
    void    free_followers(Sequence * leader, Position computed);
    // Tokens until the prompt, or what others wait for of it, is done.
    int32_t n_urgent(const Sequence * sequence) const;
    std::vector<Sequence *> prompts_by_slack(TimePoint now) const;
    void    add_rows(Step & step, TimePoint now);
    void    add_part(Step & step, Sequence * sequence, int32_t rows);
    // Lets those that generate guess, as far as it pays.
    void    draft(std::vector<Sequence *> generating);
    DraftOffer offer(Sequence * sequence) const;
    void    observe(const Step & step, const Load & common, const Load & prompt, double ms);

    SchedulerOptions                      options_;
    PrefixCache                           cache_;
    StepCost                              cost_;
    Speculation                           speculation_;
    WaitingQueue                          queue_;          // followers are not in it
    std::vector<Sequence *>               running_;        // in order of start
    std::map<const Sequence *, Followers> followers_;      // by leader; none is empty
    size_t                                n_saved_       = 0;
    std::vector<CacheEdit>                pending_edits_;  // due before anything else of the next step
    bool                                  short_of_room_ = false;  // start nothing until a running sequence has left
    uint64_t                              preemptions_     = 0;
    uint64_t                              drafted_tokens_  = 0;
    uint64_t                              accepted_tokens_ = 0;
};

}  // namespace inferno
