// What may follow, byte by byte: the pushdown automaton of a grammar, made deterministic as far as it is walked.
//
// A stack is what is still to come, innermost first. A state is the set of stacks that the bytes so far lead to; sets
// are numbered, and where a byte leads from a state is remembered. Walking known ground is one look into a table.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "gbnf.h"
#include "params.h"

namespace inferno {

// Not thread-safe. Numbers of states hold for one automaton; stacks() carries a state over to another.
class GrammarAutomaton {
public:
    using State  = uint32_t;
    using Stack  = std::vector<uint32_t>;  // positions in GrammarRules::elements, outermost first
    using Stacks = std::vector<Stack>;

    static constexpr State kDead = 0;  // nothing can follow any more

    // Throws like next(). REQUIRES: `rules` outlives this.
    explicit GrammarAutomaton(const GrammarRules & rules);

    State start() const { return start_; }

    // To be called now and then: what comes until the next call may take so much work and no more.
    void  begin_work() { work_ = 0; }
    // Throws Error(invalid_request) when there are too many ways to go on.
    State next(State state, uint8_t byte) {
        const State known = transitions_[state * n_classes_ + byte_class_[byte]];
        return known != kUnknown ? known : step(state, byte);
    }
    // Where a whole token leads that the grammar names as a token.
    State next_token(State state, Token token);
    // States with the stacks of both.
    State either(State a, State b);

    // True when the text may end here, and when it can do nothing else.
    bool may_end(State state) const { return ends(state) > 0; }
    bool must_end(State state) const { return ends(state) == set_of(state).size(); }
    // The tokens that the grammar names here, as a token or as one that must not come.
    std::vector<GrammarRules::Element> named_tokens(State state) const;

    Stacks stacks(State state) const;
    State  with_stacks(const Stacks & stacks);

    size_t bytes() const { return bytes_; }

private:
    using Node = uint32_t;  // a stack: its innermost position and the rest of it. 0 is the empty stack
    using Set  = std::vector<Node>;

    static constexpr State kUnknown = UINT32_MAX;

    struct Link {
        uint32_t position;
        Node     rest;
    };
    struct SetHash {
        size_t operator()(const Set & set) const;
    };

    const GrammarRules::Element & element(uint32_t position) const { return rules_.elements[position]; }
    const Set & set_of(State state) const { return *sets_[state]; }
    size_t      ends(State state) const { return set_of(state).empty() || set_of(state)[0] != 0 ? 0 : 1; }

    void  classify_bytes();
    Node  link(uint32_t position, Node rest);
    Node  after(Node node);  // the stack once its innermost element is done
    void  spend(size_t n);
    void  begin_set();
    void  add(Node node);    // what a stack expands to, until its innermost element is one to be read
    State end_set();
    State step(State state, uint8_t byte);

    const GrammarRules &                     rules_;
    uint8_t                                  byte_class_[256];  // bytes that no rule tells apart are alike
    size_t                                   n_classes_ = 0;
    std::vector<Link>                        links_;
    std::unordered_map<uint64_t, Node>       nodes_;
    std::unordered_map<Set, State, SetHash>  states_;
    std::vector<const Set *>                 sets_;
    std::vector<State>                       transitions_;  // of state s by class c: [s * n_classes_ + c]
    State                                    start_ = kDead;
    size_t                                   bytes_ = 0;

    // The set being made, and how many stacks have been looked at since begin_work().
    Set                   set_;
    std::vector<Node>     todo_;
    std::vector<uint32_t> seen_;  // by node: the last set it was added to
    uint32_t              n_sets_ = 0;
    size_t                work_   = 0;
};

}  // namespace inferno
