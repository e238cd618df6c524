#include "compiled_grammar.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "error.h"
#include "model.h"

namespace inferno {

namespace {

using State = GrammarAutomaton::State;

constexpr size_t kMaxAutomatonBytes = size_t{8} << 20;
constexpr size_t kMaxSetBytes       = size_t{8} << 20;

}  // namespace

// Walked ground: the automaton's states so far, and the allowed tokens of some of them.
struct CompiledGrammar::Ground {
    explicit Ground(const GrammarRules & rules) : automaton(rules) {}

    struct Allowed {
        std::shared_ptr<const TokenSet> tokens;
        uint64_t                        last_use;
    };

    GrammarAutomaton                   automaton;
    std::unordered_map<State, Allowed> allowed;
    size_t                             set_bytes = 0;
    uint64_t                           tick      = 0;

    size_t bytes() const { return automaton.bytes() + set_bytes; }

    static size_t bytes_of(const TokenSet & tokens) { return tokens.size() * sizeof(uint64_t) + sizeof(Allowed); }

    void keep(State state, const std::shared_ptr<const TokenSet> & tokens) {
        set_bytes += bytes_of(*tokens);
        allowed[state] = {tokens, ++tick};
        while (set_bytes > kMaxSetBytes && allowed.size() > 1) {
            const auto older  = [](const auto & a, const auto & b) { return a.second.last_use < b.second.last_use; };
            const auto oldest = std::min_element(allowed.begin(), allowed.end(), older);
            set_bytes -= bytes_of(*oldest->second.tokens);
            allowed.erase(oldest);
        }
    }
};

CompiledGrammar::CompiledGrammar(GrammarRules rules, std::shared_ptr<const TokenTrie> trie,
                                 const Vocabulary & vocabulary)
    : rules_(std::move(rules)), trie_(std::move(trie)), vocabulary_(vocabulary),
      ground_(std::make_shared<Ground>(rules_)) {
    count_bytes(*ground_);
}

void CompiledGrammar::count_bytes(const Ground & ground) {
    bytes_ = rules_.bytes() + ground.bytes();
}

// The ground that `position` is on from now on.
CompiledGrammar::Ground & CompiledGrammar::settle(Position & position) {
    if (ground_->automaton.bytes() > kMaxAutomatonBytes) {
        ground_ = std::make_shared<Ground>(rules_);
    }
    GrammarAutomaton & automaton = ground_->automaton;
    automaton.begin_work();
    if (position.ground == nullptr) {
        position.state = automaton.start();
    } else if (position.ground != ground_) {
        position.state = automaton.with_stacks(position.ground->automaton.stacks(position.state));
    }
    position.ground = ground_;
    return *ground_;
}

State CompiledGrammar::after(GrammarAutomaton & automaton, State state, Token token) const {
    const std::string_view piece  = vocabulary_.piece(token);
    State                  result = piece.empty() ? GrammarAutomaton::kDead : state;
    for (const char byte : piece) {
        result = automaton.next(result, static_cast<uint8_t>(byte));
        if (result == GrammarAutomaton::kDead) {
            break;
        }
    }
    return rules_.names_tokens ? automaton.either(result, automaton.next_token(state, token)) : result;
}

bool CompiledGrammar::allows(Position & position, Token token) {
    const std::lock_guard<std::mutex> lock(mutex_);
    GrammarAutomaton &                automaton = settle(position).automaton;
    return vocabulary_.is_end(token) ? automaton.may_end(position.state)
                                     : after(automaton, position.state, token) != GrammarAutomaton::kDead;
}

void CompiledGrammar::accept(Position & position, Token token) {
    if (vocabulary_.is_end(token)) {
        return;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    Ground &                          ground = settle(position);
    position.state                           = after(ground.automaton, position.state, token);
    count_bytes(ground);
}

bool CompiledGrammar::complete(Position & position) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return settle(position).automaton.must_end(position.state);
}

std::shared_ptr<const TokenSet> CompiledGrammar::allowed(Position & position) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Ground &                          ground = settle(position);
    const auto                        known  = ground.allowed.find(position.state);
    if (known != ground.allowed.end()) {
        known->second.last_use = ++ground.tick;
        return known->second.tokens;
    }
    auto result = walk(ground, position.state);
    ground.keep(position.state, result);
    count_bytes(ground);
    return result;
}

std::shared_ptr<const TokenSet> CompiledGrammar::walk(Ground & ground, State state) const {
    GrammarAutomaton & automaton = ground.automaton;
    TokenSet           tokens((trie_->n_tokens() + 63) / 64);
    trie_->walk(state, [&](State from, uint8_t byte) { return automaton.next(from, byte); }, tokens);
    const auto n_tokens = static_cast<Token>(trie_->n_tokens());
    for (const GrammarRules::Element & named : automaton.named_tokens(state)) {
        const auto token = static_cast<Token>(named.value);
        for (Token other = 0; other < n_tokens; ++other) {
            if ((other == token) == (named.kind == GrammarRules::Kind::token) && !vocabulary_.is_end(other)) {
                insert(tokens, other);
            }
        }
    }
    if (automaton.may_end(state)) {
        for (const Token end : vocabulary_.end_tokens()) {
            insert(tokens, end);
        }
    }
    return std::make_shared<const TokenSet>(std::move(tokens));
}

}  // namespace inferno
