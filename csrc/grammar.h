// SamplingParams -> TokenConstraint: JSON Schema and GBNF, and what is remembered of them from request to request.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "params.h"
#include "sampler.h"

namespace inferno {

class CompiledGrammar;
class TokenTrie;

// Throws Error(invalid_request) for a grammar or schema that no text could be held to; names the field, and the path in
// a schema. It may still turn out to name a token that a model does not have. Cheap when asked about one schema again
// and again.
void check_grammar(const SamplingParams & params);

// The grammars of one model. Thread-safe.
//
// Compiled grammars are kept, each with what has been found out while texts were generated: requests that ask for the
// same again share it. A tenant sees its own alone, and the one with the most loses first.
class Grammars {
public:
    // REQUIRES: `vocabulary` outlives this and all constraints made.
    explicit Grammars(const Vocabulary & vocabulary);
    ~Grammars();

    // Null when `params` ask for none. Throws Error(invalid_request); never returns no constraint in its place.
    std::unique_ptr<TokenConstraint> constraint(const SamplingParams & params, uint64_t tenant = 0);

    // Bytes and number of the grammars that are kept.
    size_t bytes() const;
    size_t count() const;

private:
    struct Entry {
        std::string                      text;
        uint64_t                         tenant;
        std::shared_ptr<CompiledGrammar> grammar;
        uint64_t                         last_use;

        size_t bytes() const;
    };

    std::shared_ptr<CompiledGrammar> find(const std::string & text, uint64_t tenant);
    std::shared_ptr<CompiledGrammar> find_locked(const std::string & text, uint64_t tenant);
    std::shared_ptr<CompiledGrammar> keep(const std::string & text, uint64_t tenant,
                                          std::shared_ptr<CompiledGrammar> grammar);
    void                             evict_locked();
    std::shared_ptr<const TokenTrie> trie();

    const Vocabulary & vocabulary_;

    // Guarded by mutex_.
    mutable std::mutex               mutex_;
    std::vector<Entry>               entries_;
    uint64_t                         tick_ = 0;
    std::shared_ptr<const TokenTrie> trie_;  // made when first needed
};

}  // namespace inferno
