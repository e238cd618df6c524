#include "prefix_index.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace inferno {

namespace {

// How many of tokens[from, limit) are the beginning of `span`.
Position common_length(const std::vector<Token> & span, const std::vector<Token> & tokens, Position from,
                       Position limit) {
    const auto first = tokens.begin() + from;
    const auto last  = first + std::min<std::ptrdiff_t>(limit - from, static_cast<std::ptrdiff_t>(span.size()));
    return static_cast<Position>(std::mismatch(first, last, span.begin()).first - first);
}

}  // namespace

Slot first_slot(const SlotSet & slots) {
    size_t slot = 0;
    while (slot < slots.size() && !slots.test(slot)) {
        ++slot;
    }
    return slot < slots.size() ? static_cast<Slot>(slot) : -1;
}

PrefixIndex::PrefixIndex(int32_t n_slots) : slots_(static_cast<size_t>(n_slots)) {}

PrefixIndex::Node * PrefixIndex::root(uint64_t salt) {
    auto & found = roots_[salt];
    if (!found) {
        found = std::make_unique<Node>();
    }
    return found.get();
}

PrefixIndex::Node * PrefixIndex::add_child(Node * parent, const std::vector<Token> & tokens, Position n, Slot slot) {
    auto child    = std::make_unique<Node>();
    child->parent = parent;
    child->start  = parent->end();
    child->span.assign(tokens.begin() + child->start, tokens.begin() + n);
    child->holders.set(index(slot));
    return (parent->children[child->span.front()] = std::move(child)).get();
}

// Cuts a node in two before its token `at`; returns the upper part. The node itself stays the lower part, for slots
// that end in it know it by its address.
PrefixIndex::Node * PrefixIndex::split(Node * node, Position at) {
    auto &     place = node->parent->children[node->span.front()];
    const auto cut   = node->span.begin() + (at - node->start);
    auto       upper = std::make_unique<Node>();
    upper->parent    = node->parent;
    upper->start     = node->start;
    upper->span.assign(node->span.begin(), cut);
    upper->holders = node->holders;
    node->span.erase(node->span.begin(), cut);
    node->start  = at;
    node->parent = upper.get();
    upper->children[node->span.front()] = std::move(place);
    place                               = std::move(upper);
    return place.get();
}

// REQUIRES: the slot is in no child of the node.
void PrefixIndex::leave(Node * node, Slot slot) {
    node->holders.reset(index(slot));
    if (node->holders.none()) {
        node->parent->children.erase(node->span.front());
    }
}

void PrefixIndex::extend(Slot slot, const std::vector<Token> & tokens, Position n, uint64_t salt) {
    Held & held = slots_[index(slot)];
    assert(n >= held.length && (held.end == nullptr || held.salt == salt));
    if (n == held.length) {
        return;
    }
    Node * node = held.end != nullptr ? held.end : root(salt);
    while (node->end() < n) {
        const auto next = node->children.find(tokens[static_cast<size_t>(node->end())]);
        if (next != node->children.end()) {
            Node *         child  = next->second.get();
            const Position common = common_length(child->span, tokens, child->start, n);
            node = child->start + common < child->end() ? split(child, child->start + common) : child;
            node->holders.set(index(slot));
        } else if (node->parent != nullptr && node->children.empty() && node->holders.count() == 1) {
            node->span.insert(node->span.end(), tokens.begin() + node->end(), tokens.begin() + n);
        } else {
            node = add_child(node, tokens, n, slot);
        }
    }
    held = {node, n, salt};
}

void PrefixIndex::truncate(Slot slot, Position n) {
    Held & held = slots_[index(slot)];
    if (held.length <= n) {
        return;
    }
    Node * node = held.end;
    while (node->parent != nullptr && node->end() > n) {
        Node * above = node->start < n ? split(node, n) : node->parent;
        leave(node, slot);
        node = above;
    }
    held.end    = n > 0 ? node : nullptr;
    held.length = n;
    if (n == 0 && node->children.empty()) {
        roots_.erase(held.salt);
    }
}

void PrefixIndex::swap(Slot a, Slot b) {
    Held & first  = slots_[index(a)];
    Held & second = slots_[index(b)];
    // Both leave before either joins, so that a common node that only these two hold is exchanged as well.
    const auto rename = [](Node * node, Slot from, Slot to, bool sets) {
        for (; node != nullptr && node->parent != nullptr; node = node->parent) {
            node->holders.set(index(sets ? to : from), sets);
        }
    };
    rename(first.end, a, b, false);
    rename(second.end, b, a, false);
    rename(first.end, a, b, true);
    rename(second.end, b, a, true);
    std::swap(first, second);
}

// Calls visit(node, length) for each node on the way of the tokens, with how much of them has matched after it.
template <class Visit>
void PrefixIndex::walk(const std::vector<Token> & tokens, Position limit, uint64_t salt, const SlotSet & among,
                       Visit visit) const {
    const auto found = roots_.find(salt);
    if (found == roots_.end()) {
        return;
    }
    const Node * node = found->second.get();
    Position     at   = 0;
    while (at < limit) {
        const auto next = node->children.find(tokens[static_cast<size_t>(at)]);
        if (next == node->children.end() || (next->second->holders & among).none()) {
            return;
        }
        node = next->second.get();
        at += common_length(node->span, tokens, at, limit);
        visit(*node, at);
        if (at < node->end()) {
            return;
        }
    }
}

SlotSet PrefixIndex::ending(const Node & node, const SlotSet & among) const {
    SlotSet result = node.holders & among;
    for (size_t slot = 0; slot < slots_.size(); ++slot) {
        if (slots_[slot].end != &node) {
            result.reset(slot);
        }
    }
    return result;
}

PrefixIndex::Match PrefixIndex::longest(const std::vector<Token> & tokens, Position limit, uint64_t salt,
                                        const SlotSet & among) const {
    Match best;
    walk(tokens, limit, salt, among,
         [&](const Node & node, Position length) { best = {length, node.holders & among}; });
    return best;
}

PrefixIndex::Match PrefixIndex::longest_whole(const std::vector<Token> & tokens, Position limit, uint64_t salt,
                                              const SlotSet & among) const {
    Match best;
    walk(tokens, limit, salt, among, [&](const Node & node, Position length) {
        const SlotSet whole = length == node.end() ? ending(node, among) : SlotSet();
        if (whole.any()) {
            best = {length, whole};
        }
    });
    return best;
}

std::vector<Token> PrefixIndex::tokens(Slot slot) const {
    const Held &       held = slots_[index(slot)];
    std::vector<Token> result(static_cast<size_t>(held.length));
    for (const Node * node = held.end; node != nullptr; node = node->parent) {
        std::copy(node->span.begin(), node->span.end(), result.begin() + node->start);
    }
    return result;
}

}  // namespace inferno
