#include "grammar_automaton.h"

#include <algorithm>
#include <map>
#include <utility>

#include "error.h"

namespace inferno {

namespace {

using Kind = GrammarRules::Kind;

// An ambiguous grammar may lead to ever more stacks.
constexpr size_t kMaxStacks = 16384;
constexpr size_t kMaxWork   = 20'000'000;

constexpr size_t kBytesPerNode = 32;  // of links_, nodes_ and seen_
constexpr size_t kBytesPerSet  = 96;  // of states_ and sets_, without the nodes and transitions

}  // namespace

size_t GrammarAutomaton::SetHash::operator()(const Set & set) const {
    uint64_t hash = set.size();
    for (const Node node : set) {
        hash = (hash ^ node) * 0x9E3779B97F4A7C15;
        hash ^= hash >> 32;
    }
    return hash;
}

GrammarAutomaton::GrammarAutomaton(const GrammarRules & rules) : rules_(rules) {
    classify_bytes();
    links_.push_back({0, 0});
    seen_.push_back(0);
    begin_set();
    end_set();  // the empty set is kDead
    begin_set();
    for (uint32_t i = rules_.first[rules_.root]; i < rules_.first[rules_.root + 1]; ++i) {
        const uint32_t position = rules_.alternatives[i];
        add(element(position).kind == Kind::end ? Node{0} : link(position, 0));
    }
    start_ = end_set();
}

void GrammarAutomaton::classify_bytes() {
    std::vector<bool>                  used(rules_.byte_sets.size());
    std::map<std::vector<bool>, uint8_t> classes;
    for (const GrammarRules::Element & element : rules_.elements) {
        if (element.kind == Kind::bytes) {
            used[element.value] = true;
        }
    }
    for (size_t byte = 0; byte < 256; ++byte) {
        std::vector<bool> membership;
        for (size_t i = 0; i < used.size(); ++i) {
            if (used[i]) {
                membership.push_back(rules_.byte_sets[i][byte]);
            }
        }
        const auto number = static_cast<uint8_t>(classes.size());
        byte_class_[byte] = classes.emplace(std::move(membership), number).first->second;
    }
    n_classes_ = classes.size();
}

// ---- stacks -----------------------------------------------------------------------------------------------------

GrammarAutomaton::Node GrammarAutomaton::link(uint32_t position, Node rest) {
    const uint64_t key              = uint64_t{position} << 32 | rest;
    const auto     [known, is_new] = nodes_.emplace(key, static_cast<Node>(links_.size()));
    if (is_new) {
        links_.push_back({position, rest});
        seen_.push_back(0);
        bytes_ += kBytesPerNode;
    }
    return known->second;
}

GrammarAutomaton::Node GrammarAutomaton::after(Node node) {
    const auto [position, rest] = links_[node];
    return element(position + 1).kind == Kind::end ? rest : link(position + 1, rest);
}

// ---- sets of stacks ---------------------------------------------------------------------------------------------

void GrammarAutomaton::spend(size_t n) {
    work_ += n;
    if (work_ > kMaxWork || set_.size() + todo_.size() > kMaxStacks) {
        todo_.clear();
        throw Error(ErrorCode::invalid_request, "The grammar has too many ways to go on from here.");
    }
}

void GrammarAutomaton::begin_set() {
    set_.clear();
    ++n_sets_;
}

void GrammarAutomaton::add(Node node) {
    todo_.push_back(node);
    while (!todo_.empty()) {
        const Node stack = todo_.back();
        todo_.pop_back();
        if (seen_[stack] == n_sets_) {
            continue;
        }
        seen_[stack]          = n_sets_;
        const auto & innermost = element(links_[stack].position);
        if (stack == 0 || innermost.kind != Kind::rule) {
            set_.push_back(stack);
        } else {
            const Node rest = after(stack);
            for (uint32_t i = rules_.first[innermost.value]; i < rules_.first[innermost.value + 1]; ++i) {
                const uint32_t position = rules_.alternatives[i];
                todo_.push_back(element(position).kind == Kind::end ? rest : link(position, rest));
            }
        }
        spend(1);
    }
}

GrammarAutomaton::State GrammarAutomaton::end_set() {
    std::sort(set_.begin(), set_.end());
    const auto [known, is_new] = states_.emplace(set_, static_cast<State>(sets_.size()));
    if (is_new) {
        sets_.push_back(&known->first);
        transitions_.resize(transitions_.size() + n_classes_, set_.empty() ? kDead : kUnknown);
        bytes_ += kBytesPerSet + set_.size() * sizeof(Node) + n_classes_ * sizeof(State);
    }
    return known->second;
}

GrammarAutomaton::State GrammarAutomaton::step(State state, uint8_t byte) {
    begin_set();
    spend(set_of(state).size());
    for (const Node node : set_of(state)) {
        const auto & innermost = element(links_[node].position);
        if (node != 0 && innermost.kind == Kind::bytes && rules_.byte_sets[innermost.value][byte]) {
            add(after(node));
        }
    }
    const State result = end_set();
    transitions_[state * n_classes_ + byte_class_[byte]] = result;
    return result;
}

GrammarAutomaton::State GrammarAutomaton::next_token(State state, Token token) {
    begin_set();
    for (const Node node : set_of(state)) {
        const auto & innermost = element(links_[node].position);
        const bool   same      = innermost.value == static_cast<uint32_t>(token);
        if (node != 0 && (innermost.kind == Kind::token ? same : innermost.kind == Kind::other_token && !same)) {
            add(after(node));
        }
    }
    return end_set();
}

GrammarAutomaton::State GrammarAutomaton::either(State a, State b) {
    if (a == kDead || b == kDead) {
        return a == kDead ? b : a;
    }
    begin_set();
    for (const State state : {a, b}) {
        for (const Node node : set_of(state)) {
            add(node);
        }
    }
    return end_set();
}

std::vector<GrammarRules::Element> GrammarAutomaton::named_tokens(State state) const {
    std::vector<GrammarRules::Element> result;
    for (const Node node : set_of(state)) {
        const auto & innermost = element(links_[node].position);
        if (node != 0 && (innermost.kind == Kind::token || innermost.kind == Kind::other_token)) {
            result.push_back(innermost);
        }
    }
    return result;
}

GrammarAutomaton::Stacks GrammarAutomaton::stacks(State state) const {
    Stacks result;
    for (Node node : set_of(state)) {
        result.emplace_back();
        for (; node != 0; node = links_[node].rest) {
            result.back().push_back(links_[node].position);
        }
        std::reverse(result.back().begin(), result.back().end());
    }
    return result;
}

GrammarAutomaton::State GrammarAutomaton::with_stacks(const Stacks & stacks) {
    begin_set();
    for (const Stack & stack : stacks) {
        Node node = 0;
        for (const uint32_t position : stack) {
            node = link(position, node);
        }
        add(node);
    }
    return end_set();
}

}  // namespace inferno
