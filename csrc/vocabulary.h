// llama.cpp's vocabulary behind our interface, with every token's bytes at hand.
#pragma once

#include <llama.h>

#include <string>
#include <vector>

#include "model.h"

namespace inferno {

class LlamaVocabulary : public Vocabulary {
public:
    // REQUIRES: `vocab` outlives this.
    explicit LlamaVocabulary(const llama_vocab * vocab);

    int32_t                    size() const override { return static_cast<int32_t>(offsets_.size()) - 1; }
    std::string_view           piece(Token token) const override;
    bool                       is_end(Token token) const override;
    const std::vector<Token> & end_tokens() const override { return end_tokens_; }
    std::vector<Token> tokenize(std::string_view text, bool add_special, bool parse_special) const override;
    std::string        detokenize(const std::vector<Token> & tokens, bool render_special) const override;
    size_t             max_token_bytes() const override { return max_token_bytes_; }
    const llama_vocab * native() const override { return vocab_; }

private:
    std::string text_of(Token token, bool render_special) const;
    std::string first_text(Token token, bool render_special) const;
    bool        keeps_all() const;
    size_t      longest_text() const;

    const llama_vocab * vocab_;
    std::string         bytes_;    // all pieces, end to end
    std::vector<size_t> offsets_;  // piece t is bytes_[offsets_[t], offsets_[t + 1])
    std::vector<bool>   is_end_;
    std::vector<Token>  end_tokens_;
    size_t              max_token_bytes_ = 0;
};

}  // namespace inferno
