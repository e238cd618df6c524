#include "token_trie.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include "model.h"

namespace inferno {

namespace {

constexpr size_t kMaxPieceBytes = std::numeric_limits<uint16_t>::max();

size_t common_prefix(std::string_view a, std::string_view b) {
    const size_t n = std::min(a.size(), b.size());
    return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first -
                               a.begin());
}

}  // namespace

TokenTrie::TokenTrie(const Vocabulary & vocabulary) : n_tokens_(static_cast<size_t>(vocabulary.size())) {
    std::vector<std::pair<std::string_view, Token>> pieces;
    for (Token token = 0; token < vocabulary.size(); ++token) {
        const std::string_view piece = vocabulary.piece(token);
        if (!piece.empty() && piece.size() <= kMaxPieceBytes && !vocabulary.is_end(token)) {
            pieces.emplace_back(piece, token);
        }
    }
    std::sort(pieces.begin(), pieces.end());

    std::vector<size_t> open;  // nodes on the way to the last piece
    const auto          close = [&](size_t depth) {
        for (; open.size() > depth; open.pop_back()) {
            nodes_[open.back()].end = static_cast<uint32_t>(nodes_.size());
        }
    };
    std::string_view last;
    for (const auto & [piece, token] : pieces) {
        close(common_prefix(last, piece));
        while (open.size() < piece.size()) {
            const auto byte = static_cast<uint8_t>(piece[open.size()]);
            open.push_back(nodes_.size());
            const auto depth = static_cast<uint16_t>(open.size());
            nodes_.push_back({0, static_cast<uint32_t>(tokens_.size()), depth, byte});
        }
        tokens_.push_back(token);
        max_depth_ = std::max(max_depth_, piece.size());
        last       = piece;
    }
    close(0);
    nodes_.push_back({0, static_cast<uint32_t>(tokens_.size()), 0, 0});
}

}  // namespace inferno
