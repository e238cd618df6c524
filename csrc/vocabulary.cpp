#include "vocabulary.h"

#include <algorithm>
#include <limits>

#include "error.h"

namespace inferno {

namespace {

// llama.cpp counts a text's bytes, and what it returns, in 32 bits.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

// Calls one of llama.cpp's functions that fill a buffer and answer the negative of the size they need.
template <class Buffer, class Fill>
void fill(Buffer & buffer, Fill call) {
    int32_t n = call(buffer.data(), static_cast<int32_t>(buffer.size()));
    if (n == std::numeric_limits<int32_t>::min()) {
        throw Error(ErrorCode::invalid_request, "The text is too long.", "prompt");
    }
    if (n < 0) {
        buffer.resize(static_cast<size_t>(-n));
        n = call(buffer.data(), static_cast<int32_t>(buffer.size()));
    }
    buffer.resize(static_cast<size_t>(n));
}

}  // namespace

LlamaVocabulary::LlamaVocabulary(const llama_vocab * vocab) : vocab_(vocab) {
    const int32_t n = llama_vocab_n_tokens(vocab);
    offsets_.push_back(0);
    for (Token token = 0; token < n; ++token) {
        std::string piece(32, '\0');
        fill(piece, [&](char * out, int32_t size) { return llama_token_to_piece(vocab, token, out, size, 0, false); });
        bytes_ += piece;
        offsets_.push_back(bytes_.size());
        is_end_.push_back(llama_vocab_is_eog(vocab, token));
        if (is_end_.back()) {
            end_tokens_.push_back(token);
        }
    }
    max_token_bytes_ = keeps_all() ? longest_text() : 0;
}

// Whether every byte of a text becomes part of a token. Kinds of vocabularies that this does not know may normalize.
bool LlamaVocabulary::keeps_all() const {
    switch (llama_vocab_type(vocab_)) {
        case LLAMA_VOCAB_TYPE_SPM:
        case LLAMA_VOCAB_TYPE_BPE:
        case LLAMA_VOCAB_TYPE_RWKV:
        case LLAMA_VOCAB_TYPE_PLAMO2: break;
        default: return false;
    }
    for (Token token = 0; token < size(); ++token) {
        // Takes the spaces beside it along, however many.
        if ((llama_vocab_get_attr(vocab_, token) & (LLAMA_TOKEN_ATTR_LSTRIP | LLAMA_TOKEN_ATTR_RSTRIP)) != 0) {
            return false;
        }
    }
    return !tokenize(" ", false, false).empty();
}

size_t LlamaVocabulary::longest_text() const {
    size_t longest = 0;
    for (Token token = 0; token < size(); ++token) {
        // SentencePiece's sign for a space, which a text may have in its place, is longer than one.
        const std::string_view spelled  = llama_vocab_get_text(vocab_, token);
        const bool             has_sign = spelled.find("\u2581") != std::string_view::npos;
        longest = std::max(longest, has_sign ? spelled.size() : text_of(token, true).size());
    }
    return longest;
}

std::string_view LlamaVocabulary::piece(Token token) const {
    const auto i = static_cast<size_t>(token);
    return std::string_view(bytes_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
}

bool LlamaVocabulary::is_end(Token token) const {
    return is_end_[static_cast<size_t>(token)];
}

std::vector<Token> LlamaVocabulary::tokenize(std::string_view text, bool add_special, bool parse_special) const {
    if (text.size() > kMaxTextBytes) {
        throw Error(ErrorCode::invalid_request, "The text is too long.", "prompt");
    }
    std::vector<Token> tokens(text.size() / 3 + 16);
    fill(tokens, [&](Token * out, int32_t size) {
        return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), out, size, add_special,
                              parse_special);
    });
    return tokens;
}

std::string LlamaVocabulary::text_of(Token token, bool render_special) const {
    std::string text(piece(token));
    if (render_special && text.empty()) {
        text.resize(32);
        fill(text, [&](char * out, int32_t size) { return llama_token_to_piece(vocab_, token, out, size, 0, true); });
    }
    return text;
}

std::string LlamaVocabulary::first_text(Token token, bool render_special) const {
    std::string text(32, '\0');
    fill(text, [&](char * out, int32_t size) {
        return llama_detokenize(vocab_, &token, 1, out, size, false, render_special);
    });
    return text;
}

std::string LlamaVocabulary::detokenize(const std::vector<Token> & tokens, bool render_special) const {
    // The first token goes through llama.cpp, which drops the space that SentencePiece puts before a text. The rest
    // is the plain sum of pieces, as in a stream: llama_detokenize() would also move spaces around punctuation for
    // some models, and a whole text would then differ from the same text streamed.
    std::string text;
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] < 0 || tokens[i] >= size()) {
            throw Error(ErrorCode::invalid_request, "A token id is outside the vocabulary.", "tokens");
        }
        text += i == 0 ? first_text(tokens[i], render_special) : text_of(tokens[i], render_special);
    }
    return text;
}

}  // namespace inferno
