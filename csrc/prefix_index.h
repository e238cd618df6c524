// Which slots hold which tokens from their start: one radix tree a salt, so that the longest match costs its own length
// and not the number of slots times theirs.
//
// A tree and not blocks of tokens, because slots end anywhere: a text that is continued keeps every token it has.
#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "batch.h"

namespace inferno {

using SlotSet = std::bitset<kMaxParallel>;

// -1 when there is none.
Slot first_slot(const SlotSet & slots);

class PrefixIndex {
public:
    struct Match {
        Position length = 0;
        SlotSet  slots;  // that hold so much; empty when length is 0
    };

    explicit PrefixIndex(int32_t n_slots);
    PrefixIndex(const PrefixIndex &)             = delete;
    PrefixIndex & operator=(const PrefixIndex &) = delete;

    // `slot` holds tokens[0, n) now. REQUIRES: what it held until now is the beginning of that, under the same salt.
    void extend(Slot slot, const std::vector<Token> & tokens, Position n, uint64_t salt);
    // Forgets what `slot` holds beyond its first `n` tokens.
    void truncate(Slot slot, Position n);
    // The two slots have exchanged what they hold.
    void swap(Slot a, Slot b);

    // The most of tokens[0, limit) that one of the slots `among` begins with.
    Match longest(const std::vector<Token> & tokens, Position limit, uint64_t salt, const SlotSet & among) const;
    // The same, of slots that hold nothing beyond the match.
    Match longest_whole(const std::vector<Token> & tokens, Position limit, uint64_t salt, const SlotSet & among) const;

    Position           length(Slot slot) const { return slots_[index(slot)].length; }
    uint64_t           salt(Slot slot) const { return slots_[index(slot)].salt; }
    std::vector<Token> tokens(Slot slot) const;

private:
    // Invariants: a slot is in `holders` of each node from its root to its end and of no other; every node but a root
    // has holders and at least one token; a slot ends where its last node does.
    struct Node {
        Node *                                 parent = nullptr;
        Position                               start  = 0;  // of `span` in the text
        std::vector<Token>                     span;
        SlotSet                                holders;
        std::map<Token, std::unique_ptr<Node>> children;  // by their first token

        Position end() const { return start + static_cast<Position>(span.size()); }
    };
    struct Held {
        Node *   end    = nullptr;  // null: nothing
        Position length = 0;
        uint64_t salt   = 0;
    };

    static size_t index(Slot slot) { return static_cast<size_t>(slot); }
    Node *        root(uint64_t salt);
    static Node * add_child(Node * parent, const std::vector<Token> & tokens, Position n, Slot slot);
    static Node * split(Node * node, Position at);
    static void   leave(Node * node, Slot slot);
    SlotSet       ending(const Node & node, const SlotSet & among) const;
    template <class Visit>
    void walk(const std::vector<Token> & tokens, Position limit, uint64_t salt, const SlotSet & among,
              Visit visit) const;

    std::vector<Held>                                   slots_;
    std::unordered_map<uint64_t, std::unique_ptr<Node>> roots_;
};

}  // namespace inferno
