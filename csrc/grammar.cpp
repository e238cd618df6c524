#include "grammar.h"

#include <algorithm>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>

#include "compiled_grammar.h"
#include "error.h"
#include "gbnf.h"
#include "json_schema.h"
#include "model.h"
#include "token_trie.h"

namespace inferno {

namespace {

// Of what is kept. A grammar counts as no less than kLeastBytes, so that there are never too many to look through.
constexpr size_t kMaxBytes   = size_t{64} << 20;
constexpr size_t kLeastBytes = size_t{512} << 10;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

[[noreturn]] void refuse(const std::string & field, const std::string & why) {
    throw Error(ErrorCode::invalid_request, field + " " + why + ".", field);
}

bool asks_for_none(const SamplingParams & params) {
    return params.grammar.empty() && params.json_schema.text.empty();
}

void refuse_both(const SamplingParams & params) {
    if (!params.grammar.empty() && !params.json_schema.text.empty()) {
        refuse("json_schema", "cannot be used together with grammar");
    }
}

// REQUIRES: !asks_for_none(params), and not both.
GrammarRules rules_of(const SamplingParams & params, const Vocabulary * vocabulary) {
    const bool        is_schema = params.grammar.empty();
    const std::string text      = is_schema ? json_schema_grammar(params.json_schema.text) : params.grammar;
    const std::string field     = is_schema ? "json_schema" : "grammar";
    try {
        GrammarRules rules = parse_gbnf(text, vocabulary);
        (void) GrammarAutomaton(rules);
        return rules;
    } catch (const std::invalid_argument & error) {
        refuse(field, error.what());
    } catch (const Error &) {
        refuse(field, "has too many ways to begin");
    }
}

void keep_only(const TokenSet & tokens, float * logits, size_t n) {
    for (size_t begin = 0; begin < n; begin += 64) {
        const uint64_t bits  = tokens[begin / 64];
        const size_t   count = std::min<size_t>(64, n - begin);
        float *        block = logits + begin;
        if (bits == 0) {
            std::fill(block, block + count, kMinusInfinity);
        } else if (~bits != 0) {
            for (size_t i = 0; i < count; ++i) {
                block[i] = (bits >> i & 1) != 0 ? block[i] : kMinusInfinity;
            }
        }
    }
}

class GrammarConstraint : public TokenConstraint {
public:
    explicit GrammarConstraint(std::shared_ptr<CompiledGrammar> grammar) : grammar_(std::move(grammar)) {}

    bool allows(Token token) override { return grammar_->allows(position_, token); }
    void accept(Token token) override { grammar_->accept(position_, token); }
    bool complete() override { return grammar_->complete(position_); }
    void mask(float * logits, int32_t n_vocab) override {
        keep_only(*grammar_->allowed(position_), logits, static_cast<size_t>(n_vocab));
    }

private:
    std::shared_ptr<CompiledGrammar> grammar_;
    CompiledGrammar::Position        position_;
};

}  // namespace

void check_grammar(const SamplingParams & params) {
    if (asks_for_none(params)) {
        return;
    }
    refuse_both(params);
    // The items of a batch share a schema more often than not.
    static thread_local std::string last_good;
    const bool                      known = params.grammar.empty() && params.json_schema.text == last_good;
    if (!known) {
        (void) rules_of(params, nullptr);
        last_good = params.json_schema.text;
    }
}

Grammars::Grammars(const Vocabulary & vocabulary) : vocabulary_(vocabulary) {}

Grammars::~Grammars() = default;

size_t Grammars::Entry::bytes() const {
    return text.size() + grammar->bytes();
}

std::unique_ptr<TokenConstraint> Grammars::constraint(const SamplingParams & params, uint64_t tenant) {
    if (asks_for_none(params)) {
        return nullptr;
    }
    refuse_both(params);
    const bool        is_schema = params.grammar.empty();
    const std::string text      = (is_schema ? "schema " : "grammar ") + params.json_schema.text + params.grammar;
    auto              grammar   = find(text, tenant);
    if (grammar == nullptr) {
        grammar = keep(text, tenant,
                       std::make_shared<CompiledGrammar>(rules_of(params, &vocabulary_), trie(), vocabulary_));
    }
    return std::make_unique<GrammarConstraint>(std::move(grammar));
}

std::shared_ptr<CompiledGrammar> Grammars::find(const std::string & text, uint64_t tenant) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return find_locked(text, tenant);
}

std::shared_ptr<CompiledGrammar> Grammars::find_locked(const std::string & text, uint64_t tenant) {
    for (Entry & entry : entries_) {
        if (entry.tenant == tenant && entry.text == text) {
            entry.last_use = ++tick_;
            return entry.grammar;
        }
    }
    return nullptr;
}

std::shared_ptr<CompiledGrammar> Grammars::keep(const std::string & text, uint64_t tenant,
                                                std::shared_ptr<CompiledGrammar> grammar) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (auto others = find_locked(text, tenant)) {
        return others;  // another thread has compiled the same meanwhile
    }
    entries_.push_back({text, tenant, grammar, ++tick_});
    evict_locked();
    return grammar;
}

void Grammars::evict_locked() {
    while (entries_.size() > 1) {
        std::map<uint64_t, size_t> held;  // by tenant
        size_t                     total = 0;
        for (const Entry & entry : entries_) {
            const size_t bytes = std::max(kLeastBytes, entry.bytes());
            held[entry.tenant] += bytes;
            total += bytes;
        }
        if (total <= kMaxBytes) {
            return;
        }
        const auto less  = [](const auto & a, const auto & b) { return a.second < b.second; };
        const auto most  = std::max_element(held.begin(), held.end(), less)->first;
        const auto older = [&](const Entry & a, const Entry & b) {
            return std::pair(a.tenant != most, a.last_use) < std::pair(b.tenant != most, b.last_use);
        };
        entries_.erase(std::min_element(entries_.begin(), entries_.end(), older));
    }
}

std::shared_ptr<const TokenTrie> Grammars::trie() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (trie_ == nullptr) {
        trie_ = std::make_shared<const TokenTrie>(vocabulary_);
    }
    return trie_;
}

size_t Grammars::bytes() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t                            result = 0;
    for (const Entry & entry : entries_) {
        result += entry.bytes();
    }
    return result;
}

size_t Grammars::count() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return entries_.size();
}

}  // namespace inferno
