#include "grammar.h"

#include <llama.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "error.h"
#include "json_schema.h"
#include "model.h"

namespace inferno {

namespace {

// llama.cpp's parser recurses once for every open parenthesis and its checks once for every rule, without a limit.
constexpr int    kMaxDepth = 64;
constexpr size_t kMaxRules = 2000;

[[noreturn]] void refuse(const std::string & why) {
    throw Error(ErrorCode::invalid_request, "The grammar " + why + ".", "grammar");
}

// Skips a quoted literal or character class that starts at `i`; returns the index of its last character.
size_t skip_quoted(std::string_view text, size_t i) {
    const char end = text[i] == '"' ? '"' : ']';
    for (++i; i < text.size() && text[i] != end; ++i) {
        i += text[i] == '\\' ? 1 : 0;
    }
    return i;
}

void check_shape(std::string_view text) {
    int    depth = 0;
    size_t rules = 0;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '"' || c == '[') {
            i = skip_quoted(text, i);
        } else if (c == '#') {
            i = std::min(text.find('\n', i), text.size());
        } else if (c == '(') {
            ++depth;
        } else if (c == ')') {
            --depth;
        } else if (c == ':' && text.substr(i, 3) == "::=") {
            ++rules;
        }
        if (depth > kMaxDepth) {
            refuse("nests deeper than " + std::to_string(kMaxDepth) + " levels");
        }
    }
    if (rules > kMaxRules) {
        refuse("has more than " + std::to_string(kMaxRules) + " rules");
    }
}

class Grammar : public TokenConstraint {
public:
    explicit Grammar(llama_sampler * sampler) : sampler_(sampler) {}

    bool allows(Token token) override {
        rows_ = {{token, 0.0f, 0.0f}};
        apply();
        return std::isfinite(rows_.front().logit);
    }

    void mask(float * logits, int32_t n_vocab) override {
        rows_.clear();
        for (Token token = 0; token < n_vocab; ++token) {
            if (logits[token] > std::numeric_limits<float>::lowest()) {
                rows_.push_back({token, logits[token], 0.0f});
            }
        }
        apply();
        for (const llama_token_data & row : rows_) {
            logits[row.id] = row.logit;
        }
    }

    void accept(Token token) override {
        try {
            llama_sampler_accept(sampler_.get(), token);
        } catch (const std::exception &) {
            throw Error(ErrorCode::inference_failed, "The text has left the grammar.");
        }
    }

private:
    struct Free {
        void operator()(llama_sampler * sampler) const { llama_sampler_free(sampler); }
    };

    void apply() {
        llama_token_data_array array{rows_.data(), rows_.size(), -1, false};
        llama_sampler_apply(sampler_.get(), &array);
    }

    std::unique_ptr<llama_sampler, Free> sampler_;
    std::vector<llama_token_data>        rows_;
};

}  // namespace

std::string grammar_text(const SamplingParams & params) {
    if (params.json_schema.text.empty()) {
        return params.grammar;
    }
    if (!params.grammar.empty()) {
        throw Error(ErrorCode::invalid_request, "json_schema cannot be used together with grammar.", "json_schema");
    }
    return json_schema_grammar(params.json_schema.text);
}

void check_grammar(const SamplingParams & params) {
    // The items of a batch share a schema more often than not.
    static thread_local std::string last_good;
    if (!params.grammar.empty() || params.json_schema.text != last_good) {
        (void) grammar_text(params);
        last_good = params.json_schema.text;
    }
}

std::unique_ptr<TokenConstraint> make_grammar(const std::string & gbnf, const Vocabulary & vocabulary) {
    if (gbnf.empty()) {
        return nullptr;
    }
    check_shape(gbnf);
    if (gbnf.find('\0') != std::string::npos) {
        refuse("contains a null character");
    }
    llama_sampler * sampler = nullptr;
    try {
        sampler = llama_sampler_init_grammar(vocabulary.native(), gbnf.c_str(), "root");
    } catch (const std::exception &) {
        refuse("could not be read");
    }
    if (sampler == nullptr) {
        refuse("could not be read: it must be GBNF with a rule named root, every rule defined and none left-recursive");
    }
    return std::make_unique<Grammar>(sampler);
}

}  // namespace inferno
