// Who waits for a slot, and whose turn it is: the highest priority's; in it, the tenant's that least has been computed
// for; of that tenant, the scheduler chooses among the first.
//
// A tenant that comes anew starts level with those who are being served (start-time fair queueing), so that one with a
// thousand requests in the queue does not delay another's first, and nobody saves up turns by being away.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "sequence.h"

namespace inferno {

// Sequences are borrowed. Their cache_salt tells tenants apart.
class WaitingQueue {
public:
    // Between these a sequence counts for its tenant, whether it waits or runs.
    void enter(const Sequence & sequence);
    void leave(const Sequence & sequence);

    void push(Sequence * sequence);
    // It was its turn: it starts. REQUIRES: it is in the queue.
    void take(Sequence * sequence);
    // Nothing happens when it is not in the queue.
    void erase(Sequence * sequence);
    // So many rows have been computed for it.
    void charge(const Sequence & sequence, int32_t n_rows);

    bool   empty() const { return size_ == 0; }
    size_t size() const { return size_; }
    // Of those whose turn it is. REQUIRES: not empty.
    int32_t priority() const;
    // Up to `n` of the tenant whose turn it is, in order of arrival.
    std::vector<Sequence *> first(size_t n) const;

private:
    struct ById {
        bool operator()(const Sequence * a, const Sequence * b) const { return a->id < b->id; }
    };
    struct Tenant {
        double                     served  = 0;  // rows
        size_t                     present = 0;  // sequences
        std::set<Sequence *, ById> queued;
    };
    using Turn = std::tuple<double, RequestId, Tenant *>;  // what was served, who came first

    struct Class {
        std::unordered_map<uint64_t, Tenant> tenants;
        std::set<Turn>                       turns;  // of the tenants with queued sequences
        double                               level   = 0;  // what the tenant whose turn it was last had been served
        size_t                               present = 0;
    };

    template <class Change>
    static void   update(Class & peers, Tenant & tenant, Change change);
    static void   forget_absent(Class & peers);
    const Class & next_class() const;

    std::map<int32_t, Class, std::greater<int32_t>> classes_;  // by priority, while any of it is present
    size_t                                          size_ = 0;
};

}  // namespace inferno
