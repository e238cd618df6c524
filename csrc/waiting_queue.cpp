#include "waiting_queue.h"

#include <algorithm>
#include <cassert>

namespace inferno {

namespace {

// With so many tenants those who are away are forgotten, so that they do not pile up while a queue is never empty.
constexpr size_t kRemembered = 1024;

}  // namespace

template <class Change>
void WaitingQueue::update(Class & peers, Tenant & tenant, Change change) {
    const auto turn = [&] { return Turn(tenant.served, (*tenant.queued.begin())->id, &tenant); };
    if (!tenant.queued.empty()) {
        peers.turns.erase(turn());
    }
    change();
    if (!tenant.queued.empty()) {
        peers.turns.insert(turn());
    }
}

void WaitingQueue::forget_absent(Class & peers) {
    for (auto tenant = peers.tenants.begin(); tenant != peers.tenants.end();) {
        tenant = tenant->second.present == 0 ? peers.tenants.erase(tenant) : std::next(tenant);
    }
}

void WaitingQueue::enter(const Sequence & sequence) {
    Class & peers = classes_[sequence.priority];
    if (peers.tenants.size() >= kRemembered && peers.tenants.count(sequence.cache_salt) == 0) {
        forget_absent(peers);
    }
    Tenant & tenant = peers.tenants[sequence.cache_salt];
    if (tenant.present == 0) {
        tenant.served = std::max(tenant.served, peers.level);
    }
    ++tenant.present;
    ++peers.present;
}

void WaitingQueue::leave(const Sequence & sequence) {
    Class & peers = classes_.at(sequence.priority);
    --peers.tenants.at(sequence.cache_salt).present;
    if (--peers.present == 0) {
        classes_.erase(sequence.priority);
    }
}

void WaitingQueue::push(Sequence * sequence) {
    Class &  peers  = classes_.at(sequence->priority);
    Tenant & tenant = peers.tenants.at(sequence->cache_salt);
    update(peers, tenant, [&] { size_ += tenant.queued.insert(sequence).second ? 1 : 0; });
}

void WaitingQueue::erase(Sequence * sequence) {
    Class &  peers  = classes_.at(sequence->priority);
    Tenant & tenant = peers.tenants.at(sequence->cache_salt);
    update(peers, tenant, [&] { size_ -= tenant.queued.erase(sequence); });
}

void WaitingQueue::take(Sequence * sequence) {
    Class & peers = classes_.at(sequence->priority);
    peers.level   = std::max(peers.level, peers.tenants.at(sequence->cache_salt).served);
    erase(sequence);
}

void WaitingQueue::charge(const Sequence & sequence, int32_t n_rows) {
    Class &  peers  = classes_.at(sequence.priority);
    Tenant & tenant = peers.tenants.at(sequence.cache_salt);
    update(peers, tenant, [&] { tenant.served += n_rows; });
}

const WaitingQueue::Class & WaitingQueue::next_class() const {
    const auto found = std::find_if(classes_.begin(), classes_.end(),
                                    [](const auto & entry) { return !entry.second.turns.empty(); });
    assert(found != classes_.end());
    return found->second;
}

int32_t WaitingQueue::priority() const {
    return first(1).front()->priority;
}

std::vector<Sequence *> WaitingQueue::first(size_t n) const {
    const auto & queued = std::get<Tenant *>(*next_class().turns.begin())->queued;
    return {queued.begin(), std::next(queued.begin(), static_cast<std::ptrdiff_t>(std::min(n, queued.size())))};
}

}  // namespace inferno
